"""``diffsim-index fetch`` and ``doctor --weights`` as people run them, against a server that answers as the hub."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.advice import sentence_of
from cli.terminal import progress
from cli.terminal.process import Speaker
from cli.terminal.progress import ProgressBar
from retrieval.errors import UsageError
from retrieval.metrics.registry import METRICS, weights_of
from retrieval.progress import Progress
from tests.models.weights.test_download import served
from tests.models.weights.test_hub_caches import fill_folder
from tests.slices import loads_model_libraries
from tests.support.hub.cache import serve_hub


def run(*words: str, home: Path, endpoint: str = "http://127.0.0.1:9") -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if "OFFLINE" not in name}
    environment |= {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "from cli.index_command import main; main()", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.thorough
def test_fetch_downloads_a_model_with_its_encoders_and_doctor_finds_it_whole(tmp_path: Path) -> None:
    before = run("doctor", "--weights", "sd15", home=tmp_path)
    assert before.returncode == 1
    assert "missing  sd15" in before.stdout
    assert "fetch them with: diffsim-index fetch sd15" in before.stdout
    with serve_hub(served()) as hub:
        fetched = run("fetch", "sd15", "--json", home=tmp_path, endpoint=hub.url)
    assert fetched.returncode == 0, fetched.stderr
    report = json.loads(fetched.stdout)
    assert [each["name"] for each in report["repositories"]] == ["sd15", "clip", "dinov2"]
    assert report["downloaded"] == sum(file["bytes"] for each in report["repositories"] for file in each["files"])
    assert all(
        Path(each["folder"], file["name"]).is_file() for each in report["repositories"] for file in each["files"]
    )
    again = run("fetch", "sd15", home=tmp_path)  # nothing is left to ask the hub for
    assert again.returncode == 0, again.stderr
    assert again.stderr == ""
    after = run("doctor", "--weights", "sd15", "--json", home=tmp_path)
    assert after.returncode == 0, after.stdout
    assert json.loads(after.stdout)["whole"] is True


def test_fetch_without_a_hub_names_the_command_and_exits_with_1(tmp_path: Path) -> None:
    failed = run("fetch", "dinov2", home=tmp_path)
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: dinov2: weights of facebook/dinov2-small are needed and the hub gave no")
    assert "Traceback" not in failed.stderr
    assert run("fetch", "cells", home=tmp_path).stdout == "cells needs no download\n"
    unknown = run("fetch", "sd16", home=tmp_path)
    assert unknown.returncode == 2
    assert "unknown model 'sd16'; known: sd15, mini, cells" in unknown.stderr


@loads_model_libraries
@pytest.mark.parametrize("name", ["diffsim-c", "dit-256"])
def test_doctor_checks_local_folders_and_their_neighbours(name: str, tmp_path: Path) -> None:
    folder = fill_folder(tmp_path, name)
    for encoder in ("clip", "dinov2"):
        fill_folder(tmp_path / encoder, encoder)
        (tmp_path / encoder / "model").rename(tmp_path / "moving")
        (tmp_path / encoder).rmdir()
        (tmp_path / "moving").rename(tmp_path / encoder)
    whole = run("doctor", "--weights", f"{name}={folder}", "--json", home=tmp_path)
    assert whole.returncode == 0, whole.stdout
    files = json.loads(whole.stdout)["files"]
    assert {"clip", "dinov2", name} < {file["model"] for file in files}
    for file in files:
        [path] = [
            each
            for place in ("model", "model/vae", "ip_adapter", "clip", "dinov2")
            if (each := tmp_path / place / file["name"]).is_file() and each.stat().st_size == file["size"]
        ][:1]
        if path.suffix in {".safetensors", ".bin"}:
            content = path.read_bytes()
            path.write_bytes(content[:-1])
            damaged = run("doctor", "--weights", f"{name}={folder}", home=tmp_path)
            path.write_bytes(content)
            assert damaged.returncode == 1
            assert f"damaged  {file['model']}" in damaged.stdout
            assert f"{file['name']}: " in damaged.stdout
            assert "cut off" in damaged.stdout
            break


def test_bytes_of_an_earlier_download_do_not_count_as_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    bar = ProgressBar(Speaker())
    bar.show(Progress("download", 1_000_000, 3_000_000, "a"))
    assert bar.state == "a: 1.0 MB of 3.0 MB"
    now[0] += 4
    bar.show(Progress("download", 1_500_000, 3_000_000, "b"))
    assert bar.state == "b: 1.5 MB of 3.0 MB, 125.0 kB/s, about 0:12 left"


@pytest.mark.parametrize(
    ("name", "repositories"),
    [
        ("ffa", ["facebook/dinov2-base"]),
        ("diffsim-s", ["stable-diffusion-v1-5/stable-diffusion-v1-5"]),
        ("clip-feats", ["openai/clip-vit-base-patch32"]),
        ("ssim", []),
        (
            "ensemble",
            [
                "openai/clip-vit-base-patch32",
                "facebook/dinov2-small",
                "stable-diffusion-v1-5/stable-diffusion-v1-5",
            ],
        ),
    ],
)
def test_the_weights_of_a_metric_have_a_place_on_the_hub(name: str, repositories: list[str]) -> None:
    assert [each.repo for each, _ in weights_of(name)] == repositories


def test_every_metric_has_weights_to_fetch_or_says_who_has_them() -> None:
    elsewhere = {}
    for name, metric in METRICS.items():
        try:
            needed = weights_of(name)
        except UsageError as error:
            elsewhere[name] = sentence_of(error)
        else:
            assert bool(needed) == bool(metric.download_mb)
    assert elsewhere.keys() == {"lpips", "dreamsim", "gram"}
    assert elsewhere["lpips"] == "the weights of lpips are not on the hub: the package lpips downloads them"
    assert "vgg19-dcbb9e9d.pth" in elsewhere["gram"]
