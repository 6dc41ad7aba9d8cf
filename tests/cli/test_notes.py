"""Notes of a search name the option or command that helps, on the terminal and in JSON."""

import json
import shutil
from pathlib import Path

import pytest

from cli.output import note_sentences, print_results
from retrieval.indexing.build import build_index
from retrieval.search.engine import Engine
from retrieval.search.results import Note, Results
from retrieval.settings import BuildSettings, EngineSettings
from tests.support.sample_index import paint

LAZY = BuildSettings(device="cpu", workers=1, attention="lazy")


@pytest.mark.usefixtures("tiny")
def test_notes_of_a_lazy_index_say_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    query = paint(tmp_path / "photos", range(5))[3]
    index = tmp_path / "t.diffsim"
    build_index(tmp_path / "photos", index, model="cells", modes=["style"], run=LAZY)
    shutil.copy(query, tmp_path / "query.png")
    query.unlink()
    found = Engine.open(index, EngineSettings(device="cpu", max_cache=10)).search(tmp_path / "query.png")
    sentences = [
        "the style tensors of 4 candidates were not in the index and have been computed; compute those of all images "
        "beforehand with: diffsim-index fill",
        f"4 of them could not be kept in {index / 'cache'}, so the next search computes them again; the folder may "
        "not be writable, the disk may be full, or --max-cache may be too small",
        "1 candidates are left out: their style tensors are not in the index, and their files can't be read or have "
        "changed since; bring it up to date with: diffsim-index build SOURCE, or with --update",
    ]
    assert note_sentences(found) == sentences
    assert found.to_dict()["notes"] == [sentence.rpartition(";")[0] for sentence in sentences]
    print_results([(query, found)], "json")
    shown = json.loads(capsys.readouterr().out)
    assert shown["notes"] == sentences
    assert list(shown) == list(found.to_dict())


def test_a_note_without_advice_is_its_message() -> None:
    results = Results((), {}, "style", {}, {}, notes=(Note("model", "scores mean little"),))
    assert note_sentences(results) == ["scores mean little"]
