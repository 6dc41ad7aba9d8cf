"""The rule for colours and the probe of the decoder: part of an index's fingerprint, and of its settings."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from index_store.commit import commit
from index_store.generation import read_current
from index_store.layout import Layout
from retrieval import BuildSettings, Engine, EngineSettings, build_index
from retrieval.encoding.fingerprint import check_fingerprint
from retrieval.errors import IndexIncompatibleError
from retrieval.images.decoding import DecodeRules
from retrieval.images.probe import pixel_probe
from retrieval.settings import ModelSettings
from tests.images.odd.picture import SPACES, bytes_of, image
from tests.images.odd.profiles import rgb_profile
from tests.support.encoded_images import encode

RUN = BuildSettings(device="cpu", workers=1)
HERE = EngineSettings(device="cpu")


def test_the_probe_is_the_same_in_another_process_and_cheap() -> None:
    code = "from retrieval.images.probe import pixel_probe; print(pixel_probe())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == pixel_probe()
    pixel_probe.cache_clear()
    start = time.process_time()
    pixel_probe()
    assert time.process_time() - start < 0.02


def test_another_order_of_resizing_changes_the_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    before, resize = pixel_probe(), Image.Image.resize

    def horizontal_first(self: Image.Image, size: tuple[int, int], how: int, box: object = None) -> Image.Image:
        tall = self.height > 3 * self.width and box is None
        return resize(resize(self, (size[0], self.height), how), size, how) if tall else resize(self, size, how, box)

    monkeypatch.setattr(Image.Image, "resize", horizontal_first)
    pixel_probe.cache_clear()
    try:
        assert pixel_probe() != before
    finally:
        pixel_probe.cache_clear()


def test_another_pillow_is_refused_in_words_of_its_own() -> None:
    stored = {"pixels": {**DecodeRules().fingerprint(), "probe": "0123456789abcdef"}}
    with pytest.raises(IndexIncompatibleError, match=r"made with a Pillow or libjpeg that gives other pixels"):
        check_fingerprint(stored, {"pixels": DecodeRules().fingerprint()}, Path("x"))


def test_an_index_without_a_probe_is_not_compared_by_it() -> None:
    rules = DecodeRules(colour="ignored").fingerprint()
    stored = {"pixels": {name: value for name, value in rules.items() if name != "probe"}}
    check_fingerprint(stored, {"pixels": rules}, Path("x"))
    with pytest.raises(IndexIncompatibleError, match=r"pixels\.colour: nothing in the index, srgb asked for"):
        check_fingerprint(stored, {"pixels": DecodeRules().fingerprint()}, Path("x"))


def test_settings_without_a_rule_for_colours_keep_the_one_of_their_time() -> None:
    values = ModelSettings(model="cells").to_json()
    assert ModelSettings.from_json(values).colour == "srgb"
    del values["colour"]
    assert ModelSettings.from_json(json.loads(json.dumps(values))).colour == "ignored"


@pytest.fixture
def photos(gallery: Path, tmp_path: Path) -> Path:
    """One drawn picture in sRGB and in wide colour spaces, beside two others."""
    folder = tmp_path / "photos"
    folder.mkdir()
    first, *others = sorted(gallery.rglob("*.png"))[3:12:3]
    pixels = np.asarray(Image.open(first).convert("RGB"))
    (folder / "srgb.png").write_bytes(encode(image(pixels), "PNG"))
    for space in SPACES[:4]:
        held = image(space.holding(pixels.astype(float)))
        (folder / f"{space.name}.png").write_bytes(encode(held, "PNG", icc_profile=rgb_profile(space)))
    for number, other in enumerate(others):
        (folder / f"other{number}.png").write_bytes(encode(image(bytes_of(np.asarray(Image.open(other)))), "PNG"))
    return folder


def scores(index: Path, photos: Path) -> dict[str, float]:
    found = Engine.open(index, HERE).search(photos / "srgb.png", "style", exhaustive=True, k=20)
    return {Path(result.path).stem: result.shown_score for result in found.results}


def test_copies_in_wide_colour_spaces_score_like_the_picture_itself(photos: Path, tmp_path: Path) -> None:
    index = tmp_path / "x.diffsim"
    build_index(photos, index, model="cells", modes=["style"], run=RUN)
    found = scores(index, photos)
    for space in SPACES[:4]:
        assert found[space.name] == pytest.approx(found["srgb"], abs=0.002), space.name
    assert found["other0"] < found["prophoto"] - 0.002


def test_an_index_of_before_the_rule_is_searched_and_updated_by_its_own(photos: Path, tmp_path: Path) -> None:
    index = tmp_path / "x.diffsim"
    build_index(photos, index, model="cells", modes=["style"], run=RUN, colour="ignored")
    layout = Layout(index)
    generation = read_current(layout)
    pixels = {name: value for name, value in generation.fingerprint["pixels"].items() if name != "probe"}
    settings = {name: value for name, value in generation.settings.items() if name != "colour"}
    old = replace(generation, settings=settings, fingerprint={**generation.fingerprint, "pixels": pixels})
    commit(layout, old, "an older version")
    before = scores(index, photos)
    assert before["prophoto"] < before["srgb"] - 0.002
    (photos / "new.png").write_bytes((photos / "prophoto.png").read_bytes() + b"\0")
    assert build_index(photos, index, run=RUN).added == 1
    assert scores(index, photos)["new"] == pytest.approx(before["prophoto"], abs=1e-6)
    with pytest.raises(IndexIncompatibleError, match="colour"):
        build_index(photos, index, run=RUN, colour="srgb")


def test_a_cut_jpeg_is_named_in_the_report(photos: Path, tmp_path: Path) -> None:
    data = encode(Image.open(photos / "srgb.png"), "JPEG")
    (photos / "cut.jpg").write_bytes(data[: int(0.9 * len(data))])
    report = build_index(photos, tmp_path / "x.diffsim", model="cells", modes=["style"], run=RUN)
    assert set(report.partial) == {str(photos / "cut.jpg")}
    assert report.to_dict()["partial"][str(photos / "cut.jpg")].startswith("ends early")
    found = Engine.open(tmp_path / "x.diffsim", HERE).search(photos / "cut.jpg", "style")
    assert [note.kind for note in found.notes] == ["partial_query"]


def test_larger_images_are_admitted_by_the_limit(photos: Path, tmp_path: Path) -> None:
    index = tmp_path / "x.diffsim"
    small = replace(RUN, max_pixels=96 * 96 - 1)
    report = build_index(photos, index, model="cells", modes=["style"], run=small)
    assert (report.items, set(report.rejected)) == (0, {"too_large"})
    again = build_index(photos, index, run=replace(RUN, max_pixels=96 * 96, retry_rejects=True))
    assert again.rejected == {}
    assert again.items == len(list(photos.iterdir()))
