"""The installed commands, as a user runs them."""

import json
import re
import shutil
from functools import partial
from pathlib import Path

import pytest

from retrieval import Engine
from retrieval.sample_images.pictures import MOTIFS, STYLES
from tests.support.commands import failed, query_of, run, run_here
from tests.support.ranking import assert_same_ranking


@pytest.fixture(scope="module")
def desk(index: Path, gallery: Path) -> Path:
    """A working directory that holds one index."""
    return index.parent


def test_an_index_is_built_searched_and_described(gallery: Path, tmp_path: Path) -> None:
    """The installed commands in processes of their own, with the streams and the model that a user has."""
    (tmp_path / "pictures").mkdir()
    for style in STYLES[:4]:
        (tmp_path / "pictures" / style).symlink_to(gallery / style)
    built = run("diffsim-index", "build", "pictures", "--segment-rows", "16", cwd=tmp_path)
    assert built.returncode == 0, built.stderr
    first = r"pictures\.diffsim: 32 images in \d+ s, \d\.\d MB; search it with: diffsim-search PICTURE --mode style\n"
    assert re.fullmatch(first, built.stdout.decode())
    slow = ("preparing", "indexing: ", "scoring random pairs", "searching")  # a busy machine also says how far it is
    (note,) = [line for line in built.stderr.decode().splitlines() if not line.startswith(slow)]
    assert note.startswith("note: model mini, ")
    assert note.endswith("; choose another with --model")
    again = run_here("diffsim-index", "build", "pictures", "--json", cwd=tmp_path)
    assert json.loads(again.stdout)["unchanged"] == 32
    assert json.loads(again.stdout)["added"] == 0

    query = query_of(gallery).read_bytes()
    found = run("diffsim-search", "-", "-m", "instance", "-k", "3", cwd=tmp_path, stdin=query)
    assert found.returncode == 0, found.stderr
    assert all(line.startswith(slow) for line in found.stderr.decode().splitlines()), found.stderr
    lines = found.stdout.decode().splitlines()
    assert lines[0].split() == ["rank", "score", "percentile", "path"]
    assert lines[1].split()[3] == f"pictures/{STYLES[0]}/{MOTIFS[0]}.png"
    assert len(lines) == 4

    about = run_here("diffsim-index", "info", cwd=tmp_path).stdout.decode()
    assert "32 images, model mini" in about
    assert "kB per image" in about


def test_every_form_of_output_is_the_same_answer(desk: Path, gallery: Path) -> None:
    query = query_of(gallery, 1, 3)
    outputs = {
        form: run_here("diffsim-search", query, "-k", "5", *form.split(), cwd=desk)
        for form in ("--json", "--jsonl", "--paths", "-0", "--paths -0")
    }
    assert all(result.returncode == 0 for result in outputs.values())
    whole = json.loads(outputs["--json"].stdout)
    assert whole["schema"] == 1
    paths = [result["path"] for result in whole["results"]]
    assert [json.loads(line)["path"] for line in outputs["--jsonl"].stdout.splitlines()] == paths
    assert outputs["--paths"].stdout.decode().splitlines() == paths
    assert outputs["-0"].stdout == outputs["--paths -0"].stdout == b"".join(p.encode() + b"\0" for p in paths)
    assert "choose one of" in failed(run_here("diffsim-search", query, "--json", "--paths", cwd=desk), 2)


def test_queries_from_stdin_and_from_the_index(desk: Path, gallery: Path) -> None:
    query = query_of(gallery, 2, 2)
    by_path = run_here("diffsim-search", query, "--jsonl", cwd=desk)
    assert run_here("diffsim-search", "-", "--jsonl", cwd=desk, stdin=query.read_bytes()).stdout == by_path.stdout
    number = json.loads(by_path.stdout.splitlines()[0])["id"]
    assert run_here("diffsim-search", f"id:{number}", "--jsonl", cwd=desk).stdout == by_path.stdout
    assert "the query" in failed(run_here("diffsim-search", "-", cwd=desk), 1)


def test_several_queries_at_once(desk: Path, gallery: Path, index: Path, tmp_path: Path) -> None:
    queries, broken, sheet = [query_of(gallery), query_of(gallery, 1, 3)], tmp_path / "broken.png", tmp_path / "s.html"
    broken.write_bytes(b"no image")
    engine = Engine.open(index)
    alone = [engine.search(query, k=3).results for query in queries]
    asked = ("diffsim-search", queries[0], broken, "nothing.png", queries[1], "-k", "3")
    result = run_here(*asked, "--json", "--sheet", sheet, cwd=desk)
    answers = json.loads(result.stdout)
    for each, expected in zip((answers[0], answers[3]), alone, strict=True):
        assert_same_ranking([(found["id"], found["score"]) for found in each["results"]], expected)
    assert [(each["query"]["path"], each["kind"]) for each in answers[1:3]] == [
        (str(broken), "image"),
        ("nothing.png", "usage"),
    ]
    assert "no such file" in answers[2]["error"]
    assert answers[0]["timing_ms"]["total"] >= answers[0]["timing_ms"]["embed"] > 0
    assert result.returncode == 1
    assert "broken.png" in result.stderr.decode()
    assert "may be given once" in failed(run_here("diffsim-search", "-", "-", cwd=desk), 2)
    assert sheet.read_text().count("<img") == 8
    lines = [json.loads(line) for line in run_here(*asked, "--jsonl", cwd=desk).stdout.splitlines()]
    assert {(line["schema"], line["mode"]) for line in lines} == {(1, "style")}
    shown = [(each["query"]["path"], found["path"]) for each in (answers[0], answers[3]) for found in each["results"]]
    assert [(line["query"], line["path"]) for line in lines] == shown
    assert [query for query, _ in shown] == [str(query) for query in queries for _ in range(3)]
    paths = run_here(*asked, "--paths", cwd=desk).stdout.decode().splitlines()
    assert paths == list(dict.fromkeys(path for _, path in shown))


def test_sheets_are_drawn(desk: Path, gallery: Path, tmp_path: Path) -> None:
    from PIL import Image

    sheets = [word for name in ("results.png", "results.html") for word in ("--sheet", tmp_path / name)]
    drawn = run_here("diffsim-search", query_of(gallery), "-k", "4", *sheets, cwd=desk)
    assert drawn.returncode == 0, drawn.stderr
    with Image.open(tmp_path / "results.png") as image:
        assert image.width > 600
    assert (tmp_path / "results.html").read_text().count("<img") == 5
    assert ".png" in failed(run_here("diffsim-search", query_of(gallery), "--sheet", "results.gif", cwd=desk), 2)
    (tmp_path / "file").touch()
    below = run_here("diffsim-search", query_of(gallery), "--sheet", tmp_path / "file" / "results.png", cwd=desk)
    assert "is not a folder" in failed(below, 1)


def test_semantic_mode_of_cells_warns_in_one_line(desk: Path, gallery: Path) -> None:
    result = run_here("diffsim-search", query_of(gallery), "-m", "semantic", cwd=desk)
    assert [line for line in result.stderr.decode().splitlines() if "not meaning" in line] != []
    assert len(result.stderr.splitlines()) == 1


def test_which_index_is_meant(gallery: Path, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    query = query_of(gallery)
    assert "no index in" in failed(run_here("diffsim-search", query, cwd=tmp_path), 3)
    assert "does not exist" in failed(run_here("diffsim-search", query, "-i", "x.diffsim", cwd=tmp_path), 3)
    with monkeypatch.context() as shell:
        shell.setenv("DIFFSIM_INDEX", str(index))
        assert run_here("diffsim-search", query, cwd=tmp_path).returncode == 0
    for name in ("a", "b"):
        (tmp_path / f"{name}.diffsim" / "generations").mkdir(parents=True)
    message = failed(run_here("diffsim-search", query, cwd=tmp_path), 3)
    assert "a.diffsim, b.diffsim" in message


def test_bad_requests_end_in_one_sentence(desk: Path, gallery: Path, index: Path, tmp_path: Path) -> None:
    query = query_of(gallery)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("text")
    build = ("diffsim-index", "build")
    assert "does not exist" in failed(run_here(*build, "missing", cwd=tmp_path), 2)
    assert "no images in empty" in failed(run_here(*build, "empty", cwd=tmp_path), 2)
    assert "1 file with other names" in failed(run_here(*build, "notes", cwd=tmp_path), 2)
    assert not list(tmp_path.glob("*.diffsim"))
    assert "style, instance, semantic" in failed(
        run_here(*build, gallery, "--modes", "stile", "-i", "n.diffsim", cwd=tmp_path), 2
    )
    assert "auto, sd15, mini, cells" in failed(
        run_here(*build, gallery, "--model", "sd3", "-i", "n.diffsim", cwd=tmp_path), 2
    )
    assert "unknown mode 'stile'" in failed(run_here("diffsim-search", query, "-m", "stile", cwd=desk), 2)
    lowlevel = failed(run_here("diffsim-search", query, "-m", "lowlevel", cwd=desk), 2)
    assert lowlevel.partition("models with it: ")[2].split(", ")[0] == "sd15"
    assert "no such file" in failed(run_here("diffsim-search", "nothing.jpg", cwd=desk), 2)
    message = failed(run_here(*build, gallery, "-i", index, "--image-size", "96", cwd=tmp_path), 3)
    assert "image_size: 144 in the index, 96 asked for" in message
    assert "--index" in message


def test_rejects_are_counted_listed_and_strict(gallery: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "good.png").write_bytes(query_of(gallery).read_bytes())
    (folder / "cut.png").write_bytes(query_of(gallery).read_bytes()[:900])
    (folder / "empty.jpg").touch()
    (folder / "Ünïcode ❤.jpg").write_text("this is no JPEG")
    result = run_here("diffsim-index", "build", "mixed", "--strict", cwd=tmp_path)
    assert result.returncode == 4
    assert (
        b"3 images rejected (1 empty, 1 not_an_image, 1 truncated); list the reasons with: diffsim-index info --rejects"
        in result.stderr
    )
    listed = run_here("diffsim-index", "info", "--rejects", cwd=tmp_path).stdout.decode().splitlines()
    assert sorted(line.split("\t")[0] for line in listed) == ["empty", "not_an_image", "truncated"]
    assert any("Ünïcode ❤.jpg" in line for line in listed)


@pytest.mark.parametrize(
    "damage", ["CURRENT", "generations/000002.json", "items/*/items.parquet", "attention/style/*.zarr/h/c/0/0/0/0"]
)
def test_the_error_for_a_damaged_index_names_the_file(damage: str, gallery: Path, index: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.diffsim"
    shutil.copytree(index, copy)
    (file,) = copy.glob(damage)
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2] + b"?" + data[len(data) // 2 + 1 : -3])
    message = failed(run_here("diffsim-search", query_of(gallery), cwd=tmp_path), 3)
    assert file.name in message


@pytest.mark.thorough
def test_a_lazy_index_is_searched_filled_and_given_a_mode(gallery: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").symlink_to(gallery)
    query = query_of(gallery)
    build = ("diffsim-index", "build", "pictures", "--modes", "style", "--attention", "lazy")
    built = run_here(*build, "-v", cwd=tmp_path)
    assert b"of 40 images, 0 for style have stored tensors; the rest are computed by a search" in built.stderr
    search = partial(run_here, "diffsim-search", query, "--candidates", "6", "-k", "3", cwd=tmp_path)
    first = json.loads(search("--json", "--max-cache", "1GB").stdout)
    assert (first["computed"], first["cached"], first["left_out"]) == (6, 0, 0)
    assert first["timing_ms"]["compute"] > 0
    error = failed(search("-m", "lowlevel"), 3)  # a mode of the same layer, whose tensors it shares
    assert "--modes lowlevel" in error
    added = run_here(*error[error.index("diffsim-index build") :].split(), "--json", cwd=tmp_path)
    assert json.loads(added.stdout)["coverage"] == {"style": 0, "lowlevel": 0}
    filled = run_here("diffsim-index", "fill", "--modes", "style", "--order", f"like:{query}", "--json", cwd=tmp_path)
    report = json.loads(filled.stdout)
    assert (report["adopted"], report["completed"], report["coverage"]) == (6, 34, {"style": 40, "lowlevel": 40})
    about = run_here("diffsim-index", "info", cwd=tmp_path).stdout.decode()
    assert "tensors shared with style" in about
    assert "lazy; cache of searches" in about
