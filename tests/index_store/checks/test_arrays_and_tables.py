"""npy, npz, Parquet and IVF bytes from elsewhere: no pickles, no bombs, no reading past the end."""

import io
import random
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from index_store.catalog_files.rows import ITEM_SCHEMA, read_table, write_rows
from index_store.checks import tables
from index_store.checks.arrays import decode_array, decode_arrays
from index_store.checks.ivf_file import read_ivf_file
from index_store.checks.tables import decode_table
from index_store.errors import IndexCorruptError
from index_store.vectors.flat import import_faiss
from tests.index_store.small_index import item


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def npz(compression: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "array", [np.arange(6.0).reshape(2, 3), np.asfortranarray(np.ones((3, 4), np.float16)), np.int8(3)]
)
def test_arrays_are_read_as_numpy_reads_them(array: np.ndarray) -> None:
    found = decode_array(npy(array))
    np.testing.assert_array_equal(found, np.load(io.BytesIO(npy(array))))
    assert found.flags.writeable
    np.testing.assert_array_equal(decode_arrays(npz(a=npy(array)))["a"], found)


HUGE = npy(np.zeros((2, 3), np.float16)).replace(b"(2, 3)", b"(2000000000, 3)".ljust(6))
BAD_ARRAYS = {
    "objects": npy(np.array(["x", 1], dtype=object)),
    "a record": npy(np.zeros(2, [("a", "f4")])),
    "text": npy(np.array(["abc"])),
    "a huge shape": HUGE,
    "a short file": npy(np.zeros(9))[:-1],
    "a long file": npy(np.zeros(9)) + b"x",
    "nothing": b"",
    "another version": b"\x93NUMPY\x09\x00" + bytes(100),
    "a header that does not end": b"\x93NUMPY\x01\x00\x76\x00" + b"(" * 0x76,
    "a negative size": npy(np.zeros((2, 3), np.float16)).replace(b"(2, 3)", b"(-2,-3)"[:6]),
}


@pytest.mark.parametrize("data", BAD_ARRAYS.values(), ids=BAD_ARRAYS.keys())
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        decode_array(data)
    with pytest.raises(ValueError, match=r"\w"):
        decode_arrays(npz(a=data))


def test_a_compressed_member_is_refused() -> None:
    bomb = npz(zipfile.ZIP_DEFLATED, a=npy(np.zeros(1 << 20)))
    assert len(bomb) < 1 << 14
    with pytest.raises(ValueError, match="larger than the file"):
        decode_arrays(bomb)


def parquet(columns: dict[str, pa.Array], **options: object) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, schema=ITEM_SCHEMA), buffer, **options)
    return buffer.getvalue()


def columns(rows: int, uri: str = "/a.png") -> dict[str, pa.Array]:
    numbers = pa.array(range(rows))
    small = pa.array([1] * rows, pa.int32())
    paths, digests = pa.array([uri] * rows), pa.array(["0" * 64] * rows)
    values = [numbers, small, paths, numbers, numbers, numbers, digests, small, small]
    return dict(zip(ITEM_SCHEMA.names, values, strict=True))


@pytest.mark.thorough
def test_a_table_that_repeats_a_long_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """One text of 100 kB in every row: 100 kB on disk, 400 MB in memory."""
    data = parquet(columns(4000, "/" + "a" * 100_000))
    monkeypatch.setattr(tables, "PLAIN_BYTES", 1 << 26)
    assert len(data) < 1 << 18
    with pytest.raises(ValueError, match="repeats so long texts"):
        decode_table(data, [ITEM_SCHEMA], 4000)


def test_a_repeated_text_of_usual_length_is_read_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    data = parquet(columns(50))
    plain = decode_table(data, [ITEM_SCHEMA], 50)
    monkeypatch.setattr(tables, "PLAIN_BYTES", 1)
    assert decode_table(data, [ITEM_SCHEMA], 50).equals(plain)


def test_other_packing_nulls_and_other_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="packed in another way"):
        decode_table(parquet(columns(50), compression="zstd"), [ITEM_SCHEMA])
    with pytest.raises(ValueError, match="without a value"):
        decode_table(parquet({**columns(2), "path": pa.array(["a", None])}), [ITEM_SCHEMA])
    with pytest.raises(ValueError, match="50 rows instead of 49"):
        decode_table(parquet(columns(50)), [ITEM_SCHEMA], 49)


def test_changed_bytes_of_a_table_are_errors_or_a_table(tmp_path: Path) -> None:
    path, rng = tmp_path / "items.parquet", random.Random(0)
    write_rows(path, [item(number) for number in range(40)], ITEM_SCHEMA)
    data, refused = path.read_bytes(), 0
    for _ in range(300):
        changed = bytearray(data)
        for _ in range(rng.choice((1, 4))):
            changed[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(changed)
        try:
            read_table(path, ITEM_SCHEMA).to_pylist()
        except IndexCorruptError:
            refused += 1
    assert refused > 100


@pytest.fixture(scope="module")
def ivf(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    faiss = import_faiss()
    vectors = np.random.default_rng(0).standard_normal((60, 8)).astype(np.float32)
    index = faiss.IndexIVFScalarQuantizer(faiss.IndexFlatIP(8), 8, 4, faiss.ScalarQuantizer.QT_8bit, 0, False)
    index.train(vectors)
    index.add_with_ids(vectors, np.arange(60) * 3)
    path = tmp_path_factory.mktemp("ivf") / "e.faiss"
    faiss.write_index(index, str(path))
    return path.read_bytes()


def test_the_ids_of_an_ivf_file_are_read(ivf: bytes) -> None:
    found = read_ivf_file(io.BytesIO(ivf), len(ivf), 60, 4)
    assert (found.dim, found.lists, sorted(found.ids)) == (8, 4, list(range(0, 180, 3)))


def test_every_number_that_faiss_trusts_is_checked(ivf: bytes) -> None:
    """All bytes but those of vectors, ids and centroids: the header is 33 bytes, and so on; any change is an error."""
    start = ivf.index(b"ilar")
    fields = [*range(80), *range(start, start + 60)]
    centroids = range(ivf.index(b"IxFI") + 45, ivf.index(b"IxFI") + 45 + 4 * 8 * 4)
    bounds = range(start - 9 - 4 * 2 * 8, start - 9)
    # nprobe, which every search sets, is the one number that may be anything.
    probes = range(4 + 33 + 8, 4 + 33 + 16)
    fields += [*range(centroids.stop, centroids.stop + 13), *range(centroids.stop + 21, bounds.start)]
    fields += range(bounds.stop, start)
    for at in (at for at in fields if at not in centroids and at not in probes):
        for bit in (0, 7):
            changed = bytearray(ivf)
            changed[at] ^= 1 << bit
            with pytest.raises(ValueError, match=r"\w"):
                read_ivf_file(io.BytesIO(changed), len(ivf), 60, 4)


@pytest.mark.parametrize("place", ["centroid", "bound"])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(ivf: bytes, place: str, wrong: float) -> None:
    at = ivf.index(b"IxFI") + 45 if place == "centroid" else ivf.index(b"ilar") - 9 - 4
    changed = ivf[:at] + np.array(wrong, "<f4").tobytes() + ivf[at + 4 :]
    with pytest.raises(ValueError, match=f"a {place} is not finite"):
        read_ivf_file(io.BytesIO(changed), len(ivf), 60, 4)


@pytest.mark.parametrize("length", [0, 3, 36, 100, -1])
def test_a_cut_ivf_file_is_refused(ivf: bytes, length: int) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read_ivf_file(io.BytesIO(ivf[:length]), len(ivf[:length]), 60, 4)
    with pytest.raises(ValueError, match="goes on"):
        read_ivf_file(io.BytesIO(ivf + b"x"), len(ivf) + 1, 60, 4)
