"""Damaged, hostile and sharded weights: one error that names the file, and one digest for the same numbers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cli.advice import sentence_of
from retrieval.errors import ModelError
from tests.models.weights.test_hub_caches import fill_cache, fill_folder, load
from tests.slices import loads_model_libraries, slice_of

pytestmark = loads_model_libraries


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def damage(content: bytes, how: str) -> bytes:
    return {
        "cut off": content[: len(content) // 2],
        "cut off in the header": content[:20],
        "empty": b"",
        "pointer of git-lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "other bytes": b"no weights at all",
        "longer": content + b"more",
    }[how]


WHERE = [
    ("sd15", "unet/diffusion_pytorch_model.safetensors"),
    ("sd15", "text_encoder/model.safetensors"),
    ("clip", "model.safetensors"),
    ("diffsim-c", "models/ip-adapter-plus_sd15.safetensors"),
    ("dit-256", "transformer/diffusion_pytorch_model.bin"),
    ("clip", "pytorch_model.bin"),
    ("sd15", "unet/config.json"),
]
HOW = ["cut off", "cut off in the header", "empty", "pointer of git-lfs", "other bytes"]


def is_kept(name: str, file: str, how: str) -> bool:
    """Every file cut off, and every damage to a file of each form: safetensors and pickles."""
    return how == "cut off" or name == "clip"


@pytest.mark.parametrize(("name", "file", "how"), slice_of([(*where, how) for where in WHERE for how in HOW], is_kept))
def test_damage_is_one_error_that_names_the_file(name: str, file: str, how: str, hub: Path) -> None:
    snapshots = fill_cache(hub, name)
    [path] = (snapshot / file for snapshot in snapshots if (snapshot / file).is_file())
    if file == "pytorch_model.bin":
        (path.parent / "model.safetensors").unlink()
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(damage(content, how))
    with pytest.raises(ModelError) as caught:
        load(name)
    assert str(path) in str(caught.value)
    assert sentence_of(caught.value).isprintable()


def test_a_pickle_that_would_run_code_is_refused(hub: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return print, ("harm",)

    [snapshot] = fill_cache(hub, "clip", lambda file: file != "model.safetensors")
    path = snapshot / "pytorch_model.bin"
    path.unlink()
    torch.save({"weight": Harm()}, path)
    with pytest.raises(ModelError) as caught:
        load("clip")
    assert "pytorch_model.bin" in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
@pytest.mark.parametrize(("folder", "stem"), [("unet", "diffusion_pytorch_model"), ("text_encoder", "model")])
@pytest.mark.thorough
def test_shards_are_the_same_weights(folder: str, stem: str, ending: str, tmp_path: Path) -> None:
    whole = load("sd15", fill_folder(tmp_path / "whole", "sd15")).fingerprint()
    local = fill_folder(tmp_path / "shards", "sd15")
    into_shards(local / folder, "pytorch_model" if (stem, ending) == ("model", "bin") else stem, ending)
    assert load("sd15", local).fingerprint() == whole
    for shard in (local / folder).glob("*-00002-of-00002.*"):
        shard.unlink()
    with pytest.raises(ModelError, match=f"{folder}/.*-00002-of-00002.{ending} missing"):
        load("sd15", local)


def into_shards(folder: Path, stem: str, ending: str) -> None:
    """Replace all weights in a folder by an index and two shards."""
    from safetensors.torch import load_file, save_file

    [source] = [path for path in folder.glob("*.safetensors") if path.stem in {"diffusion_pytorch_model", "model"}]
    tensors = load_file(source)
    for path in [*folder.glob("*.safetensors"), *folder.glob("*.bin")]:
        path.unlink()
    names: dict[str, str] = {}
    for number in (1, 2):
        part = {key: tensors[key].clone() for key in sorted(tensors)[number - 1 :: 2]}
        name = f"{stem}-0000{number}-of-00002.{ending}"
        names |= dict.fromkeys(part, name)
        if ending == "safetensors":
            save_file(part, folder / name, metadata={"format": "pt"})
        else:
            torch.save(part, folder / name)
    size = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": names}
    (folder / f"{stem}.{ending}.index.json").write_text(json.dumps(index))


def test_other_numbers_are_another_model(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = fill_folder(tmp_path, "clip")
    before = load("clip", folder).fingerprint()
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["text_projection.weight"] += 1  # not used
    save_file(tensors, path, metadata={"format": "pt"})
    assert load("clip", folder).fingerprint() == before
    tensors["visual_projection.weight"][0, 0] += 1e-3
    save_file(tensors, path, metadata={"format": "pt"})
    assert load("clip", folder).fingerprint() != before
