import re
import sys
import types
from pathlib import Path

import pytest

from retrieval import doctor
from retrieval.models.diffusion.diffsim_c import ADAPTER, ENCODER, IP_ADAPTER


def by_name(folder: Path) -> dict[str, doctor.Finding]:
    return {finding.what: finding for finding in doctor.examine(folder)}


def test_a_sound_installation_has_no_problem(tmp_path: Path) -> None:
    found = by_name(tmp_path)
    assert [finding for finding in found.values() if finding.state == "problem"] == []
    assert found["weights of mini"].state == "ok"
    assert re.match(r"[\d.]+ [GT]B free at ", found["disk"].detail)
    assert not list(tmp_path.iterdir())


def test_the_adapter_of_diffsim_c_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both of its files must lie in the hub's cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    revision = tmp_path / "models--h94--IP-Adapter" / "snapshots" / IP_ADAPTER.revision
    for file in (f"{ENCODER}/model.safetensors", ADAPTER):
        found = by_name(tmp_path)["weights of diffsim-c, on top of sd15"]
        assert found.state == "note"
        assert "2626 MB" in found.detail
        (revision / file).parent.mkdir(parents=True, exist_ok=True)
        (revision / file).touch()
    found = by_name(tmp_path)["weights of diffsim-c, on top of sd15"]
    assert (found.state, found.detail) == ("ok", f"cached: h94/IP-Adapter at {IP_ADAPTER.revision[:12]}")


def test_two_flavours_of_faiss_are_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "version", lambda name: "1.0")
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    assert "uninstall both" in by_name(tmp_path)["faiss"].detail


def test_a_missing_package_and_a_read_only_place_are_problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("no-such-package",))
    found = by_name(tmp_path / "missing")
    assert found["no-such-package"].state == "problem"
    assert found["disk"].state == "problem"
