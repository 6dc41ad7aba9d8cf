"""Image files with odd names, links, permissions and sizes."""

import hashlib
import os
from pathlib import Path

import pytest

from retrieval.errors import ImageError
from retrieval.images.decoding import read_image
from tests.support.encoded_images import RULES, SAMPLES


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(SAMPLES["JPEG turned"])
    return path


def file_reason(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        read_image(path, RULES)
    str(caught.value).encode()
    return caught.value.reason


def test_a_file_is_read_with_its_size_time_and_checksum(photo: Path) -> None:
    os.utime(photo, ns=(1, 1_234_567_890_123_456_789))
    image, facts = read_image(photo, RULES)
    data = photo.read_bytes()
    assert (facts.path, facts.size, facts.mtime_ns) == (photo, len(data), photo.stat().st_mtime_ns)
    assert facts.sha256 == hashlib.sha256(data).hexdigest()
    assert (facts.width, facts.height) == image.size == (24, 40)


@pytest.mark.parametrize("name", ["ünï 世界 🖼.jpg", "two  spaces .jpg", "new\nline.jpg", "'quo\"te.jpg"])
def test_odd_names_are_read(photo: Path, name: str) -> None:
    path = photo.rename(photo.with_name(name))
    assert read_image(path, RULES)[1].path == path


def test_a_missing_file_a_broken_link_and_a_circle_have_their_reasons(tmp_path: Path) -> None:
    assert file_reason(tmp_path / "none.jpg") == "vanished"
    (tmp_path / "broken.jpg").symlink_to("nowhere.jpg")
    assert file_reason(tmp_path / "broken.jpg") == "vanished"
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    assert file_reason(tmp_path / "loop.jpg") == "unreadable"
    assert file_reason(tmp_path) == "unreadable"
    assert file_reason(tmp_path / "zero\0byte.jpg") == "unreadable"
    assert file_reason(tmp_path / ("long" * 100 + ".jpg")) == "unreadable"


def test_a_link_to_a_photo_is_followed(photo: Path) -> None:
    link = photo.with_name("link.jpg")
    link.symlink_to(photo)
    assert read_image(link, RULES)[1].path == link


def test_empty_and_foreign_files_have_their_reasons(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    assert file_reason(tmp_path / "empty.png") == "empty"
    (tmp_path / "text.png").write_text("this is a text")
    assert file_reason(tmp_path / "text.png") == "not_an_image"


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "video.jpg"
    with path.open("wb") as file:
        file.truncate(2**32 + 1)  # takes no space
    assert file_reason(path) == "too_large"


def test_fifo_and_device_do_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.jpg")
    assert file_reason(tmp_path / "fifo.jpg") == "unreadable"
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    assert file_reason(tmp_path / "device.jpg") == "unreadable"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_has_its_reason(photo: Path) -> None:
    photo.chmod(0)
    assert file_reason(photo) == "permission"


def test_a_refused_open_has_the_same_reason_for_any_user(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, flags: int) -> int:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "open", refuse)
    assert file_reason(photo) == "permission"


def test_a_name_that_is_not_utf8_is_an_error(photo: Path) -> None:
    path = photo.rename(photo.parent / os.fsdecode(b"caf\xe9.jpg"))
    with pytest.raises(ImageError, match=r"caf\\xe9\.jpg") as caught:
        read_image(path, RULES)
    assert caught.value.reason == "bad_name"
