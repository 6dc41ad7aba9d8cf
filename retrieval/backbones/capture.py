"""Read the Q/K/V of attention layers while a network runs, and stop it as soon as the last one is known."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from retrieval.aas import QKV

Projections = tuple[Tensor, Tensor, Tensor]


class _LastLayerReached(Exception):
    """Unwinds the forward pass: nothing behind the last wanted layer's input is ever computed."""


def capture_qkv(
    run: Callable[[], object],
    layers: Mapping[str, nn.Module],
    project: Callable[[nn.Module, Tensor], Projections],
) -> dict[str, Projections]:
    """Run a network just far enough to know the input of each of ``layers``, and project it.

    Args:
        run: starts the forward pass.
        layers: attention modules by name. Stopping early is bitwise equal to a full pass.
        project: turns a module and its input (first positional argument) into (Q, K, V).

    Returns:
        (Q, K, V) by layer name.
    """
    captured: dict[str, Projections] = {}

    def hook_for(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            captured[name] = project(module, inputs[0])
            if len(captured) == len(layers):
                raise _LastLayerReached

        return hook

    handles = [module.register_forward_pre_hook(hook_for(name)) for name, module in layers.items()]
    try:
        run()
    except _LastLayerReached:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return captured


def capture_branches(
    run: Callable[[], object], layers: Mapping[str, nn.Module], shape: tuple[int, int]
) -> dict[str, QKV]:
    """Capture diffusers' attention layers of a batch whose rows are ``shape = (images, branches)``, in that order."""
    captured = capture_qkv(run, layers, project_attention)
    return {layer: QKV(*(t.reshape(*shape, *t.shape[1:]) for t in tensors)) for layer, tensors in captured.items()}


def project_attention(attention: Any, hidden: Tensor) -> Projections:
    """Return Q, K, V ``[batch, heads, tokens, head_dim]`` of an input ``[batch, tokens, width]`` (diffusers)."""
    q, k, v = (
        to(hidden).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
        for to in (attention.to_q, attention.to_k, attention.to_v)
    )
    return q, k, v
