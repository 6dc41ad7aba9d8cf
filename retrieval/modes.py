"""Search modes as data: which layer at which noise level answers which question, per model.

Two numbers name a noise level, and mixing them up gives a far worse system. The published scripts' number is
the ``denoising_step``; the scheduler's is the ``timestep``. The published code indexes a list that runs down from
1000 (with one repeat), so ``timestep = 1001 - denoising_step``: its "900" is timestep 101, LITTLE noise.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from retrieval.errors import UsageError

LAST_STEP = 1001


@dataclass(frozen=True)
class Target:
    """One layer at one timestep: what a cached tensor was read from."""

    layer: str
    timestep: int

    @property
    def denoising_step(self) -> int:
        """The published scripts' number for this timestep."""
        return LAST_STEP - self.timestep


@dataclass(frozen=True)
class Mode:
    """A kind of likeness: the target it is read from and the encoders that pick its candidates, best first."""

    name: str
    target: Target
    encoders: tuple[str, ...]


def at_step(layer: str, denoising_step: int) -> Target:
    """Return the target that the published scripts call ``denoising_step`` (2 or more)."""
    return Target(layer, LAST_STEP - denoising_step)


def _table(*modes: Mode) -> Mapping[str, Mode]:
    return MappingProxyType({mode.name: mode for mode in modes})


SD15_MODES = _table(
    Mode("style", at_step("U_0", 900), ("clip", "dinov2")),  # style_main.sh: Sref, InstantStyle
    Mode("instance", at_step("U_0", 750), ("dinov2",)),  # ipref_main.sh, dreambench_main.sh
    Mode("semantic", at_step("U_0", 500), ("dinov2", "clip")),  # night_main.sh; the retrieval figures
    Mode("lowlevel", at_step("U_0", 900), ("dinov2",)),  # tid_main.sh
)
MINI_MODES = _table(
    # Chosen on the drawn gallery (same style, same motif), see DESIGN.md.
    Mode("style", Target("D_1", 50), ("descriptor",)),
    Mode("instance", Target("U_1", 50), ("descriptor",)),
    Mode("semantic", Target("M", 300), ("descriptor",)),
)
DEFAULT_MODES = ("style", "instance", "semantic")


def choose_modes(table: Mapping[str, Mode], names: Iterable[str]) -> tuple[Mode, ...]:
    """Look ``names`` up in a model's ``table``, each once, in the order given.

    Raises:
        UsageError: a name that the model has no mode for; the message lists those it has.
    """
    wanted = tuple(dict.fromkeys(names))
    unknown = [name for name in wanted if name not in table]
    if unknown or not wanted:
        asked = f"unknown mode '{unknown[0]}'" if unknown else "no mode was named"
        raise UsageError(f"{asked}; this model has: {', '.join(table)}")
    return tuple(table[name] for name in wanted)
