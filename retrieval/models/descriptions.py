"""The facts about models that are known before they are loaded."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from retrieval.models.modes import DEFAULT_MODES, LAST_STEP, Mode
from retrieval.models.repositories import Repository
from retrieval.models.weights.parts import Part
from retrieval.types import NoiseRule

OF_DIFFUSION = ("branches", "noise", "seed", "prompt", "dtype")  # settings that only diffusion models have


@dataclass(frozen=True, kw_only=True)
class Description:
    """The facts about a model that are known before it is loaded."""

    name: str
    title: str
    licence: str
    download_mb: int  # 0: there is nothing to download
    loader: str  # "module:function", imported when the model is loaded
    source: Repository | None = None  # None: it is in the package, or another package fetches it
    beside: tuple["Description", ...] = ()  # other repositories that the model reads too; download_mb counts them
    local: str = ""  # of such a repository: its place in relation to the model's folder, where that is a local one

    @property
    def repo(self) -> str:
        """The name of the repository on the hub, or an empty text."""
        return self.source.repo if self.source else ""

    @property
    def revision(self) -> str:
        """The commit of the repository, or an empty text."""
        return self.source.revision if self.source else ""

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of the repository that are read."""
        return self.source.parts if self.source else ()


@dataclass(frozen=True, kw_only=True)
class ExtractorDescription(Description):
    """An attention model, with its modes and defaults."""

    modes: Mapping[str, Mode]
    image_size: int  # pixels a side; 0: the size that the weights state
    noise: NoiseRule
    default_modes: tuple[str, ...] = DEFAULT_MODES
    codec: str = "qkv-float16"  # a new index's; a hidden one is smaller and projects every candidate of a search again
    last_step: int = LAST_STEP  # the network's timestep is last_step - denoising step
    # A fast model decodes JPEGs at the smallest scale whose short side is this many times the model's, which counts as
    # 224 px at least; 0: in full.
    draft: float = 0.0
    batch_sizes: tuple[int, int] = (1, 16)  # images in a batch on a CPU, and on a GPU
    working_mb: int = 0  # approximate memory for one image beside the weights, in float32; 0: not measured
    float32_vae: bool = False  # the VAE, which takes most of that memory, always runs in float32
    warnings: Mapping[str, str] = field(default_factory=dict)  # by mode, one line that its users must know
    unused: tuple[str, ...] = ()  # fields of ModelSettings that do not affect the model
