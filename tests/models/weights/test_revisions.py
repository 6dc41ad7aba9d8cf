"""Repositories by branch: the commit is found once and kept; the hub's refusals are one clear sentence."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch

from cli.advice import sentence_of
from retrieval.errors import ModelError
from retrieval.models.pinning import pinned_choices
from retrieval.models.registry import describe_embedder, load_embedder
from retrieval.models.weights.check import check_weights, needed_by
from retrieval.models.weights.finding import fetch, plan_download
from retrieval.settings import ModelSettings
from tests.slices import loads_model_libraries
from tests.support.hub.cache import Hub, online_hub, write_cache
from tests.support.hub.vision_models import write_model

REPO, OLD, NEW = "someone/vit", "a" * 40, "b" * 40
pytestmark = loads_model_libraries

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Mapping[str, bytes]]:
    """The files of two commits, with those of other programs among them."""
    found = {}
    for seed, commit in enumerate((OLD, NEW)):
        folder = write_model(tmp_path_factory.mktemp("vit"), "vit", seed=seed)
        found[commit] = {path.name: path.read_bytes() for path in folder.iterdir()}
        found[commit] |= {"README.md": b"read me", "tf_model.h5": b"other"}
    return found


@pytest.fixture
def hub(tmp_path: Path, files: Mapping[str, Mapping[str, bytes]], monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    served = {(REPO, commit): content for commit, content in files.items()}
    with online_hub(served, tmp_path / "hub", monkeypatch) as server:
        server.branches[REPO, "main"] = OLD
        yield server


def pinned(name: str, offline: bool = False, stored: ModelSettings | None = None) -> str:
    [found] = pinned_choices({"encoders": {name: None}}, offline, stored)["encoders"] or {}
    return found


def test_exactly_the_files_that_are_loaded_are_downloaded_once(hub: Hub) -> None:
    loaded = load_embedder(f"hf:{REPO}", None, CPU, offline=False)
    assert sorted(hub.downloaded()) == ["config.json", "model.safetensors", "preprocessor_config.json"]
    hub.requests.clear()
    for offline in (False, True):
        assert load_embedder(f"hf:{REPO}", None, CPU, offline).fingerprint() == loaded.fingerprint()
    assert hub.requests == [], "what the cache has needs no network"
    assert all(file.state == "ok" for file in check_weights(needed_by(f"hf:{REPO}")))


def test_a_branch_that_moves_changes_no_name_that_is_kept(hub: Hub) -> None:
    name = pinned(f"hf:{REPO}")
    assert name == f"hf:{REPO}@{OLD}"
    old = load_embedder(name, None, CPU, offline=False).fingerprint()
    hub.branches[REPO, "main"] = NEW
    stored = ModelSettings(encoders={name: None})
    assert pinned(f"hf:{REPO}", stored=stored) == name
    assert pinned(f"hf:{REPO}@{NEW}", stored=stored) == f"hf:{REPO}@{NEW}"
    assert pinned(f"hf:{REPO}", offline=True) == name, "the cache knows this commit"
    assert load_embedder(name, None, CPU, offline=True).fingerprint() == old

    fetch([plan_download(describe_embedder(f"hf:{REPO}"))])
    assert pinned(f"hf:{REPO}", offline=True) == f"hf:{REPO}@{NEW}", "a fetch takes the newest"
    assert load_embedder(f"hf:{REPO}", None, CPU, offline=True).fingerprint() != old
    assert load_embedder(name, None, CPU, offline=True).fingerprint() == old


def test_models_and_local_folders_are_pinned_alike(hub: Hub, tmp_path: Path) -> None:
    choices = pinned_choices({"model": f"hf-aas:{REPO}#0"}, offline=False)
    assert choices == {"model": f"hf-aas:{REPO}@{OLD}#0"}
    stored = ModelSettings(model=choices["model"])
    hub.branches[REPO, "main"] = NEW
    assert pinned_choices({"model": f"hf-aas:{REPO}#0"}, False, stored) == choices
    other = pinned_choices({"model": f"hf-aas:{REPO}#1"}, False, stored)
    assert other == {"model": f"hf-aas:{REPO}@{OLD}#1"}, "the cache knows this commit of the branch"
    local = pinned_choices({"model": f"hf-aas:{tmp_path}/m", "encoders": {f"hf:{tmp_path}/m": None}}, offline=True)
    assert local == {
        "model": "hf-aas:m",
        "weights": str(tmp_path / "m"),
        "encoders": {"hf:m": str(tmp_path / "m")},
    }
    assert pinned_choices({"encoders": {"clip": None, "csd": "folder"}}, offline=True) == {
        "encoders": {"clip": None, "csd": "folder"}
    }


def test_a_named_encoder_without_a_commit_gets_one(hub: Hub) -> None:
    hub.repositories = {("yuxi-liu-wired/CSD", NEW): {"model.safetensors": b"weights"}}
    hub.branches["yuxi-liu-wired/CSD", "main"] = NEW
    assert pinned("csd") == f"csd@{NEW}"
    hub.branches.clear()
    assert pinned("csd", offline=True) == f"csd@{NEW}"
    assert pinned("csd", stored=ModelSettings(encoders={f"csd@{OLD}": None})) == f"csd@{OLD}"


def test_offline_without_a_commit_and_half_a_download_are_errors(
    hub: Hub, tmp_path: Path, files: Mapping[str, Mapping[str, bytes]]
) -> None:
    with pytest.raises(ModelError, match=r"someone/vit are needed and the local hub cache knows no commit \(offline\)"):
        pinned(f"hf:{REPO}", offline=True)
    half = {name: content for name, content in files[OLD].items() if not name.startswith("model")}
    write_cache(tmp_path / "hub", REPO, OLD, half)
    missing = rf"missing at revision {OLD}: model\.safetensors or pytorch_model\.bin \(1 of 3 files\)"
    with pytest.raises(ModelError, match=missing) as caught:
        load_embedder(pinned(f"hf:{REPO}", offline=True), None, CPU, offline=True)
    assert f"diffsim-index fetch hf:{REPO}@{OLD}" in sentence_of(caught.value)
    assert {file.state for file in check_weights(needed_by(f"hf:{REPO}"))} == {"ok", "missing"}
    load_embedder(f"hf:{REPO}", None, CPU, offline=False)
    assert hub.downloaded() == ["model.safetensors"], "the rest was there"


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (401, "GatedRepo", "only after its licence was accepted on its page, with a token"),
        (403, "GatedRepo", "only after its licence was accepted on its page, with a token"),
        (403, "", "the hub refuses access to the repository: accept its licence on its page, and log in with a token"),
        (401, "RepoNotFound", "the hub has no such repository, or it needs a token"),
        (404, "RepoNotFound", "the hub has no such repository, or it needs a token"),
    ],
)
def test_a_hub_that_refuses_is_one_clear_sentence(status: int, code: str, reason: str, hub: Hub) -> None:
    hub.refused[REPO] = (status, code)
    for revision in ("", f"@{OLD}"):
        with pytest.raises(ModelError, match=f"weights of {REPO} are needed and .*{reason}") as caught:
            load_embedder(pinned(f"hf:{REPO}{revision}"), None, CPU, offline=False)
        assert "\n" not in sentence_of(caught.value)


def test_a_branch_that_does_not_exist_is_named(hub: Hub) -> None:
    with pytest.raises(ModelError, match="the hub has no such revision"):
        pinned(f"hf:{REPO}@nightly")
