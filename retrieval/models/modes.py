"""Search modes as data: for each model, the layer and the noise level that answer a question.

Two numbers name a noise level, and mixing them up gives a far worse system. The published scripts' number is the
``denoising_step``; the scheduler's number is the ``timestep``. The published code indexes a list that runs down from
1000 (with one repeat), so ``timestep = 1001 - denoising_step``: its "900" is timestep 101, which is LITTLE noise.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from retrieval.types import LINEAR, Readout

LAST_STEP = 1001
SDXL_LAST_STEP = 1000  # Euler's list has no repeat: a target's timestep 101 is 100 for SD-XL's network


@dataclass(frozen=True)
class CellValues:
    """How cells of an image are described: by weighted colour and texture histograms.

    The values of cell j are ``w_j [Lab histogram, patterns x LBP histograms]``. The weights have mean 1, and ``w_j`` is
    proportional to ``(1 - likeness of cell j to the border's cells)^contrast``.
    """

    patterns: float  # weight of texture against colour
    sharpness: float = 0.0  # logits of the attention among cells are sharpness x cosine
    contrast: float = 0.0  # 0: all cells count alike


@dataclass(frozen=True)
class MapValues:
    """How the tokens of a network's map become queries, keys and values; see :mod:`retrieval.models.mini.values`."""

    sharpness: float  # logits of the attention among tokens are sharpness x cosine
    meaning: bool = False  # weigh directions as the network's classifier does, without those that tell drawings apart


@dataclass(frozen=True)
class Target:
    """One layer at one timestep and how it is read: everything that a mode's tensors and scores depend on."""

    layer: str
    timestep: int
    values: CellValues | MapValues | None = None  # None: the layer's own values
    readout: Readout = LINEAR

    def to_json(self) -> dict[str, Any]:
        """Return JSON values for a fingerprint, without values and readout where these are the defaults."""
        values = asdict(self)
        return {key: values[key] for key in values if key in ("layer", "timestep") or getattr(self, key) != _plain(key)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Target":
        """Read the values that :meth:`to_json` wrote.

        Raises:
            KeyError, TypeError: another version wrote them.
        """
        described, readout = values.get("values"), values.get("readout")
        if not isinstance(values["layer"], str) or type(values["timestep"]) is not int:
            raise TypeError("a layer is no name, or a timestep no number")
        return cls(
            values["layer"],
            values["timestep"],
            None if described is None else _described(described),
            LINEAR if readout is None else Readout(**readout),
        )

    @property
    def denoising_step(self) -> int:
        """The published scripts' number for this timestep."""
        return LAST_STEP - self.timestep


@dataclass(frozen=True)
class Mode:
    """A kind of similarity: the target that scores it and the encoders that choose candidates, the best first."""

    name: str
    target: Target
    encoders: tuple[str, ...]
    small_regions: bool = False  # a region of a query asks drawn small, too: where that was measured to help


@dataclass(frozen=True)
class Outputs:
    """The outputs to compute for an image: tensors of modes and vectors of encoders."""

    modes: tuple[str, ...] = ()
    encoders: tuple[str, ...] = ()


def _described(values: Mapping[str, Any]) -> CellValues | MapValues:
    return CellValues(**values) if "patterns" in values else MapValues(**values)


def _plain(field: str) -> Any:
    return {"values": None, "readout": LINEAR}[field]


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
SDXL_MODES = SD15_MODES  # the paper states no other settings for SD-XL
DIT_MODES = _table(
    Mode("style", at_step("14", 900), ("clip", "dinov2")),
    Mode("instance", at_step("14", 750), ("dinov2",)),
    Mode("semantic", at_step("14", 500), ("dinov2", "clip")),
)
DIFFSIM_C_MODES = _table(
    Mode("style", at_step("U_0", 900), ("clip", "dinov2")),
    Mode("instance", at_step("U_0", 600), ("dinov2",)),  # cute_main.sh, where DiffSim-C is best
    Mode("semantic", at_step("U_0", 500), ("dinov2", "clip")),
)
LAST = "last"  # the last layer of a vision transformer, which the paper's ablation reads
CLIP_MODES = _table(*(Mode(name, Target(LAST, 0), ("clip",)) for name in ("instance", "semantic")))
DINOV2_MODES = _table(*(Mode(name, Target(LAST, 0), ("dinov2",)) for name in ("instance", "semantic")))
CELLS = "cells"  # the only layer of the model cells
_ROOT = Readout(root=True, floor=1e-5)
CELLS_MODES = _table(
    Mode("style", Target(CELLS, 0, CellValues(patterns=1.5, sharpness=40.0), _ROOT), ("descriptor",)),
    Mode("instance", Target(CELLS, 0, CellValues(0.6, sharpness=3.0, contrast=1.2), _ROOT), ("subject",)),
    Mode("semantic", Target(CELLS, 0, CellValues(1.0, sharpness=1.0, contrast=0.5), _ROOT), ("descriptor",)),
)
OBJECT, SURFACE = "object", "surface"  # the layers of the model mini
MINI_MODES = _table(
    Mode("style", Target(SURFACE, 0, MapValues(sharpness=2.0)), ("mini-style",)),
    Mode("instance", Target(OBJECT, 0, MapValues(sharpness=15.0)), ("mini-instance",), small_regions=True),
    Mode(
        "semantic",
        Target(OBJECT, 0, MapValues(sharpness=5.0, meaning=True)),
        ("mini-semantic",),
        small_regions=True,
    ),
    Mode("lowlevel", Target(SURFACE, 0, CellValues(1.0, sharpness=1.0, contrast=0.5), _ROOT), ("mini-lowlevel",)),
)
DEFAULT_MODES = ("style", "instance", "semantic")
