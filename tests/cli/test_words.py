"""Lines that commands print beside their results: progress without a terminal, hints to paste, refusals."""

import re
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from cli.output import naming
from cli.reports import print_build
from cli.terminal import progress as module
from cli.terminal.process import Speaker
from cli.terminal.progress import BuildProgress, ProgressBar
from cli.verify_command import print_damages
from index_store.errors import IndexStoreError
from index_store.locate import find_index, is_index
from retrieval.drawing.fonts import drawable, own_font
from retrieval.errors import UsageError
from retrieval.indexing.reports import BuildEvent, BuildReport
from retrieval.indexing.upkeep.repairing import repair
from retrieval.metrics.base import MetricSettings
from retrieval.progress import Progress
from retrieval.search.results import Result, Results
from retrieval.search.results_sheet import sheet_rows
from retrieval.settings import BuildSettings, ModelSettings, SearchSettings
from tests.support.faults import flip_bit
from tests.support.sample_index import RUN, paint
from tests.support.stub_models import tiny_model


def test_an_index_that_may_not_be_entered_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.diffsim").mkdir()

    def refused(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", refused)
    with pytest.raises(IndexStoreError, match=r"x\.diffsim may not be read by this user"):
        is_index(tmp_path / "x.diffsim")
    assert find_index(None, {}, tmp_path) == tmp_path / "x.diffsim", "it is the one that is meant"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (lambda: ModelSettings(image_size=0), "image size must be at least 1"),
        (lambda: MetricSettings(denoising_step=0), "denoising step must be at least 1"),
        (lambda: BuildSettings(commit_seconds=-1), "commit seconds must be at least 0"),
        (lambda: BuildSettings(commit_seconds=float("nan")), "commit seconds must be at least 0"),
        (lambda: BuildSettings(workers=5000), "at most 256"),
        (lambda: BuildSettings(batch_size=100_000), "more than the 1024 images of one commit"),
        (lambda: SearchSettings(min_score=float("nan")), "must be a number"),
    ],
)
def test_settings_out_of_range_are_refused(settings: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        settings()


def test_long_work_without_a_terminal_says_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINE_SECONDS", 0.02)
    said: Queue[str] = Queue()
    monkeypatch.setattr(Speaker, "say", lambda speaker, line: said.put(line))
    with ProgressBar(Speaker(), state="at work") as bar:
        assert re.fullmatch(r"at work \(0:0\d\)", said.get(timeout=60))
        bar.show(Progress("reading", 3, 4))
        while not (line := said.get(timeout=60)).startswith("reading: 3/4, "):
            assert line.startswith("at work")


def test_tasks_of_one_size_are_one_task_at_their_true_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    bar = ProgressBar(Speaker(quiet=True))
    show = bar.overall("recall", parts=3)
    now[0] += 8  # sixteen queries come at once
    for done in range(1, 17):
        show(Progress("queries", done, 20, "style"))
    assert bar.state == "recall: 16/60, 2.0 queries/s, about 0:22 left"
    now[0] += 24
    show(Progress("queries", 20, 20, "style"))
    show(Progress("queries", 12, 20, "instance"))
    assert bar.state == "recall: 32/60, 1.0 queries/s, about 0:28 left"


def test_a_build_that_is_stopped_says_what_is_kept() -> None:
    progress = BuildProgress(Speaker(quiet=True), bar=False)
    assert progress.kept("x.diffsim") == ""
    progress.tell(BuildEvent("planned", total=945))
    progress.tell(BuildEvent("commit", done=560, total=945))
    progress.tell(BuildEvent("encode", done=576, total=945))
    assert progress.kept("x.diffsim").startswith("560 of 945 images are done and in x.diffsim")


def report(**values: Any) -> dict[str, Any]:
    counts = {"items": 0, "added": 0, "replaced": 0, "moved": 0, "removed": 0, "unchanged": 0, **values}
    return BuildReport(index="x.diffsim", model="cells", modes=("style",), **counts).to_dict()


def test_a_build_is_one_line_and_problems(capsys: pytest.CaptureFixture[str]) -> None:
    first = report(items=81, added=81, seconds=3.2, rejected={"empty": 1}, unreadable_folders=("/locked",))
    print_build(first, 11_200_000, Speaker())
    shown = capsys.readouterr()
    search = "diffsim-search PICTURE --mode style --index x.diffsim"
    assert shown.out == f"x.diffsim: 81 images in 3 s, 11.2 MB; search it with: {search}\n"
    assert shown.err.splitlines() == [
        "note: 1 image rejected (1 empty); list the reasons with: diffsim-index info --rejects --index x.diffsim",
        "note: skipped a folder that this user may not read: /locked",
    ]
    later = report(items=3000, added=8, replaced=3, completed=1472, moved=1, removed=2, seconds=200.0)
    print_build(later, 5_000_000, Speaker())
    changes = "5 added, 3 changed, 1472 completed, 1 renamed or touched, 2 removed"
    assert capsys.readouterr() == (f"x.diffsim: 3000 images, {changes}; 3 min 20 s, 5.0 MB\n", "")
    print_build(report(items=3000, seconds=0.2), 5_000_000, Speaker())
    assert capsys.readouterr().out == "x.diffsim: 3000 images, nothing new; 0.2 s, 5.0 MB\n"
    print_build(first, 0, Speaker(quiet=True))
    assert capsys.readouterr() == ("", "")


def test_a_verbose_build_says_how_it_went(capsys: pytest.CaptureFixture[str]) -> None:
    speeds = {"decode": 40.0, "compute": 0.5, "write": 90.0}
    facts = report(items=40, added=30, seconds=60.0, passed_over=3, coverage={"style": 30}, speeds=speeds)
    print_build(facts, 1, Speaker(verbose=True))
    assert capsys.readouterr().err.splitlines() == [
        "model cells, modes style",
        "computed 30 images at 2.0 s per image, loading included",
        "compute is the slowest stage (decode 40.0 images/s, compute 2.0 s per image, write 90.0 images/s)",
        "of 40 images, 30 for style have stored tensors; the rest are computed by a search, or now by: "
        "diffsim-index fill --index x.diffsim",
        "skipped 3 files without an image extension",
    ]


def test_hints_name_the_index_where_another_would_be_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a b.diffsim" / "generations").mkdir(parents=True)
    assert naming("diffsim-index info", tmp_path / "a b.diffsim") == "diffsim-index info"
    (tmp_path / "c.diffsim" / "generations").mkdir(parents=True)
    assert naming("diffsim-index info", "a b.diffsim") == "diffsim-index info --index 'a b.diffsim'"


def test_a_repair_says_what_it_took_out_and_what_is_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from retrieval.indexing.build import build_index

    photos, index = tmp_path / "photos", tmp_path / "x.diffsim"
    paint(photos, range(6))
    with tiny_model():
        build_index(photos, index, model="cells", modes=["style"], run=RUN)
    flip_bit(index / "items/000002/vectors/descriptor.npy", 2000)
    planned = repair(index, dry_run=True)
    print_damages(index, planned.damages, planned, True, Speaker())
    assert capsys.readouterr().err == "would take out descriptor of 4 images\nnothing was changed\n"
    repaired = repair(index)
    print_damages(index, repaired.damages, repaired, False, Speaker())
    shown = capsys.readouterr()
    assert "descriptor.npy has changed" in shown.out
    assert "restore" not in shown.out
    taken_out, advice = shown.err.splitlines()
    assert taken_out == "took out descriptor of 4 images"
    assert advice.startswith(f"compute it again with: diffsim-index build {photos} --index {index}; or bring it back")
    assert "diffsim-index verify --undo" in advice


def results(*scores: float, coarse: bool = False) -> Results:
    found = tuple(
        Result(rank, rank, f"/{rank}.png", None if coarse else score, score, rank) for rank, score in enumerate(scores)
    )
    return Results(found, {}, "style", {}, {})


def test_a_sheet_tells_coarse_scores_and_ties_apart() -> None:
    (exact,) = sheet_rows([results(0.91234, 0.91241, 0.5)], "q.png", most=2)
    assert [cell.caption for cell in exact.neighbours] == ["0.9123", "0.9124"]
    both = sheet_rows([results(0.91234, 0.91241), results(0.7)], "q.png")
    assert [cell.caption for row in both for cell in row.neighbours] == ["0.9123", "0.9124", "0.7000"]
    (coarse,) = sheet_rows([results(0.9, 0.8, coarse=True)], "q.png")
    assert [cell.caption for cell in coarse.neighbours] == ["0.900", "0.800"]
    assert (exact.title, coarse.title) == ("style", "style, coarse ranking: scores of the coarse stage")


def test_letters_beyond_ascii_are_drawn_or_lose_their_accents(monkeypatch: pytest.MonkeyPatch) -> None:
    from retrieval.drawing import fonts

    own = own_font(14)
    assert drawable("plain", own) == ("plain", own)
    monkeypatch.setattr(fonts, "_named", lambda name, size: None)  # a machine without fonts
    assert drawable("Grüße", own)[0] == "Gruße"
