"""Weights are downloaded from a server that answers as the hub does: exactly the files that are loaded."""

import errno
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from retrieval.errors import CancelledError, ModelError, NoSpaceError
from retrieval.models.defaults import choose_model
from retrieval.models.descriptions import Description
from retrieval.models.encoders import EMBEDDERS
from retrieval.models.registry import EXTRACTORS, IP_ADAPTER, VAE
from retrieval.models.weights.finding import are_cached, fetch, plan_download
from retrieval.progress import Cancellation, Progress
from retrieval.settings import ModelSettings
from tests.models.weights.test_hub_caches import EACH, REPOSITORIES, load
from tests.slices import loads_model_libraries
from tests.support.hub.cache import Hub, online_hub, point_to
from tests.support.hub.files import FILES, tiny_repository

pytestmark = loads_model_libraries

EVERY = (*EXTRACTORS.values(), *EMBEDDERS.values(), IP_ADAPTER, VAE)


def served() -> dict[tuple[str, str], Mapping[str, bytes]]:
    return {(each.repo, each.revision): tiny_repository(each.repo) for each in EVERY if each.repo in FILES}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with online_hub(served(), tmp_path / "hub", monkeypatch) as server:
        yield server


def first_names(description: Description) -> list[str]:
    return [name.split(" or ")[0] for part in description.parts for name in part.wanted()]


@pytest.mark.parametrize("name", EACH)
@pytest.mark.thorough
def test_exactly_the_files_that_are_loaded_are_downloaded(name: str, hub: Hub) -> None:
    load(name, offline=False)
    got = hub.downloaded()
    for each in REPOSITORIES[name]:
        files, wanted = tiny_repository(each.repo), first_names(each)
        mine = [file for file in got if file in wanted]
        assert {files[file] for file in mine} == {files[file] for file in wanted}  # the hub sends equal files once
        got = [file for file in got if file not in mine]
    assert got == []
    assert are_cached(REPOSITORIES[name])
    hub.requests.clear()
    load(name, offline=False)
    assert hub.requests == [], "a model in the cache needs no network"


def test_pickles_are_downloaded_where_the_hub_has_no_safetensors(hub: Hub) -> None:
    clip = EMBEDDERS["clip"]
    safe = tiny_repository(clip.repo)
    hub.repositories = {(clip.repo, clip.revision): {k: v for k, v in safe.items() if k != "model.safetensors"}}
    load("clip", offline=False)
    assert sorted(hub.downloaded()) == ["config.json", "preprocessor_config.json", "pytorch_model.bin"]


def test_nothing_is_downloaded_if_the_commit_lacks_a_file(hub: Hub) -> None:
    sd15 = EXTRACTORS["sd15"]
    files = {k: v for k, v in tiny_repository(sd15.repo).items() if not k.startswith("vae/diffusion")}
    hub.repositories = {(sd15.repo, sd15.revision): files}
    with pytest.raises(ModelError, match=r"the hub does not have them .* vae/diffusion_pytorch_model\.safetensors or"):
        load("sd15", offline=False)
    assert hub.downloaded() == []


def test_a_cached_pickle_spares_the_download(hub: Hub, tmp_path: Path) -> None:
    from tests.models.weights.test_hub_caches import fill_cache

    fill_cache(tmp_path / "hub", "clip", lambda file: file != "model.safetensors")
    load("clip", offline=False)
    assert hub.requests == []


@pytest.mark.parametrize("missing", ["revision", "server"])
def test_a_hub_that_gives_no_answer_is_an_error(missing: str, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    if missing == "revision":
        hub.repositories = {}
    else:
        point_to("http://127.0.0.1:9", monkeypatch)
    reason = "no such revision" if missing == "revision" else "gave no answer"
    with pytest.raises(ModelError, match=f"weights of openai/clip-vit-base-patch32 are needed and the hub .*{reason}"):
        load("clip", offline=False)


def test_progress_counts_the_bytes_of_all_repositories(hub: Hub) -> None:
    heard: list[Progress] = []
    plans = [plan_download(each) for each in REPOSITORIES["dit-256"]]
    fetch(plans, heard.append)
    total = sum(len(tiny_repository(each.repo)[name]) for each in REPOSITORIES["dit-256"] for name in first_names(each))
    assert {progress.total for progress in heard} == {total}
    assert heard[-1].done == total
    assert [progress.done for progress in heard] == sorted(progress.done for progress in heard)
    assert "transformer/diffusion_pytorch_model.bin" in {progress.note for progress in heard}


def test_a_cancelled_download_keeps_complete_files_and_goes_on(hub: Hub) -> None:
    cancel = Cancellation()

    def stop(progress: Progress) -> None:
        if progress.note == "text_encoder/config.json":
            cancel.request()

    sd15 = EXTRACTORS["sd15"]
    with pytest.raises(CancelledError):
        fetch([plan_download(sd15)], stop, cancel)
    before = hub.downloaded()
    assert "unet/diffusion_pytorch_model.safetensors" in before
    assert not are_cached([sd15])
    hub.requests.clear()
    fetch([plan_download(sd15)])
    assert are_cached([sd15])
    assert set(before) & set(hub.downloaded()) <= {before[-1]}


def test_a_full_disk_is_an_error_before_the_download(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil
    from types import SimpleNamespace

    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(NoSpaceError, match=r"of weights do not fit in .*: 1\.0 kB are free"):
        fetch([plan_download(EMBEDDERS["dinov2"])])
    assert hub.downloaded() == []


def test_auto_asks_the_mirror_whether_it_answers(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr("retrieval.models.defaults.choose_device", lambda device: torch.device("cuda"))
    settings = ModelSettings(model="auto")
    assert choose_model(settings, "auto", offline=False).name == "sd15"
    point_to("http://127.0.0.1:9", monkeypatch)
    assert choose_model(settings, "auto", offline=False).name == "mini"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_disk_that_refuses_is_not_blamed_on_the_hub(number: int, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*words: object, **options: object) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    with pytest.raises(ModelError, match=r"can't be stored in the hub's cache \(\[Errno"):
        load("dinov2", offline=False)
