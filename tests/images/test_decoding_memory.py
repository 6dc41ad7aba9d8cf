"""Threads that decode share a number of bytes: they wait for each other, and the estimates cover what is taken."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval.encoding.batches import DECODING_BYTES, Failure, decoding_memory, read_batches
from retrieval.errors import ImageError
from retrieval.images.decoding import DecodeRules, read_image
from retrieval.images.room import Memory
from tests.images.odd.encoded import saved
from tests.support.encoded_images import RULES, encode, noise, smooth, turned

SIDE = 3000
PIXELS = SIDE * SIDE


def test_threads_wait_until_there_is_room() -> None:
    memory, most, now = Memory(4000), [0], [0]
    lock = threading.Lock()

    def decode(amount: int) -> None:
        with memory.room() as room:
            room.take_file(amount // 4)
            room.take_pixels(amount, "x")
            with lock:
                now[0] += amount
                most[0] = max(most[0], now[0])
            time.sleep(0.002)
            with lock:
                now[0] -= amount

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(decode, [1000, 1500, 900, 2900, 10, 700] * 8))
    assert 2900 <= most[0] <= 3000
    assert memory.pixels.taken == memory.files.taken == 0


def test_a_large_file_waits_and_is_read_alone() -> None:
    memory = Memory(400)
    with memory.room() as first:
        first.take_file(1000)
        second = threading.Event()

        def read() -> None:
            with memory.room() as room:
                room.take_file(1)
                second.set()

        thread = threading.Thread(target=read)
        thread.start()
        assert not second.wait(0.05)
    assert second.wait(5)
    thread.join()


def test_a_picture_above_all_memory_is_refused_and_room_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode(noise(150, 150), "PNG"))
    memory = Memory(200_000)
    with pytest.raises(ImageError, match=r"takes about .* GB of memory to decode") as caught, memory.room() as room:
        read_image(path, RULES, room)
    assert caught.value.reason == "too_large"
    assert memory.pixels.taken == memory.files.taken == 0


def test_the_memory_is_bounded_by_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.encoding.batches.available_memory", lambda: 6 << 30)
    assert decoding_memory(8) == decoding_memory(256) == 3 << 30
    monkeypatch.setattr("retrieval.encoding.batches.available_memory", lambda: None)
    assert DECODING_BYTES < decoding_memory(1) < decoding_memory(8) == decoding_memory(256) == 5 << 30


def test_a_build_reads_every_image_with_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.encoding.batches.decoding_memory", lambda workers: 2_000_000)
    files = [tmp_path / f"{number}.png" for number in range(20)]
    for number, path in enumerate(files):
        path.write_bytes(encode(noise(150, 150 if number != 7 else 400), "PNG"))
    batches = list(read_batches(files, 4, 8, DecodeRules(), lambda image: {"x": np.asarray(image)}))
    outcomes = [outcome for batch in batches for outcome in batch.outcomes]
    failed = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, Failure)]
    assert failed == [7]


def _large() -> dict[str, bytes]:
    flat = Image.new("RGB", (SIDE, SIDE), (200, 40, 90))
    soft = smooth(SIDE, SIDE)
    return {
        "png-rgb": encode(flat, "PNG", compress_level=1),
        "png-rgba-turned": encode(flat.convert("RGBA"), "PNG", compress_level=1, exif=turned(6)),
        "png-grey16": encode(Image.new("I;16", (SIDE, SIDE), 700), "PNG", compress_level=1),
        "jpeg": encode(soft, "JPEG"),
        "jpeg-progressive-turned": encode(soft, "JPEG", progressive=True, exif=turned(6)),
        "webp": encode(flat, "WEBP", method=0),
        "tiff-lzw": encode(flat, "TIFF", compression="tiff_lzw"),
        "tiff-float": encode(Image.new("F", (SIDE, SIDE), 0.5), "TIFF"),
        "gif": encode(flat.convert("P"), "GIF"),
        "heic": saved(flat, "HEIC", quality=40),
    }


_PEAK = """
import sys
from pathlib import Path
from retrieval.images.decoding import DecodeRules, read_image
from retrieval.images.room import Memory
import numpy, PIL.ImageCms, pillow_heif
def peak():  # getrusage would count the parent of a fork
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])
memory = Memory(1 << 40)
with memory.room() as room:
    read_image(Path(sys.argv[1]), DecodeRules(), room)
    print(memory.pixels.taken + memory.files.taken, peak())
"""


_BUILD = """
import sys
from pathlib import Path
import retrieval.encoding.batches as batches
from retrieval import BuildSettings, build_index
limit, workers, photos, index = *map(int, sys.argv[1:3]), *map(Path, sys.argv[3:])
batches.decoding_memory = lambda workers: limit
run = BuildSettings(device="cpu", workers=workers, batch_size=32)
report = build_index(photos, index, model="cells", modes=["style"], run=run)
status = Path("/proc/self/status").read_text()
print(report.items, report.rejected, 1024 * int(status.split("VmHWM:")[1].split()[0]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc")
def test_the_peak_of_a_build_does_not_grow_with_its_threads(tmp_path: Path) -> None:
    photos, small, limit = tmp_path / "photos", tmp_path / "small", 400_000_000
    for folder, data in ((small, encode(noise(40, 40), "PNG")), (photos, _large()["png-rgb"])):
        folder.mkdir()
        for number in range(24):
            (folder / f"{number}.png").write_bytes(data + bytes([number]))  # no copies: each is decoded

    def peak(workers: int, source: Path) -> int:
        index = tmp_path / f"{source.name}-{workers}.diffsim"
        command = [sys.executable, "-W", "ignore", "-c", _BUILD, str(limit), str(workers), str(source), str(index)]
        items, rejected, bytes_taken = subprocess.run(command, capture_output=True, text=True).stdout.split()
        assert (items, rejected) == ("24", "{}")
        return int(bytes_taken)

    idle = peak(1, small)
    peaks = {workers: peak(workers, photos) - idle for workers in (1, 4, 16, 64)}
    print({workers: f"{taken / 1e6:.0f} MB" for workers, taken in peaks.items()}, f"of {limit / 1e6:.0f} MB")
    assert max(peaks.values()) < limit


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc")
def test_the_estimates_cover_what_decoders_take(tmp_path: Path) -> None:
    def run(name: str, data: bytes) -> tuple[int, int]:
        path = tmp_path / name
        path.write_bytes(data)
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", _PEAK, str(path)], capture_output=True, text=True)
        taken, peak = map(int, done.stdout.split())
        return taken, peak

    _, idle = run("small.png", encode(noise(4, 4), "PNG"))
    found = {}
    for name, data in _large().items():
        taken, peak = run(name, data)
        print(f"{name:26}{taken / PIXELS:6.1f} estimated, {(peak - idle) / PIXELS:6.1f} taken, bytes a pixel")
        found[name] = (peak - idle) / (taken * 1.05 + 2e6)
    assert {name for name, share in found.items() if share > 1} == set()
