"""The file of random pairs' scores: read back as it was written, and passed over with whatever damage."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index_store.calibration.record import MOST_PAIRS, MOST_RECORD, ScoreSample, read_sample, sample_of, write_sample
from index_store.errors import NoSpaceError
from index_store.layout import Layout
from tests.support.faults import flip_bit

DIGEST = "0123456789abcdef"
SAMPLE = ScoreSample("style", DIGEST, 3, 40, 41, (-1.0, 0.25, 0.25, 1.0), 0.9)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_sample(Layout(tmp_path), SAMPLE)
    return Layout(tmp_path).score_sample("style")


def signed(values: dict[str, Any]) -> bytes:
    checksum = google_crc32c.value(json.dumps(values, sort_keys=True, separators=(",", ":")).encode())
    return json.dumps({"crc32c": checksum, "sample": values}).encode()


def test_a_sample_comes_back(path: Path, tmp_path: Path) -> None:
    assert path.parent.name == "derived"
    assert read_sample(Layout(tmp_path), "style", DIGEST) == SAMPLE
    assert read_sample(Layout(tmp_path), "style", "f" * 16) is None
    assert read_sample(Layout(tmp_path), "instance", DIGEST) is None


def test_any_flipped_bit_leaves_no_sample(path: Path, tmp_path: Path) -> None:
    whole = path.read_bytes()
    for bit in range(0, 8 * len(whole), 5):
        path.write_bytes(whole)
        flip_bit(path, bit)
        assert read_sample(Layout(tmp_path), "style", DIGEST) in (None, SAMPLE)  # a blank may become another one
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert read_sample(Layout(tmp_path), "style", DIGEST) is None


BAD: dict[str, Callable[[dict[str, Any]], object]] = {
    "another mode": lambda values: values.update(mode="instance"),
    "a path": lambda values: values.update(mode="../style"),
    "no digest": lambda values: values.update(digest="0" * 15),
    "a fraction": lambda values: values.update(items=2.5),
    "too few": lambda values: values.update(items=1),
    "below zero": lambda values: values.update(next_id=-1),
    "no scores": lambda values: values.update(scores=[]),
    "not ascending": lambda values: values.update(scores=[0.5, 0.25]),
    "out of range": lambda values: values.update(scores=[0.5, 1.5]),
    "a text": lambda values: values.update(scores=[0.5, "1"]),
    "a truth": lambda values: values.update(scores=[0.5, True]),
    "too many": lambda values: values.update(scores=[0.5] * (MOST_PAIRS + 1)),
    "a steep slope": lambda values: values.update(slope=11),
    "an endless slope": lambda values: values.update(slope=1e999),
    "missing": lambda values: values.pop("slope"),
    "surplus": lambda values: values.update(more=1),
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
def test_a_value_out_of_range_leaves_no_sample(
    path: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], caplog: pytest.LogCaptureFixture
) -> None:
    values = json.loads(path.read_bytes())["sample"]
    assert sample_of("style", signed(values)) == SAMPLE
    change(values)
    path.write_bytes(signed(values))
    assert read_sample(Layout(tmp_path), "style", DIGEST) is None
    assert "no percentiles until the next build" in caplog.text


@given(st.binary(max_size=400) | st.recursive(st.none() | st.integers() | st.text(), lambda v: st.lists(v)).map(
    lambda value: json.dumps(value).encode()
))  # fmt: skip
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        sample_of("style", data)


def test_links_pipes_and_huge_files_are_passed_over(path: Path, tmp_path: Path) -> None:
    layout, whole = Layout(tmp_path), path.read_bytes()
    path.write_bytes(whole + b" " * (MOST_RECORD - len(whole) + 1))
    assert read_sample(layout, "style", DIGEST) is None
    path.unlink()
    (tmp_path / "elsewhere").write_bytes(whole)
    path.symlink_to(tmp_path / "elsewhere")
    assert read_sample(layout, "style", DIGEST) is None
    path.unlink()
    os.mkfifo(path)
    assert read_sample(layout, "style", DIGEST) is None


def test_a_full_disk_leaves_the_older_sample(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **folders: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(NoSpaceError):
        write_sample(Layout(tmp_path), ScoreSample("style", DIGEST, 4, 50, 51, (0.5,)))
    monkeypatch.undo()
    assert read_sample(Layout(tmp_path), "style", DIGEST) == SAMPLE
    assert [file.name for file in path.parent.iterdir()] == [path.name]
