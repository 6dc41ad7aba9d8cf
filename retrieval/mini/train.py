"""Train the embedded model: ``python -m retrieval.mini.train FOLDER [--steps N] [--device cuda]``.

Every random number of step n comes from (seed, n), so a run that was stopped and goes on from its checkpoint makes
the very numbers of one that was not. Batches are made on the device; nothing is downloaded.
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from retrieval.aas import QKV
from retrieval.backbones.capture import Projections, capture_qkv
from retrieval.mini.cells import cell_histograms
from retrieval.mini.objective import all_pairs, centred, draw_timesteps, info_nce, pooled
from retrieval.mini.unet import MiniUNet, SelfAttention, UNetShape, fold, network_pixels
from retrieval.mini.values import FLOOR, GRID, weighted
from retrieval.mini.world import make_groups
from retrieval.modes import CellValues
from retrieval.noise import add_noise, alpha_bars
from retrieval.vocabulary import LINEAR, Readout, WorldKind

KIND_LAYERS: dict[WorldKind, str] = {"instance": "M", "layout": "M", "style": "D_2"}
KIND_VALUES: dict[WorldKind, CellValues] = {
    "instance": CellValues(patterns=0.3, contrast=1.0),
    "layout": CellValues(patterns=0.3, contrast=1.0),
    "style": CellValues(patterns=1.5),
}
SCHEDULE: tuple[WorldKind, ...] = ("instance", "style", "instance", "layout")


@dataclass(frozen=True)
class Recipe:
    """Everything that the weights depend on; the defaults are those of the run in MODEL_CARD.md."""

    steps: int = 2000
    pairs: int = 20  # groups of a batch, two views each
    reuse: int = 2  # steps a rendered batch serves, each with its own timestep and noise
    denoise_every: int = 4  # one step in so many predicts noise on whole images; the others contrast
    own_weight: float = 0.3  # of the contrast on the network's own values, beside that on described values
    pooled_weight: float = 1.0  # of the contrast on the own values' mean and deviation over an image
    rate: float = 1e-3
    warmup: int = 40
    decay: float = 0.995  # of the moving average that is shipped
    seed: int = 7
    temperature: float = 15.0
    rows: int = 18  # query tokens that a step compares
    image: int = 144


class Trainer:
    """The state of a run: network, moving average, optimiser and step."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        torch.manual_seed(recipe.seed)  # the initial weights
        self.recipe, self.device, self.step = recipe, device, 0
        self.model = MiniUNet(UNetShape()).to(device)
        start = math.log(recipe.temperature)
        names = [f"{kind} {part}" for kind in KIND_LAYERS for part in ("described", "own", "pooled")]
        self.temperatures = nn.ParameterDict({name: nn.Parameter(torch.tensor(start)) for name in names}).to(device)
        groups = [
            {"params": list(self.model.parameters()), "weight_decay": 0.01, "scale": 1.0},
            {"params": list(self.temperatures.parameters()), "weight_decay": 0.0, "scale": 3.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.98))
        self.average = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self._rendered: tuple[int, Tensor, Tensor] | None = None

    def advance(self) -> dict[str, float]:
        """Take one step and return its figures."""
        recipe = self.recipe
        cycle = self.step // recipe.reuse
        kind = SCHEDULE[cycle % len(SCHEDULE)]
        images, cells = self._batch(cycle, kind)
        contrast = (self.step + 1) % recipe.denoise_every != 0
        generator = torch.Generator("cpu").manual_seed(recipe.seed * 1_000_003 + 2 * self.step + 1)
        timesteps = draw_timesteps(generator, len(images), contrast).to(self.device)
        # Independent noise for every image, also within a pair: else pairs could be told by their noise.
        noise = torch.randn(images.shape, generator=generator).to(self.device)
        noisy = add_noise(images, noise, alpha_bars().to(self.device)[timesteps][:, None, None, None])
        rows = torch.randperm(GRID**2, generator=generator)[: recipe.rows].to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16):
            if contrast:
                loss, figures = self._contrast(kind, noisy, timesteps, cells, rows)
            else:
                loss = mse_loss(self.model(noisy, timesteps).float(), noise)
                figures = {"noise": float(loss.detach())}
        self._update(loss)
        return {**figures, "loss": float(loss.detach())}

    def _batch(self, cycle: int, kind: WorldKind) -> tuple[Tensor, Tensor]:
        """Return folded images ``[2n, 48, 24, 24]``, all first views before all second ones, and their cells."""
        if self._rendered is None or self._rendered[0] != cycle:
            recipe = self.recipe
            seed = recipe.seed * 1_000_003 + 2 * cycle
            pictures = make_groups(kind, recipe.pairs, 2, seed=seed, size=recipe.image, device=self.device)
            pixels = pictures.transpose(0, 1).flatten(0, 1)
            cells = weighted(*cell_histograms(pixels, GRID), KIND_VALUES[kind])
            self._rendered = (cycle, fold(network_pixels(pixels), UNetShape().patch), cells)
        return self._rendered[1], self._rendered[2]

    def _contrast(
        self, kind: WorldKind, noisy: Tensor, timesteps: Tensor, cells: Tensor, rows: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        recipe, layer = self.recipe, KIND_LAYERS[kind]
        layers = {layer: self.model.attention_layers()[layer]}
        captured = capture_qkv(lambda: self.model(noisy, timesteps), layers, _project)[layer]
        with torch.autocast(self.device.type, enabled=False):  # scores in float32, as at inference
            own = QKV(*(t.float().unsqueeze(1) for t in captured))
            described = QKV(own.q, own.k, cells[:, None, None])
            n = recipe.pairs
            middle = centred(own)
            scores = {
                "described": all_pairs(described[:n], described[n:], Readout(True, FLOOR), rows),
                "own": all_pairs(middle[:n], middle[n:], LINEAR, rows),
                "pooled": pooled(own)[:n] @ pooled(own)[n:].T,
            }
        parts = {name: info_nce(s, self.temperatures[f"{kind} {name}"]) for name, s in scores.items()}
        weights = {"described": 1.0, "own": recipe.own_weight, "pooled": recipe.pooled_weight}
        loss = torch.stack([weights[name] * value for name, (value, _) in parts.items()]).sum()
        return loss, {f"{kind} {name}": accuracy for name, (_, accuracy) in parts.items()}

    def _update(self, loss: Tensor) -> None:
        recipe, done = self.recipe, self.step / self.recipe.steps
        rate = recipe.rate * min(1.0, (self.step + 1) / recipe.warmup) * (0.5 + 0.5 * math.cos(math.pi * min(done, 1)))
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["scale"]
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        decay = min(recipe.decay, (self.step + 1) / (self.step + 20))
        for name, value in self.model.state_dict().items():
            self.average[name].lerp_(value, 1 - decay)

    def state(self) -> dict[str, Any]:
        """Return all that a later run needs to go on."""
        return {
            "recipe": asdict(self.recipe),
            "step": self.step,
            "model": self.model.state_dict(),
            "temperatures": self.temperatures.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from ``state``.

        Raises:
            ValueError: it was made with another recipe.
        """
        if state["recipe"] != asdict(self.recipe):
            raise ValueError(f"the checkpoint was made with another recipe: {state['recipe']}")
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.temperatures.load_state_dict(state["temperatures"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average = {name: value.to(self.device) for name, value in state["average"].items()}


def _project(attention: nn.Module, features: Tensor) -> Projections:
    assert isinstance(attention, SelfAttention)
    return attention.project(features)


def train(folder: Path, recipe: Recipe, device: torch.device, checkpoint_seconds: float = 60.0) -> Path:
    """Train, or go on training, in ``folder``; return the file of the weights that may be shipped."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, trainer = folder / "checkpoint.pt", Trainer(recipe, device)
    if checkpoint.exists():
        trainer.restore(torch.load(checkpoint, map_location=device))
    saved = started = time.monotonic()
    smooth: dict[str, float] = {}
    while trainer.step < recipe.steps:
        for name, value in trainer.advance().items():
            smooth[name] = 0.95 * smooth.get(name, value) + 0.05 * value
        if trainer.step % 50 == 0:
            line = {"step": trainer.step, "seconds": round(time.monotonic() - started)}
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps({**line, **{k: round(v, 4) for k, v in smooth.items()}}) + "\n")
        if time.monotonic() - saved >= checkpoint_seconds or trainer.step == recipe.steps:
            temporary = checkpoint.with_suffix(".tmp")
            torch.save(trainer.state(), temporary)
            temporary.replace(checkpoint)
            saved = time.monotonic()
    return write_weights(trainer.average, folder / "unet.safetensors")


def write_weights(average: dict[str, Tensor], path: Path) -> Path:
    """Write ``average`` in float16."""
    from safetensors.torch import save_file

    save_file({name: value.half().cpu().contiguous() for name, value in average.items()}, path)
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and train."""
    defaults = Recipe()
    parser = argparse.ArgumentParser(prog="python -m retrieval.mini.train", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="checkpoint, log and weights go here; a started run goes on")
    parser.add_argument("--steps", type=int, default=defaults.steps)
    parser.add_argument("--pairs", type=int, default=defaults.pairs)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="CPU threads; torch's own choice where left out")
    asked = parser.parse_args(arguments)
    if asked.threads:
        torch.set_num_threads(asked.threads)
    recipe = Recipe(steps=asked.steps, pairs=asked.pairs, seed=asked.seed)
    print(train(asked.folder, recipe, torch.device(asked.device)))


if __name__ == "__main__":
    main()
