"""Print what a command of diffsim-index did or found: the result on stdout, the rest for people on stderr."""

from typing import TYPE_CHECKING

from cli.advice import ADVICE, with_advice
from cli.output import describe_estimate
from cli.process import clock
from retrieval.text import counted, human_bytes

if TYPE_CHECKING:
    from retrieval.indexing.reports import BuildPlan

from collections.abc import Callable, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from cli.output import naming
from cli.process import say, speaker
from cli.progress import describe_speeds, pace

if TYPE_CHECKING:
    from index_store.verify import Damage
    from retrieval.indexing.maintenance import Repaired


def print_build(report: dict[str, Any], quiet: bool) -> None:
    """Print what a build did."""
    rejected = sum(report["rejected"].values())
    modes = ", ".join(report["modes"])
    print(f"{report['index']}: {counted(report['items'], 'image')} ({modes}; model {report['model']})")
    say = speaker(quiet)
    _say_work(report, say)
    _say_coverage(report, say)
    if report["moved"]:
        say(f"{report['moved']} renamed or touched: kept as they were")
    if report["removed"]:
        say(f"{report['removed']} removed: their files are gone")
    if report["unchanged"]:
        said = ", and lacked something until now" if report["completed"] >= report["unchanged"] else ""
        some = f", of which {report['completed']} lacked something until now" if report["completed"] else ""
        say(f"{report['unchanged']} were there already{said or some}")
    if rejected:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(report["rejected"].items()))
        see = naming("diffsim-index info --rejects", report["index"])
        say(f"{rejected} rejected ({reasons}); see them with: {see}")
    if report["passed_over"]:
        names = "its name is" if report["passed_over"] == 1 else "their names are"
        say(f"{counted(report['passed_over'], 'file')} passed over: {names} no image's")
    for folder in report["unreadable_folders"]:
        say(f"could not be read: {folder}")


def _say_work(report: dict[str, Any], say: Callable[[str], None]) -> None:
    """Say what was computed, and how fast: new and changed images, and those that got what they lacked."""
    added, completed, seconds = report["added"], report["completed"], report["seconds"]
    if not added and not completed:
        return
    parts = [f"{added} added"] if added else []
    parts += [f"{completed} completed"] if completed else []
    changed = f"; {report['replaced']} of the added are changed files" if report["replaced"] else ""
    say(f"{' and '.join(parts)} in {seconds:.1f} s ({pace(added + completed, seconds)}){changed}")
    if len(report["speeds"]) > 1:
        say(describe_speeds(report["speeds"]))


def _say_coverage(report: dict[str, Any], say: Callable[[str], None]) -> None:
    """Say what has no tensors yet, and why."""
    items = report["items"]
    partial = [f"{mode} of {count}" for mode, count in report["coverage"].items() if count < items]
    if partial:
        others = f"searches or {naming('diffsim-index fill', report['index'])} compute the others"
        say(f"tensors stored: {', '.join(partial)} of {counted(items, 'image')}; {others}")
    if report["incomplete"]:
        say(f"{report['incomplete']} could not be completed: their files are gone, or have changed")


def print_fill(report: dict[str, Any], quiet: bool) -> None:
    """Print what a fill did."""
    modes = ", ".join(report["modes"])
    print(f"{report['index']}: {counted(report['items'], 'image')} ({modes}; model {report['model']})")
    say = speaker(quiet)
    say(f"{report['completed']} completed in {report['seconds']:.1f} s, {report['adopted']} taken over from searches")
    if len(report["speeds"]) > 1:
        say(describe_speeds(report["speeds"]))
    _say_coverage(report, say)


def print_info(about: dict[str, Any]) -> None:
    """Print what an index is."""
    items = max(1, about["items"])
    count = counted(about["items"], "image")
    print(f"{about['path']}: {count}, model {about['model']}, generation {about['generation']}")
    beside = about["bytes"]["projections"]
    print(f"  codec {about['codec']}" + (f", projections {human_bytes(beside)}" if beside else ""))
    for mode, target in about["modes"].items():
        noise = f", timestep {target['timestep']} (denoising step {target['denoising_step']})"
        where = f"layer {target['layer']}" + (noise if target["timestep"] else "")
        have = about["coverage"][mode]
        size = f", {human_bytes(about['bytes'][mode] / have)} an image" if have else ""
        filled = "" if have == about["items"] else f", stored of {have} images of {about['items']}"
        print(f"  {mode}: {where}{size}{filled}")
    size = human_bytes(about["bytes"]["catalog and vectors"] / items)
    print(f"  encoders: {', '.join(about['encoders']) or 'none'}; catalogue and vectors {size} an image")
    if about["cache"]["tensors"] or about["attention"] == "lazy":
        cached = f"{about['cache']['tensors']} images' tensors, {human_bytes(about['cache']['bytes'])}"
        print(f"  {about['attention']}; computed by searches and kept: {cached}")
    print(f"  {counted(about['segments'], 'segment')}, {about['removed']} removed, {len(about['rejects'])} rejected")
    print(f"  last changed {about['created']} by {about['created_by']}, format {about['format_version']}")


def print_compact(change: dict[str, Any], now: bool, quiet: bool) -> None:
    """Print what a compaction did."""
    before, after = human_bytes(change["bytes_before"]), human_bytes(change["bytes_after"])
    kept = ""
    if not now and change["bytes_after"]:
        drop = naming("diffsim-index compact --now", change["index"])
        kept = f", the old segments included, which stay a day for searches that opened them; drop them with: {drop}"
    speaker(quiet)(f"{before} before, {after} now{kept}")
    count, segments = counted(change["items"], "image"), counted(change["segments"], "segment")
    print(f"{change['index']}: {count} in {segments}")


def print_damages(place: str | Path, damages: "Sequence[Damage]", taken_out: "Repaired | None") -> None:
    """Print what is wrong with an index, or what was taken out of it, and what to do next."""
    for damage in damages:
        print(damage.what)
    print(f"{place}: {counted(len(damages), 'damage')}" if damages else f"{place}: whole")
    if not damages:
        return
    if taken_out is None:
        say(f"take out what is damaged with: {naming('diffsim-index verify --repair', place)}")
        return
    count = counted(taken_out.items_before - taken_out.items, "image")
    sources = " ".join(quote(source) for source in taken_out.sources)
    build = naming(f"diffsim-index build {sources}", place, always=True)
    say(f"taken out, with {count} of {taken_out.items_before}; compute again what is lacking with: {build}")


def print_plan(plan: "BuildPlan") -> None:
    """Print a dry run, for people."""
    print(f"{plan.index}: model {plan.model} ({plan.why}), modes {', '.join(plan.modes)}; nothing has been written")
    counts = {
        "new": plan.new,
        "changed": plan.changed,
        "renamed or touched": plan.moved,
        "vanished": plan.vanished,
        "unchanged": plan.unchanged,
        "to complete": plan.to_complete,
        "rejected before": plan.rejected_before,
        "files passed over": plan.passed_over,
    }
    print("  " + ", ".join(f"{count} {what}" for what, count in counts.items()))
    if plan.estimate is None:
        print("  nothing to compute")
        return
    print("  " + describe_estimate(plan.estimate))
    if plan.seconds is not None and plan.seconds_an_image is not None:
        print(f"  time: about {clock(plan.seconds)} ({plan.seconds_an_image:.2g} s an image)")
    if plan.problem:
        print(f"  it does not fit: {with_advice(plan.problem, plan.advice, plan.advice_facts)}")


def plan_to_json(plan: "BuildPlan") -> dict[str, Any]:
    """Return a dry run as JSON values, with every advice as a sentence."""
    told = plan.to_dict()
    facts = told.pop("advice_facts")
    told["problem"] = with_advice(plan.problem, told.pop("advice"), facts)
    if estimate := told["estimate"]:
        facts = estimate.pop("advice_facts")
        estimate["advice"] = ADVICE[estimate["advice"]].format(**facts) if estimate["advice"] else ""
    return told
