"""A Ray cluster as the place of work: joining it, starting actors there, and waiting for their answers.

Ray is imported when a cluster is asked for, and by nothing else.
"""

import logging
import os
from contextlib import suppress
from importlib import import_module
from typing import Any

from retrieval.errors import DependencyError, DiffSimError

PASSED_ON = ("AWS_", "DIFFSIM_", "HF_", "HUGGINGFACE_")  # beginnings of variables that actors get from the driver


class ActorLostError(Exception):
    """An actor has ended: it was killed, ran out of memory, or its machine went away."""


def connect(address: str | None) -> None:
    """Join the Ray cluster at ``address``; None starts one on this machine. A joined cluster stays joined.

    Raises:
        DependencyError: Ray is not installed.
        DiffSimError: the cluster does not answer.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise DependencyError("Ray is not installed: install diffsim-retrieval[ray]") from error
    if ray.is_initialized():
        return
    try:
        # Ray would print its workers' logs to standard output, which belongs to the command's own answer.
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        ray.init(address=address, include_dashboard=None if address else False, **quiet)
    except Exception as error:  # Ray raises ConnectionError, RuntimeError, ValueError and errors of gRPC
        raise DiffSimError(f"the Ray cluster at {address or 'this machine'} can't be joined ({error})") from error


def cluster_resources() -> dict[str, float]:
    """Return what the joined cluster has, such as ``CPU`` and ``GPU``."""
    ray: Any = import_module("ray")
    found: dict[str, float] = ray.cluster_resources()
    return found


def passed_environment() -> dict[str, str]:
    """Return the driver's variables that actors need: those of object stores, model caches and mirrors."""
    return {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}


def start_actor(made: type[Any], *arguments: Any, variables: dict[str, str] | None = None, **options: Any) -> Any:
    """Start an actor of a class where the cluster has room; return Ray's handle of it at once.

    Args:
        made: the class.
        *arguments: of its constructor.
        variables: of its environment, beside the driver's.
        **options: of the actor, as Ray names them.
    """
    ray: Any = import_module("ray")
    environment = {"env_vars": {**passed_environment(), **(variables or {})}}
    return ray.remote(max_restarts=0, runtime_env=environment, **options)(made).remote(*arguments)


def answer_of(reference: Any, timeout: float | None = None) -> Any:
    """Wait for an actor's answer; an error that it raised is raised here.

    Raises:
        ActorLostError: the actor is gone.
        TimeoutError: there is no answer within ``timeout`` seconds.
    """
    import ray
    from ray import exceptions

    try:
        return ray.get(reference, timeout=timeout)
    except exceptions.RayTaskError as error:  # raised in the actor: hand on the error itself
        raise error.cause if isinstance(error.cause, BaseException) else error from None
    except exceptions.GetTimeoutError as error:
        raise TimeoutError from error
    except (exceptions.RayActorError, exceptions.RaySystemError, exceptions.OutOfMemoryError,
            exceptions.ObjectLostError) as error:  # fmt: skip
        raise ActorLostError(_first_line(error)) from error


def kill_actor(actor: Any) -> None:
    """End an actor, also in mid-work; one of a connection that was ended has ended with it."""
    import ray

    with suppress(Exception):  # the cluster may be gone as well
        if ray.is_initialized():  # else Ray would connect again, for a driver that has left
            ray.kill(actor)


def shared_value(value: Any) -> Any:
    """Put a value into the cluster's store, and return what actors take in its place."""
    ray: Any = import_module("ray")
    return ray.put(value)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
