"""Load a network of transformers or diffusers from exactly the files that were found."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from retrieval.errors import ModelError
from retrieval.models.weights.parts import FoundPart
from retrieval.models.weights.reading import model_errors, require_whole


def load_pretrained(kind: Any, found: FoundPart, what: str, **options: Any) -> Any:
    """Call ``kind.from_pretrained`` on the folder of a part, and check that its files held every weight.

    The libraries get a local folder, never the name of a repository: by name they may read a branch that the hub
    converted. They are told which form to read, so they can't choose another file. Both fill missing weights with
    random numbers and merely warn; here these are an error.

    Raises:
        ModelError: a file is damaged or unsuitable, or weights are missing; ``what`` names the network.
    """
    require_whole((*found.files, *found.weights), f"{what} can't be loaded")
    names = ", ".join(path.name for path in found.weights[:2]) + (", ..." if len(found.weights) > 2 else "")
    failure = f"{what} can't be loaded from {names} in {found.folder}"
    with quiet_loading(), model_errors(failure):
        model, report = kind.from_pretrained(
            found.folder, local_files_only=True, output_loading_info=True, **found.options(), **options
        )
    missing = [key for key in report.get("missing_keys", ()) if not key.endswith("position_ids")]
    if missing:
        raise ModelError(
            f"{failure}: {len(missing)} of its weights are missing there "
            f"({sorted(missing)[0]}, ...); is it another model's folder?"
        )
    return model.eval().requires_grad_(False)


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Hide the loading bars and notes of transformers and diffusers, because this library never prints."""
    from transformers.utils import logging as untyped

    bars: Any = untyped
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    loggers = [logging.getLogger(library) for library in ("transformers", "diffusers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if shown:
            bars.enable_progress_bar()
