"""Models load from hub caches and local folders that hold exactly the files of the real repositories."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from cli.advice import sentence_of
from retrieval.errors import ModelError
from retrieval.models.defaults import choose_model
from retrieval.models.descriptions import Description
from retrieval.models.encoders import EMBEDDERS
from retrieval.models.registry import EXTRACTORS, IP_ADAPTER, VAE, load_embedder, load_extractor
from retrieval.models.weights.finding import are_cached
from retrieval.settings import ModelSettings
from tests.slices import loads_model_libraries
from tests.support.hub import files as hub_files
from tests.support.hub.cache import write_cache
from tests.support.hub.files import tiny_repository, write_folder

pytestmark = loads_model_libraries

CPU = torch.device("cpu")
Keep = Callable[[str], bool]

REPOSITORIES: Mapping[str, tuple[Description, ...]] = {
    "sd15": (EXTRACTORS["sd15"],),
    "clip": (EMBEDDERS["clip"],),
    "dinov2": (EMBEDDERS["dinov2"],),
    "diffsim-c": (EXTRACTORS["sd15"], IP_ADAPTER),
    "diffsim-xl": (EXTRACTORS["diffsim-xl"],),
    "dit-256": (EXTRACTORS["dit-256"], VAE),
    "dit-512": (EXTRACTORS["dit-512"], VAE),
}
LOCAL = {IP_ADAPTER.repo: "ip_adapter", VAE.repo: "model/vae"}
DIT_512 = pytest.param("dit-512", marks=pytest.mark.slow)  # the code of DiT-256 with another position table
KINDS = ("sd15", "clip", "dit-256")  # a pipeline, an encoder, and pickles alone
EACH = [DIT_512 if name == "dit-512" else name for name in REPOSITORIES]
MOST = [
    DIT_512 if name == "dit-512" else name if name in KINDS else pytest.param(name, marks=pytest.mark.thorough)
    for name in REPOSITORIES
]
SAFE = [name for name in REPOSITORIES if not name.startswith("dit")]
BOTH = [name for name in SAFE if name != "diffsim-xl"]  # SD-XL has no pickles, DiT has nothing else


def everything(name: str) -> bool:
    return True


def is_wanted(description: Description) -> Keep:
    wanted = {name for part in description.parts for each in part.wanted() for name in each.split(" or ")}
    return wanted.__contains__


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def fill_cache(hub: Path, name: str, keep: Keep = everything) -> list[Path]:
    """Write a model's repositories into a cache; return the folders of their pinned commits."""
    return [
        write_cache(hub, each.repo, each.revision, {f: c for f, c in tiny_repository(each.repo).items() if keep(f)})
        for each in REPOSITORIES[name]
    ]


def fill_folder(folder: Path, name: str, keep: Keep = everything) -> Path:
    """Write them as local folders; return the model's own."""
    for each in REPOSITORIES[name]:
        files = {f: c for f, c in tiny_repository(each.repo).items() if keep(f)}
        write_folder(folder / LOCAL.get(each.repo, "model"), files)
    return folder / "model"


def identity(model: Any) -> dict[str, Any]:
    """The fingerprint without the pixel rules of DiffSim-C's encoder, which a local folder may state."""
    return {key: value for key, value in model.fingerprint().items() if key != "encoder_pixels"}


def load(name: str, folder: Path | None = None, offline: bool = True) -> Any:
    if name in EMBEDDERS:
        return load_embedder(name, folder, CPU, offline)
    size = None if name.startswith("dit") else 64
    settings = ModelSettings(
        model=name, weights=None if folder is None else str(folder), image_size=size, dtype="float32"
    )
    return load_extractor(settings, CPU, offline)


@pytest.mark.parametrize("name", MOST)
def test_a_whole_cache_and_a_whole_folder_give_the_same_model(name: str, hub: Path, tmp_path: Path) -> None:
    assert not are_cached(REPOSITORIES[name])
    fill_cache(hub, name)
    assert are_cached(REPOSITORIES[name])
    assert identity(load(name)) == identity(load(name, fill_folder(tmp_path, name)))


@pytest.mark.parametrize("name", EACH)
@pytest.mark.thorough
def test_files_of_other_programs_change_nothing(name: str, hub: Path, tmp_path: Path) -> None:
    for each in REPOSITORIES[name]:
        files = {f: c for f, c in tiny_repository(each.repo).items() if is_wanted(each)(f)}
        write_cache(hub, each.repo, each.revision, files)
    alone = load(name).fingerprint()
    fill_cache(hub, name)
    assert load(name).fingerprint() == alone


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.thorough
def test_pickles_alone_have_the_same_fingerprint(name: str, hub: Path, tmp_path: Path) -> None:
    fill_cache(hub, name)
    folder = fill_folder(tmp_path / "pickles", name, lambda file: not file.endswith(".safetensors"))
    assert identity(load(name, folder)) == identity(load(name))


@pytest.mark.parametrize("name", BOTH)
def test_pickles_in_the_cache_will_do(name: str, hub: Path) -> None:
    fill_cache(hub, name, lambda file: not file.endswith(".safetensors"))
    assert are_cached(REPOSITORIES[name])
    load(name)


def test_sdxl_takes_no_other_variant_from_the_cache_but_from_a_folder(hub: Path, tmp_path: Path) -> None:
    """A cache that another program filled must not decide about the numbers."""
    fill_cache(hub, "diffsim-xl", lambda file: ".fp16." not in file)
    with pytest.raises(ModelError, match=r"unet/diffusion_pytorch_model\.fp16\.safetensors"):
        load("diffsim-xl")
    load("diffsim-xl", fill_folder(tmp_path, "diffsim-xl", lambda file: ".fp16." not in file))


@pytest.mark.parametrize("name", ["sd15"])
def test_float16_copies_are_taken_where_a_folder_has_nothing_else(name: str, hub: Path, tmp_path: Path) -> None:
    def is_half(file: str) -> bool:
        return ".fp16." in file or not file.endswith((".safetensors", ".bin"))

    load(name, fill_folder(tmp_path, name, is_half))
    fill_cache(hub, name, is_half)
    assert not are_cached(REPOSITORIES[name])


@pytest.mark.parametrize("name", MOST)
def test_a_download_that_lacks_any_one_file_is_an_error_that_names_it(name: str, hub: Path) -> None:
    snapshots = fill_cache(hub, name)
    for each in REPOSITORIES[name]:
        [snapshot, *_] = (found for found in snapshots if each.revision in str(found))
        for alternatives in (name for part in each.parts for name in part.wanted()):
            links = [path for file in alternatives.split(" or ") if (path := snapshot / file).exists()]
            for path in links:
                path.rename(path.with_name(f"{path.name}.aside"))
            assert not are_cached(REPOSITORIES[name]), alternatives
            with pytest.raises(ModelError, match=each.revision) as caught:
                load(name)
            assert f"weights of {each.repo} are needed" in str(caught.value)
            assert f": {alternatives} (1 of " in str(caught.value)
            command = f"hf download {each.repo} --revision {each.revision} {alternatives.split(' or ')[0]};"
            assert command in sentence_of(caught.value)
            for path in links:
                path.with_name(f"{path.name}.aside").rename(path)


def test_a_link_without_its_blob_is_a_missing_file(hub: Path) -> None:
    [snapshot] = fill_cache(hub, "sd15")
    (snapshot / "unet" / "diffusion_pytorch_model.safetensors").resolve().unlink()
    (snapshot / "unet" / "diffusion_pytorch_model.bin").resolve().unlink()
    assert not are_cached(REPOSITORIES["sd15"])


def test_another_commit_and_another_owner_are_not_taken(hub: Path) -> None:
    """Transformers leaves ``main`` and a branch of conversions in the cache; runwayml redirects to the same files."""
    files = tiny_repository(hub_files.CLIP)
    write_cache(hub, hub_files.CLIP, "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268", files)
    write_cache(hub, "runwayml/stable-diffusion-v1-5", EXTRACTORS["sd15"].revision, tiny_repository(hub_files.SD15))
    for name in ("clip", "sd15"):
        with pytest.raises(ModelError, match=r"are needed and they are not in the local hub cache \(offline\)"):
            load(name)


def test_every_pin_is_a_commit() -> None:
    for each in (*EXTRACTORS.values(), *EMBEDDERS.values(), IP_ADAPTER, VAE):
        if each.source is not None and each.name != "csd":  # no public evidence names a commit of it
            assert len(each.revision) == 40
            assert int(each.revision, 16) > 0


def test_every_file_that_is_wanted_is_in_the_real_repository() -> None:
    for name, descriptions in REPOSITORIES.items():
        for each in descriptions:
            for part in each.parts:
                for alternatives in part.wanted():
                    assert alternatives.split(" or ")[0] in hub_files.FILES[each.repo], name


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.mark.parametrize("name", ["dit-256", "clip", "diffsim-c"])
def test_loading_says_nothing(name: str, hub: Path) -> None:
    """Diffusers complained about DiT's pickle, and transformers about the text tower of CLIP."""
    fill_cache(hub, name)
    heard = Lines()
    loggers = [logging.getLogger(library) for library in ("transformers", "diffusers")]
    for logger in loggers:
        logger.addHandler(heard)
    try:
        load(name)
    finally:
        for logger in loggers:
            logger.removeHandler(heard)
    assert heard.lines == []


def test_auto_takes_sd15_only_if_every_file_of_it_and_its_encoders_is_cached(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval.models.defaults.choose_device", lambda device: torch.device("cuda"))

    def chosen(encoders: dict[str, str | None] | None = None) -> str:
        return choose_model(ModelSettings(model="auto", encoders=encoders), "auto", offline=True).name

    names = ("sd15", "clip", "dinov2")
    for name in names:
        assert chosen() == "mini"
        [snapshot] = fill_cache(hub, name)
    assert chosen() == "sd15"
    (snapshot / "model.safetensors").unlink()
    assert chosen() == "sd15", "the pickle of the encoder will do"
    (snapshot / "pytorch_model.bin").unlink()
    assert chosen() == "mini"
    assert chosen({"clip": None}) == "sd15", "the absent encoder is not asked for"
    assert chosen({"clip": None, "dinov2": "a local folder"}) == "sd15"
