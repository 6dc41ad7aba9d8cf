"""Take the values of a command line that are right as they are, without pydantic.

Typer converts every value by pydantic, whose import takes as long as Typer's own. Most values are the default, text,
or a whole number. Any other value, and every error, is left to Typer.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final, Literal, get_args, get_origin

Process = Callable[[Any, Any], Any]
_OTHER: Final = object()


def take_plain_values(command: Any) -> None:
    """Let the parameters of a Typer command, and of its subcommands, take plain values as they are.

    Older versions of Typer convert without pydantic; their commands stay as they are.
    """
    command.get_params = partial(_parameters, command.get_params)
    for below in getattr(command, "commands", {}).values():
        take_plain_values(below)


def _parameters(given: Callable[[Any], list[Any]], context: Any) -> list[Any]:
    found = given(context)  # with --help, which Typer adds late
    for parameter in found:
        if hasattr(parameter, "type_descriptor") and "process_value" not in vars(parameter):
            parameter.process_value = partial(_processed, parameter, parameter.process_value)
    return found


def _processed(parameter: Any, process: Process, context: Any, value: Any) -> Any:
    taken = _OTHER if parameter.required else _plain(value, parameter)
    if taken is _OTHER:
        return process(context, value)
    return taken if parameter.callback is None else parameter.callback(context, parameter, taken)


def _plain(value: Any, parameter: Any) -> Any:
    """Return the value as the command gets it, or _OTHER where Typer has to convert it."""
    kind, takes_several = parameter.type_descriptor.annotation, parameter.multiple or parameter.nargs == -1
    if value is None:
        return () if takes_several else None
    if takes_several:
        is_text = kind == list[str] and isinstance(value, list | tuple) and all(isinstance(text, str) for text in value)
        return list(value) if is_text else _OTHER
    if parameter.type_descriptor.is_ranged:
        return _OTHER
    if get_origin(kind) is Literal:
        return value if value in get_args(kind) else _OTHER
    if kind in (str, int, float, bool) and type(value) is kind:
        return value
    if kind is int and isinstance(value, str) and value.isascii() and value.isdecimal():
        return int(value)
    return _OTHER
