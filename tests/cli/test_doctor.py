import re
import sys
import types
from pathlib import Path

import pytest

from retrieval import doctor
from retrieval.models.registry import EXTRACTORS, IP_ADAPTER


def by_name(folder: Path) -> dict[str, doctor.Finding]:
    return {finding.what: finding for finding in doctor.examine(folder)}


def test_a_sound_installation_has_no_problem(tmp_path: Path) -> None:
    found = by_name(tmp_path)
    assert [finding for finding in found.values() if finding.state == "problem"] == []
    assert found["weights of cells"].state == "ok"
    assert re.match(r"[\d.]+ [GT]B free at ", found["disk"].detail)
    assert not list(tmp_path.iterdir())


def test_every_file_of_a_model_and_of_those_beside_it_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the hub's cache as the hub lays it out; all files but one are not enough."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    wanted = [
        tmp_path / f"models--{each.repo.replace('/', '--')}" / "snapshots" / each.revision / name.split(" or ")[0]
        for each in (EXTRACTORS["sd15"], IP_ADAPTER)
        for part in each.parts
        for name in part.wanted()
    ]
    for file in wanted:
        found = by_name(tmp_path)["weights of diffsim-c"]
        assert found.state == "note"
        assert "6893 MB" in found.detail
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    found = by_name(tmp_path)["weights of diffsim-c"]
    assert found.state == "ok"
    assert found.detail.endswith(f" and h94/IP-Adapter at {IP_ADAPTER.revision[:12]}")


def test_two_flavours_of_faiss_are_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "version", lambda name: "1.0")
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    assert "uninstall both" in by_name(tmp_path)["faiss"].detail


def test_a_missing_package_and_a_read_only_place_are_problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("no-such-package",))
    found = by_name(tmp_path / "missing")
    assert found["no-such-package"].state == "problem"
    assert found["disk"].state == "problem"
