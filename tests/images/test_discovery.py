import os
import random
from pathlib import Path

import pytest

from retrieval.errors import UsageError
from retrieval.images import decoding as images
from retrieval.images import discovery
from retrieval.images.discovery import IMAGE_SUFFIXES, Listing, find_images


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(listing: Listing, root: Path) -> list[str]:
    assert all(path.is_absolute() for path in listing.files)
    return [str(path.relative_to(root)) for path in listing.files]


def test_public_names_are_also_those_of_images() -> None:
    assert images.find_images is find_images
    assert images.Listing is Listing
    assert images.IMAGE_SUFFIXES is IMAGE_SUFFIXES
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in IMAGE_SUFFIXES)


def test_a_folder_is_walked_and_sorted_by_parts(tmp_path: Path) -> None:
    shuffled = [
        "b.jpg",
        "a.PNG",
        "B.webp",
        "a/z.tiff",
        "a-b/c.gif",
        "a/b/c.avif",
        "é.jpeg",
        "z.bmp",
        "10.jpe",
        "9.jfif",
    ]
    random.Random(1).shuffle(shuffled)
    make(tmp_path, *shuffled, "notes.txt", "a/README", "jpg", "x.jpg.part")
    listing = find_images([tmp_path])
    assert names(listing, tmp_path) == [
        *("10.jpe", "9.jfif", "B.webp", "a/b/c.avif", "a/z.tiff", "a-b/c.gif", "a.PNG", "b.jpg", "z.bmp"),
        "é.jpeg",
    ]
    assert listing.passed_over == 4
    assert listing.unreadable == ()
    assert dict(listing.endings) == {"": 2, ".part": 1, ".txt": 1}


def test_nothing_found_is_no_error(tmp_path: Path) -> None:
    assert find_images([tmp_path]) == Listing((), 0, (), {})
    assert find_images([]) == Listing((), 0, ())


def test_hidden_files_and_folders_are_skipped(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", ".hidden.jpg", ".jpg", ".git/b.jpg", "sub/.c.png", ".DS_Store")
    listing = find_images([tmp_path])
    assert names(listing, tmp_path) == ["a.jpg"]
    assert listing.passed_over == 4


def test_a_hidden_source_is_fine(tmp_path: Path) -> None:
    make(tmp_path, ".cache/a.jpg", ".secret.jpg")
    listing = find_images([tmp_path / ".cache", tmp_path / ".secret.jpg"])
    assert names(listing, tmp_path) == [".cache/a.jpg", ".secret.jpg"]


def test_indexes_are_skipped(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "photos.diffsim/b.jpg", "sub/x.diffsim/c.jpg")
    (tmp_path / "link").symlink_to("photos.diffsim")
    assert names(find_images([tmp_path]), tmp_path) == ["a.jpg"]
    for source in ("photos.diffsim", "link"):
        with pytest.raises(UsageError, match="is an index"):
            find_images([tmp_path / source])


def test_sources_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    make(tmp_path, "notes.txt")
    with pytest.raises(UsageError, match=r"nowhere does not exist"):
        find_images([tmp_path, tmp_path / "nowhere"])
    with pytest.raises(UsageError, match=r"notes\.txt is not an image file: .*\.avif, .*\.webp"):
        find_images([tmp_path / "notes.txt"])
    with pytest.raises(UsageError, match="does not exist"):
        find_images([tmp_path / "zero\0byte"])


def test_a_folder_comes_before_those_whose_names_begin_with_its_own(tmp_path: Path) -> None:
    make(tmp_path, "a!/x.jpg", "a/x.jpg", "a/b/x.jpg", "a.jpg", "aé/x.jpg", "ab.jpg")
    listing = find_images([tmp_path])
    assert names(listing, tmp_path) == ["a/b/x.jpg", "a/x.jpg", "a!/x.jpg", "a.jpg", "ab.jpg", "aé/x.jpg"]
    assert list(listing.files) == sorted(listing.files, key=lambda path: [os.fsencode(part) for part in path.parts])


def test_each_file_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a.jpg", "sub/b.jpg", "sub/notes.txt")
    monkeypatch.chdir(tmp_path)
    sources = [Path(), Path("sub"), tmp_path, Path("sub/b.jpg"), Path("sub/../a.jpg"), Path("./sub")]
    listing = find_images(sources)
    assert names(listing, tmp_path) == ["a.jpg", "sub/b.jpg"]
    assert listing.passed_over == 1
    assert find_images(sources[::-1]) == listing


def test_links_to_files_are_listed(tmp_path: Path) -> None:
    make(tmp_path, "real/a.jpg", "real/notes.txt")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link.png").symlink_to(tmp_path / "real/a.jpg")
    (inside / "text").symlink_to(tmp_path / "real/notes.txt")
    (inside / "broken.jpg").symlink_to("nowhere")
    (inside / "broken").symlink_to("nowhere")
    (inside / "loop.jpg").symlink_to("loop.jpg")
    listing = find_images([inside])
    assert names(listing, inside) == ["broken.jpg", "link.png", "loop.jpg"]
    assert listing.passed_over == 1


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    make(tmp_path, "all/x/a.jpg", "outside/b.jpg")
    (tmp_path / "all/a-link-before-it").symlink_to("x")
    (tmp_path / "all/x/up").symlink_to(tmp_path / "all")
    (tmp_path / "all/x/self").symlink_to(".")
    (tmp_path / "all/p").symlink_to("q")
    (tmp_path / "all/q").symlink_to("p")
    (tmp_path / "all/out.jpg").symlink_to(tmp_path / "outside")
    (tmp_path / "outside/back").symlink_to(tmp_path / "all")
    listing = find_images([tmp_path / "all"])
    assert names(listing, tmp_path / "all") == ["out.jpg/b.jpg", "x/a.jpg"]
    assert listing.unreadable == ()


def test_a_source_that_is_a_link_keeps_its_name(tmp_path: Path) -> None:
    make(tmp_path, "real/a.jpg")
    (tmp_path / "link").symlink_to("real")
    assert names(find_images([tmp_path / "link"]), tmp_path) == ["link/a.jpg"]


def test_dots_after_a_link_keep_their_sense(tmp_path: Path) -> None:
    make(tmp_path, "far/deep/keep", "far/b/right.jpg", "b/wrong.jpg")
    (tmp_path / "link").symlink_to("far/deep")
    (found,) = find_images([tmp_path / "link/../b"]).files
    assert found.name == "right.jpg"


def test_odd_names_are_read(tmp_path: Path) -> None:
    raw = os.fsdecode(b"caf\xe9.jpg")
    make(tmp_path, "new\nline.jpg", " space .png", "世界/🖼.gif", raw, "two.dots.JPG")
    found = find_images([tmp_path]).files
    assert {path.name for path in found} == {"new\nline.jpg", " space .png", "🖼.gif", raw, "two.dots.JPG"}


def test_a_fifo_is_listed_by_its_name_and_a_folder_is_not(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.jpg")
    os.mkfifo(tmp_path / "fifo")
    make(tmp_path, "folder.jpg/a.jpg")
    listing = find_images([tmp_path])
    assert names(listing, tmp_path) == ["fifo.jpg", "folder.jpg/a.jpg"]
    assert listing.passed_over == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_folders_without_permission_are_reported(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "closed/b.jpg")
    (tmp_path / "closed").chmod(0)
    try:
        listing = find_images([tmp_path])
    finally:
        (tmp_path / "closed").chmod(0o700)
    assert names(listing, tmp_path) == ["a.jpg"]
    assert listing.unreadable == (tmp_path / "closed",)


def test_folders_that_can_not_be_listed_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a.jpg", "x/b.jpg", "y/c.jpg", "y/z/d.jpg")
    scan = os.scandir

    def scandir(path: Path) -> object:
        if path.name in ("x", "z"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(discovery.os, "scandir", scandir)
    listing = find_images([tmp_path])
    assert names(listing, tmp_path) == ["a.jpg", "y/c.jpg"]
    assert listing.unreadable == (tmp_path / "x", tmp_path / "y/z")
    assert find_images([tmp_path / "x"]) == Listing((), 0, (tmp_path / "x",))
