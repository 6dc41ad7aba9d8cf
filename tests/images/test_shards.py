"""Images inside tars and tables are listed and read like files, and damage or an evil name is an error of its own."""

import os
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval.drawing.cells import SheetCell, SheetRow
from retrieval.drawing.html_page import html_page
from retrieval.errors import ImageError, UsageError
from retrieval.images.decoding import DecodeRules, read_image
from retrieval.images.discovery import find_images
from retrieval.images.file_bytes import read_bytes
from retrieval.images.file_states import is_there, state_of
from retrieval.images.shards import tables
from retrieval.images.shards.naming import member_of
from tests.support.faults import flip_bit
from tests.support.sample_index import paint
from tests.support.shards import (
    add_bytes,
    image_structs,
    save_to_disk,
    write_bytes,
    write_hub,
    write_names,
    write_tar,
)

NAMES = [f"{number:03d}.png" for number in range(8)]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return paint(tmp_path / "files", NAMES)


def listed(source: Path) -> list[str]:
    return [name.removeprefix(f"{source.parent}{os.sep}") for name in find_images([source]).names]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_the_members_of_a_tar_are_its_images(files: list[Path], tmp_path: Path, form: int) -> None:
    shard = write_tar(tmp_path / "in" / "shard-000.tar", files, form)
    assert listed(tmp_path / "in") == [f"in/shard-000.tar/{name}" for name in NAMES]
    assert listed(shard) == [f"shard-000.tar/{name}" for name in NAMES]
    assert find_images([shard]).endings == {".txt": len(NAMES)}
    for file in files:
        data, state = read_bytes(shard / file.name)
        assert data == file.read_bytes()
        assert state == state_of(shard / file.name) == (len(data), *state_of(shard)[1:])


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_names_in_other_scripts_are_kept(files: list[Path], tmp_path: Path, form: int) -> None:
    names = [f"{'deep/' * 40}a.png", "Motörhead/日本.png", "x" * 150 + ".png"]
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as archive:
        for name in names:
            archive.add(files[0], name)
    assert sorted(listed(tmp_path / "a.tar")) == sorted(f"a.tar/{name}" for name in names)
    assert all(read_bytes(tmp_path / "a.tar" / name)[0] == files[0].read_bytes() for name in names)


@pytest.mark.parametrize("write", [write_hub, write_bytes])
def test_the_rows_of_a_parquet_file_are_its_images(files: list[Path], tmp_path: Path, write: object) -> None:
    assert callable(write)
    table = write(tmp_path / "in" / "part-0.parquet", files)
    assert listed(tmp_path / "in") == [f"in/part-0.parquet#{row}" for row in range(len(files))]
    for row in (3, 7, 0, 6, 1):  # in any order
        data, state = read_bytes(Path(f"{table}#{row}"))
        assert data == files[row].read_bytes()
        assert state == (len(data), *state_of(table)[1:])
        assert state_of(f"{table}#{row}") == (-1, *state[1:])


def test_a_saved_dataset_is_its_arrow_files(files: list[Path], tmp_path: Path) -> None:
    saved = save_to_disk(tmp_path / "saved", files)
    (saved / "cache-1234.arrow").write_bytes((saved / "data-00000-of-00002.arrow").read_bytes())
    found = find_images([saved]).names
    assert [read_bytes(Path(name))[0] for name in found] == [file.read_bytes() for file in files]
    assert found[5] == str(saved / "data-00001-of-00002.arrow#1")


def test_an_arrow_file_of_random_access_is_read_too(files: list[Path], tmp_path: Path) -> None:
    structs = image_structs(files)
    with pa.ipc.new_file(tmp_path / "a.arrow", structs.schema) as writer:
        writer.write_table(structs, max_chunksize=3)
    assert read_bytes(tmp_path / "a.arrow#4")[0] == files[4].read_bytes()


def test_rows_come_in_the_order_of_their_numbers(files: list[Path], tmp_path: Path) -> None:
    write_bytes(tmp_path / "in" / "a.parquet", files * 2)
    assert [int(name.rpartition("#")[2]) for name in listed(tmp_path / "in")] == list(range(16))


def test_a_group_of_rows_is_decoded_in_small_parts(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "KEPT_BYTES", 2000)  # a few of these images
    pq.write_table(image_structs(files), tmp_path / "a.parquet")
    for row in (0, 5, 2, 7, 0):
        assert read_bytes(tmp_path / f"a.parquet#{row}")[0] == files[row].read_bytes()


def test_a_table_of_names_counts_as_a_source_of_its_own(files: list[Path], tmp_path: Path) -> None:
    names = ["files/000.png", str(files[1]), files[2].as_uri()]
    table = write_names(tmp_path / "list.parquet", names)
    assert listed(table) == [f"list.parquet#{row}" for row in range(3)]
    assert [read_bytes(Path(f"{table}#{row}"))[0] for row in range(3)] == [file.read_bytes() for file in files[:3]]
    assert state_of(f"{table}#1") == state_of(files[1])
    in_folder = find_images([tmp_path])
    assert list(in_folder.files) == files
    assert in_folder.endings == {".parquet": 1}


@pytest.mark.parametrize(
    ("uri", "reason", "word"),
    [
        ("../secret.png", "bad_name", "leads out of"),
        ("files/../../secret.png", "bad_name", "leads out of"),
        ("/etc/secret.png", "bad_name", "does not lie below"),
        ("file:///etc/secret.png", "bad_name", "does not lie below"),
        ("https://example.org/a.png", "unsupported", "nothing is fetched"),
        ("s3://bucket/a.png", "unsupported", "nothing is fetched"),
        ("files/none.png", "vanished", "does not exist"),
    ],
)
def test_a_table_names_only_files_below_its_folder(
    files: list[Path], tmp_path: Path, uri: str, reason: str, word: str
) -> None:
    table = write_names(tmp_path / "list.parquet", [uri])
    with pytest.raises(ImageError, match=word) as caught:
        read_bytes(Path(f"{table}#0"))
    assert caught.value.reason == reason


def test_links_and_names_that_lead_out_are_refused_by_name(files: list[Path], tmp_path: Path) -> None:
    data = files[0].read_bytes()
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add_bytes(archive, "good.png", data)
        add_bytes(archive, "../up.png", data)
        add_bytes(archive, "/abs.png", data)
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        add_bytes(archive, "./also.png", data)
    assert listed(tmp_path / "a.tar") == ["a.tar", "a.tar/also.png", "a.tar/good.png"]
    with pytest.raises(ImageError, match=r"'\.\./up\.png'.*'/abs\.png'.*'link\.png', which is a link"):
        read_bytes(tmp_path / "a.tar")
    for name in ("../up.png", "link.png"):
        with pytest.raises(ImageError):
            read_bytes(Path(f"{tmp_path}/a.tar/{name}"))
    assert is_there(tmp_path / "a.tar" / "good.png")


def test_a_damaged_header_hides_one_member_and_is_told(files: list[Path], tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "a.tar", files, tarfile.USTAR_FORMAT)
    with tarfile.open(shard) as archive:
        offset = archive.getmember("003.png").offset
    damaged = bytearray(shard.read_bytes())
    damaged[offset : offset + 512] = b"\xaa" * 512
    shard.write_bytes(damaged)
    listing = find_images([shard])
    assert [Path(name).name for name in listing.names] == ["a.tar", *(name for name in NAMES if name != "003.png")]
    assert listing.unreadable == (shard,)
    with pytest.raises(ImageError, match=rf"damaged: the header at byte {offset} after '002\.txt'"):
        read_bytes(shard)
    assert read_bytes(shard / "004.png")[0] == files[4].read_bytes()


def test_a_cut_tar_keeps_its_whole_members(files: list[Path], tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "a.tar", files)
    with tarfile.open(shard) as archive:
        os.truncate(shard, archive.getmember("006.png").offset_data + 100)
    assert listed(shard) == ["a.tar", *(f"a.tar/{name}" for name in NAMES[:7])]
    with pytest.raises(ImageError, match=r"is cut: it has no end, and the last member is '006.png'"):
        read_bytes(shard)
    with pytest.raises(ImageError, match=r"006\.png: is cut: the tar .*a\.tar ends") as caught:
        read_bytes(shard / "006.png")
    assert caught.value.reason == "truncated"


def test_tars_one_behind_the_other_are_one(files: list[Path], tmp_path: Path) -> None:
    parts = [write_tar(tmp_path / f"{number}.tar", files[4 * number : 4 * number + 4]) for number in range(2)]
    (tmp_path / "both.tar").write_bytes(b"".join(part.read_bytes() for part in parts))
    assert listed(tmp_path / "both.tar") == [f"both.tar/{name}" for name in NAMES]


def test_a_file_that_is_no_tar_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"something else" * 100)
    assert listed(tmp_path / "a.tar") == ["a.tar"]
    with pytest.raises(ImageError, match="damaged"):
        read_bytes(tmp_path / "a.tar")


def test_a_member_too_large_is_refused_before_it_is_read(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tarfile.TarInfo("bomb.png")
    info.size = 2**40
    (tmp_path / "a.tar").write_bytes(info.tobuf() + bytes(10 * 512))
    write_bytes(tmp_path / "a.parquet", files)
    with pytest.raises(ImageError, match="1099511627776 bytes") as caught:
        read_bytes(tmp_path / "a.tar" / "bomb.png")
    assert caught.value.reason == "too_large"
    monkeypatch.setattr("retrieval.images.file_bytes._MAX_FILE_BYTES", 100)
    with pytest.raises(ImageError, match="is a value of"):
        read_bytes(tmp_path / "a.parquet#0")


def test_a_damaged_page_spoils_its_group_of_rows_alone(files: list[Path], tmp_path: Path) -> None:
    table = write_bytes(tmp_path / "a.parquet", files)
    column = pq.ParquetFile(table).metadata.row_group(1).column(1)
    flip_bit(table, 8 * (column.data_page_offset + column.total_compressed_size // 2))
    assert len(listed(table)) == len(files)
    for row in (0, 2, 6, 7):
        assert read_bytes(Path(f"{table}#{row}"))[0] == files[row].read_bytes()
    with pytest.raises(ImageError, match=r"a\.parquet#4: can't be decoded from the table"):
        read_bytes(Path(f"{table}#4"))


def test_a_cut_dataset_keeps_its_whole_batches(files: list[Path], tmp_path: Path) -> None:
    table = save_to_disk(tmp_path / "saved", files, 1) / "data-00000-of-00001.arrow"
    os.truncate(table, table.stat().st_size * 3 // 5)
    listing = find_images([table])
    assert listing.unreadable == (table,)
    assert listing.names == (str(table), *(f"{table}#{row}" for row in range(3)))
    with pytest.raises(ImageError, match="damaged after row 2"):
        read_bytes(table)


def test_a_cut_parquet_file_is_told(files: list[Path], tmp_path: Path) -> None:
    table = write_hub(tmp_path / "a.parquet", files)
    os.truncate(table, table.stat().st_size // 2)
    assert listed(table) == ["a.parquet"]
    with pytest.raises(ImageError, match="not a whole table"):
        read_bytes(table)


def test_other_tables_are_passed_over_in_folders_and_refused_as_sources(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1], "b": ["x"]}), tmp_path / "numbers.parquet")
    paint(tmp_path, ["a.png"])
    listing = find_images([tmp_path])
    assert listing.names == (str(tmp_path / "a.png"),)
    assert listing.endings == {".parquet": 1}
    with pytest.raises(UsageError, match=r"no column of images; its columns: a, b"):
        find_images([tmp_path / "numbers.parquet"])
    (tmp_path / "a.tar.gz").touch()
    with pytest.raises(UsageError, match="compressed archive"):
        find_images([tmp_path / "a.tar.gz"])


def test_a_row_without_an_image_is_an_empty_one(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": pa.array([None, b""], pa.binary())}), tmp_path / "a.parquet")
    for row in range(2):
        with pytest.raises(ImageError) as caught:
            read_image(tmp_path / f"a.parquet#{row}", DecodeRules())
        assert caught.value.reason == "empty"
    with pytest.raises(ImageError) as caught:
        read_bytes(tmp_path / "a.parquet#2")
    assert caught.value.reason == "vanished"


def test_a_shard_that_changed_is_opened_again(files: list[Path], tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "a.tar", files[:2])
    before = state_of(shard / "000.png")
    with tarfile.open(shard, "a") as archive:
        archive.add(files[5], "new.png")
    os.utime(shard, ns=(1, 1))
    assert state_of(shard / "000.png") != before
    assert read_bytes(shard / "new.png")[0] == files[5].read_bytes()
    shard.unlink()
    assert state_of(shard / "000.png") == (-1, -1, -1)
    assert not is_there(shard / "000.png")


def test_ordinary_paths_name_no_member() -> None:
    for path in ("a.png", "x.tar", ".tar/a", "a.parquet", "a.parquet#", "a.parquet#x", "b/a#1", "x.tar.gz/a"):
        assert member_of(path) is None, path


def test_a_fifo_with_the_name_of_a_shard_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(ImageError):
        read_bytes(tmp_path / "a.tar" / "b.png")
    with pytest.raises(ImageError):
        read_bytes(tmp_path / "a.tar")


def test_a_page_shows_an_image_in_a_shard_and_links_to_the_shard(files: list[Path], tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "a.tar", files[:1])
    page = html_page([SheetRow("style", SheetCell(files[1], "query"), [SheetCell(shard / "000.png", "found")])])
    assert f'href="{shard.as_uri()}"' in page
    assert "not found" not in page
