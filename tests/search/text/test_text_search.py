"""Texts as questions: alone they rank by vectors, beside an image they choose its candidates; end to end."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from index_store.reader import IndexReader
from retrieval import Engine, EngineSettings, Filter, Query, build_index
from retrieval.errors import ModelError, UsageError
from retrieval.settings import BuildSettings
from tests.slices import loads_model_libraries
from tests.support.commands import failed, run_here
from tests.support.hub.cache import online_hub
from tests.support.hub.text_models import write_text_model
from tests.support.sample_index import paint

pytestmark = loads_model_libraries

CPU, TEXT = EngineSettings(device="cpu"), "a red bicycle"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images, and an index whose second encoder is a tiny SigLIP."""
    folder = tmp_path_factory.mktemp("texts")
    paint(folder / "photos", range(12))
    write_text_model(folder / "words", "siglip")
    encoders = {"descriptor": None, f"hf:{folder}/words": None}
    run = BuildSettings(device="cpu", workers=1)
    build_index(folder / "photos", folder / "p.diffsim", model="cells", modes=["style"], encoders=encoders, run=run)
    return folder


@pytest.fixture(scope="module")
def engine(home: Path) -> Engine:
    return Engine.open(home / "p.diffsim", CPU)


@pytest.fixture(scope="module")
def by_text(home: Path) -> list[str]:
    """All paths, the nearest to the text first, computed from the stored vectors."""
    from tests.models.vit.test_text import load

    reader = IndexReader(home / "p.diffsim")
    [name] = [name for name in reader.generation.encoders if name.startswith("hf:")]
    cosines = reader.vectors(name) @ load(home / "words").embed([TEXT])[0]
    return [reader.uris()[row] for row in np.argsort(-cosines)]


def test_a_text_alone_ranks_by_the_encoder_with_text(home: Path, by_text: list[str]) -> None:
    engine = Engine.open(home / "p.diffsim", CPU)
    found = engine.search(Query(texts=[TEXT]), k=5)
    assert [result.path for result in found] == by_text[:5]
    assert found.is_coarse
    assert found.query == {"path": None, "texts": [TEXT]}
    assert [note.kind for note in found.notes] == ["text_alone"]
    assert found[0].coarse_score is not None
    least = found[2].coarse_score
    assert len(engine.search(Query(texts=[TEXT]), k=5, min_score=least)) == 3
    assert engine._loaded is None  # no model for images was loaded


def test_a_text_narrows_what_an_image_finds(engine: Engine, by_text: list[str]) -> None:
    every = engine.search(by_text[0], "style", k=12)
    found = engine.search(Query(by_text[:1], texts=[TEXT]), "style", k=4, text_share=0.5)
    assert [result.path for result in found] == [each.path for each in every if each.path in by_text[:6]][:4]
    scores = {result.path: result.score for result in every}
    assert [result.score for result in found] == [scores[result.path] for result in found]
    assert found.notes[0].facts == {"images": 6}
    assert found.query["texts"] == [TEXT]
    fewest = engine.search(Query(by_text[:1], texts=[TEXT]), "style", k=4, text_share=0.01)
    assert {result.path for result in fewest} == set(by_text[:4])  # as many as are asked for


def test_filters_and_mixed_questions(engine: Engine, by_text: list[str]) -> None:
    where = Filter(glob=by_text[::2])
    questions = [Query(texts=[TEXT]), Query(by_text[:1]), Query(by_text[:1], texts=[TEXT]), Query(texts=["x", TEXT])]
    answers = [found for _, found in engine.search_many(questions, "style", where=where, k=3, text_share=0.5)]
    assert [result.path for result in answers[0]] == by_text[:6:2]
    assert all(result.path in by_text[::2] for found in answers for result in found)
    assert {result.path for result in answers[2]} == set(by_text[:6:2])
    assert [found.is_coarse for found in answers] == [True, False, False, True]


def test_what_makes_no_sense_is_refused(engine: Engine, by_text: list[str]) -> None:
    with pytest.raises(UsageError, match="a text of a question is empty"):
        Query(texts=[" "])
    with pytest.raises(UsageError, match="needs one image at least"):
        Query(minus=by_text[:1], texts=[TEXT])
    with pytest.raises(UsageError, match="text share must be above 0"):
        engine.search(Query(texts=[TEXT]), text_share=0)


def test_the_command(home: Path, by_text: list[str], tmp_path: Path) -> None:
    asked = ("diffsim-search", "-i", home / "p.diffsim", "-k", "3", f"text:{TEXT}")
    shown = run_here(*asked, "--sheet", "s.png", "--sheet", "s.html", cwd=tmp_path)
    assert "AAS has no text: hf:words alone ranked these" in shown.stderr.decode()
    assert "coarse" in shown.stdout.decode().splitlines()[0]
    assert (tmp_path / "s.png").stat().st_size > 0
    found = json.loads(run_here(*asked, by_text[3], "--text-share", "0.5", "--json", cwd=tmp_path).stdout)
    assert {result["path"] for result in found["results"]} <= set(by_text[:6])
    assert all(result["score"] is not None for result in found["results"])
    several = json.loads(run_here(*asked, "text:x", "--json", cwd=tmp_path).stdout)
    assert [each["query"]["texts"] for each in several] == [[TEXT], ["x"]]
    (tmp_path / "list.txt").write_text(f"text:{TEXT}\nid:3\n")
    listed = run_here(*asked[:5], "--queries", "list.txt", "--jsonl", cwd=tmp_path).stdout.splitlines()
    assert [json.loads(line)["query"] for line in listed[::3]] == [f"text:{TEXT}", str(home / "photos/003.png")]
    every = run_here(*asked, "--all", cwd=tmp_path).stdout.splitlines()
    assert len(every) == 12
    assert all(json.loads(line)["query"]["texts"] == [TEXT] for line in every)
    assert "which has no text: name an image" in failed(run_here(*asked, "--explain", "e.png", cwd=tmp_path), 2)


def test_an_index_without_text_says_what_to_add(index: Path, tmp_path: Path) -> None:
    message = failed(run_here("diffsim-search", "-i", index, "text:cat", cwd=tmp_path), 2)
    assert "AAS compares images alone. Encoders with text are clip and siglip2" in message
    assert "diffsim-index build " in message
    assert f"--encoders clip --index {index}" in message


def test_without_its_tokenizer_a_text_is_a_clear_error(home: Path, by_text: list[str], tmp_path: Path) -> None:
    moved = tmp_path / "words"
    shutil.copytree(home / "words", moved)
    (moved / "tokenizer.json").unlink()
    [name] = [name for name in IndexReader(home / "p.diffsim").generation.encoders if name.startswith("hf:")]
    engine = Engine.open(home / "p.diffsim", EngineSettings(device="cpu", encoders={name: str(moved)}))
    with pytest.raises(ModelError, match=r"tokenizer\.json missing"):
        engine.search(Query(texts=[TEXT]))
    assert len(engine.search(by_text[0], k=3)) == 3


def test_the_tokenizer_of_the_index_s_commit_is_downloaded_by_the_first_text(
    home: Path, by_text: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo, commit = "someone/siglip-tiny", "a" * 40
    served = {(repo, commit): {path.name: path.read_bytes() for path in (home / "words").iterdir()}}
    with online_hub(served, tmp_path / "hub", monkeypatch) as hub:
        hub.branches[repo, "main"] = commit
        encoders, run = {f"hf:{repo}": None}, BuildSettings(device="cpu", workers=1)
        build_index(home / "photos", tmp_path / "i.diffsim", model="cells", modes=["style"], encoders=encoders, run=run)
        offline = Engine.open(tmp_path / "i.diffsim", EngineSettings(device="cpu", offline=True))
        with pytest.raises(ModelError, match=rf"missing at revision {commit}: tokenizer\.json") as raised:
            offline.search(Query(texts=[TEXT]))
        assert raised.value.advice == "get-weights"
        hub.branches[repo, "main"] = "b" * 40  # the index keeps its commit
        found = Engine.open(tmp_path / "i.diffsim", CPU).search(Query(texts=[TEXT]), k=12)
        assert [result.path for result in found] == by_text
        assert [result.path for result in offline.search(Query(texts=[TEXT]), k=12)] == by_text
