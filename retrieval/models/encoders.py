"""The table of named encoders, and the descriptions of models in any repository of transformers."""

from dataclasses import replace

from retrieval.models import repositories
from retrieval.models.descriptions import OF_DIFFUSION, Description, ExtractorDescription
from retrieval.models.modes import MINI_MODES, Mode, Target
from retrieval.models.references import MAIN, Reference
from retrieval.models.repositories import Repository

CLIP = Description(
    name="clip",
    title="CLIP ViT-B/32 image embedding, 512-d",
    licence="MIT",
    download_mb=605,
    loader="retrieval.models.vit.pooled:load_clip",
    source=repositories.CLIP,
)
DINOV2 = Description(
    name="dinov2",
    title="DINOv2 ViT-S/14 class token, 384-d",
    licence="Apache-2.0",
    download_mb=88,
    loader="retrieval.models.vit.pooled:load_dinov2",
    source=repositories.DINOV2_SMALL,
)
ANY = "retrieval.models.vit.any:load"

_ENTRIES = (
    CLIP,
    DINOV2,
    Description(
        name="siglip2",
        title="SigLIP 2 ViT-B/16 image embedding, 768-d",
        licence="Apache-2.0",
        download_mb=1501,
        loader=ANY,
        source=repositories.SIGLIP2,
    ),
    Description(
        name="dinov2-base",
        title="DINOv2 ViT-B/14 class token, 768-d",
        licence="Apache-2.0",
        download_mb=346,
        loader=ANY,
        source=repositories.any_of_transformers(repositories.DINOV2_BASE.repo, repositories.DINOV2_BASE.revision),
    ),
    Description(
        name="dinov2-large",
        title="DINOv2 ViT-L/14 class token, 1024-d",
        licence="Apache-2.0",
        download_mb=1218,
        loader=ANY,
        source=repositories.DINOV2_LARGE,
    ),
    Description(
        name="csd",
        title="CSD ViT-L/14 style descriptor, 768-d; its authors say these weights miss the paper's figures",
        licence="MIT",
        download_mb=1220,
        loader="retrieval.models.vit.csd:load",
        source=repositories.CSD,
    ),
    *(
        Description(
            name=f"mini-{mode}",
            title=f"the mean of mini's values in mode {mode}",
            licence="Apache-2.0",
            download_mb=0,
            loader="retrieval.models.mini.pooled:load",
        )
        for mode in MINI_MODES
    ),
    Description(
        name="descriptor",
        title="Lab histogram and local binary patterns, 214-d",
        licence="Apache-2.0",
        download_mb=0,
        loader="retrieval.models.cells.pooled:load",
    ),
    Description(
        name="subject",
        title="the same for the cells that stand out from the border, 214-d",
        licence="Apache-2.0",
        download_mb=0,
        loader="retrieval.models.cells.pooled:load",
    ),
)

EMBEDDERS: dict[str, Description] = {entry.name: entry for entry in _ENTRIES}


def at_commit(description: Description, commit: str) -> Description:
    """Return the description with the files of ``commit``, and a name that says so where the table has no commit."""
    source = description.source
    assert source is not None
    return replace(description, name=f"{description.name}@{commit}", source=replace(source, revision=commit))


def embedder_of(reference: Reference) -> Description:
    """Describe a repository as an encoder."""
    return Description(
        name=reference.place,
        title=f"the pooled vector of {reference.repo}",
        licence="that of the repository",
        download_mb=0,
        loader=ANY,
        source=_source(reference),
    )


def extractor_of(reference: Reference) -> ExtractorDescription:
    """Describe a repository as an attention model that reads one layer."""
    target, encoders = Target(reference.layer, 0), (str(reference.pooled()),)
    return ExtractorDescription(
        name=reference.place,
        title=f"AAS on {reference.repo}, layer {reference.layer}",
        licence="that of the repository",
        download_mb=0,
        loader="retrieval.models.vit.attention:load_any",
        source=_source(reference),
        modes={name: Mode(name, target, encoders) for name in ("instance", "semantic")},
        image_size=0,
        noise="shared",
        default_modes=("semantic",),
        batch_sizes=(16, 64),
        unused=OF_DIFFUSION,
    )


def _source(reference: Reference) -> Repository:
    return repositories.any_of_transformers(reference.repo, reference.revision or MAIN)
