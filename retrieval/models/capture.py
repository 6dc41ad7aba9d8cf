"""Read the inputs of attention layers while a network runs, and stop it after the last one."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from retrieval.models.modes import Target
from retrieval.models.projection import LinearProjection
from retrieval.models.protocols import Pixels
from retrieval.scoring.aas import QKV
from retrieval.types import Role

Projections = tuple[Tensor, Tensor, Tensor]


class _LastLayerReached(Exception):
    """Ends the forward pass, so that nothing behind the last wanted layer's input is computed."""


def capture_inputs(run: Callable[[], object], layers: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Run a network until each of ``layers`` has received its input, and return these inputs by name.

    Args:
        run: starts the forward pass; stopping it early changes no bit of the inputs.
        layers: attention modules by name; a module's input is its first positional argument.

    Raises:
        RuntimeError: the pass ended before it reached a layer.
    """
    captured: dict[str, Tensor] = {}

    def hook_for(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            captured[name] = inputs[0]
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
    if len(captured) < len(layers):
        raise RuntimeError(f"layers were not reached: {', '.join(sorted(set(layers) - set(captured)))}")
    return captured


def capture_qkv(
    run: Callable[[], object],
    layers: Mapping[str, nn.Module],
    project: Callable[[nn.Module, Tensor], Projections],
) -> dict[str, Projections]:
    """Return (Q, K, V) by layer name; ``project`` computes them from a module and its input."""
    return {name: project(layers[name], hidden) for name, hidden in capture_inputs(run, layers).items()}


def capture_branches(
    run: Callable[[], object], layers: Mapping[str, nn.Module], shape: tuple[int, int]
) -> dict[str, Tensor]:
    """Return the inputs ``[images, branches, tokens, width]`` of layers by name.

    The batch of ``run`` has a row for each branch of each image, in the order of ``shape = (images, branches)``.
    """
    return {layer: hidden.view(*shape, *hidden.shape[1:]) for layer, hidden in capture_inputs(run, layers).items()}


class LinearExtractor(ABC):
    """Base of extractors whose Q, K and V are linear maps of a layer's input.

    See :class:`retrieval.models.protocols.HiddenExtractor`.
    """

    @abstractmethod
    def hidden(self, pixels: Pixels, targets: Sequence[Target], role: Role) -> dict[Target, Tensor]:
        """Return each target's layer input ``[images, branches, tokens, width]``."""

    @abstractmethod
    def projection(self, target: Target) -> LinearProjection:
        """Return the maps of a target's layer, in the model's dtype."""

    @torch.inference_mode()
    def extract(self, pixels: Pixels, targets: Sequence[Target], role: Role) -> dict[Target, QKV]:
        """See :class:`retrieval.models.protocols.AttentionExtractor`."""
        hidden = self.hidden(pixels, targets, role)
        return {target: self.projection(target)(hidden[target]) for target in targets}


class LayerInputs(LinearExtractor):
    """Base of extractors that read diffusers' attention layers."""

    @abstractmethod
    def attention(self, layer: str) -> Any:
        """Return the self-attention module called ``layer``; an unknown name is a UsageError."""

    @torch.inference_mode()
    def projection(self, target: Target) -> LinearProjection:
        """Return the projection of a target's layer, in the model's dtype."""
        layer = self.attention(target.layer)
        return LinearProjection.of(layer.to_q, layer.to_k, layer.to_v, layer.heads)


def tokens_at(block: str, blocks: int, latent_side: int) -> int:
    """Return how many tokens the attention in a UNet's block has.

    Every stage down except the last halves the side of the latent; every stage up except the first doubles it.

    Args:
        block: ``down_blocks.I``, ``mid_block`` or ``up_blocks.I``.
        blocks: stages down, which are as many as stages up.
        latent_side: latent pixels a side.
    """
    kind, _, number = block.partition(".")
    levels = {"down_blocks": int(number or 0), "mid_block": blocks - 1, "up_blocks": blocks - 1 - int(number or 0)}
    return (latent_side >> levels[kind]) ** 2
