"""The embedded model as it is trained and shipped: the UNet, and one saliency head a layer whose values are described.

The saliency of token j is ``s_j = N sigmoid(w·x_j + b) / sum_i sigmoid(w·x_i + b)``, of mean 1 over an image, from the
features ``x`` that the layer's Q and K are projected from. It weights the layer's descriptor values.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from retrieval.mini.unet import MiniUNet, SelfAttention, UNetShape

SALIENCY_LAYERS = ("D_2", "M", "U_0")  # those of one resolution with the descriptor's cells


@dataclass(frozen=True)
class Tokens:
    """One layer's view of a batch: q, k, v ``[images, heads, tokens, head_dim]`` and saliency ``[images, tokens]``."""

    q: Tensor
    k: Tensor
    v: Tensor
    saliency: Tensor


class LastLayerReached(Exception):
    """Unwinds a forward pass behind the last layer that is wanted."""


class MiniModel(nn.Module):
    """The network and its saliency heads; state dict keys ``unet.*`` and ``saliency.<layer>.*``."""

    def __init__(self, shape: UNetShape | None = None) -> None:
        super().__init__()
        shape = shape or UNetShape()
        self.unet = MiniUNet(shape)
        self.saliency = nn.ModuleDict({name: nn.Linear(shape.channels[2], 1) for name in SALIENCY_LAYERS})
        for head in self.saliency.values():
            assert isinstance(head, nn.Linear)
            nn.init.zeros_(head.weight)  # every token counts alike until training says otherwise
            nn.init.zeros_(head.bias)

    def forward(self, noisy: Tensor, timestep: Tensor) -> Tensor:
        """Predict the noise in ``[images, 48, S/4, S/4]``; same shape out."""
        prediction: Tensor = self.unet(noisy, timestep)
        return prediction

    def tokens(self, noisy: Tensor, timestep: Tensor, layers: Iterable[str]) -> dict[str, Tokens]:
        """Run the network just far enough to read ``layers``, all of them of :data:`SALIENCY_LAYERS`."""
        wanted = set(layers)
        found: dict[str, Tokens] = {}
        modules = self.unet.attention_layers()

        def reader(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
            def read(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
                assert isinstance(module, SelfAttention)
                found[name] = Tokens(*module.project(inputs[0]), self.token_saliency(name, inputs[0]))
                if len(found) == len(wanted):
                    raise LastLayerReached

            return read

        hooks = [modules[name].register_forward_pre_hook(reader(name)) for name in wanted]
        try:
            self.unet(noisy, timestep)
        except LastLayerReached:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        return found

    def token_saliency(self, layer: str, features: Tensor) -> Tensor:
        """Return float32 ``[images, tokens]`` of mean 1 from a layer's input ``[images, channels, height, width]``."""
        attention = self.unet.attention_layers()[layer]
        inputs = attention.group_norm(features).flatten(2).transpose(1, 2)
        gate: Tensor = self.saliency[layer](inputs).squeeze(-1).float().sigmoid()
        return gate / gate.mean(dim=1, keepdim=True)
