"""Print the outcome of a diffsim-index command: the result on stdout, everything else for people on stderr."""

import os
from collections.abc import Mapping
from shlex import quote
from typing import TYPE_CHECKING, Any

from cli.advice import ADVICE, with_advice
from cli.output import describe_estimate, naming, short_path
from cli.terminal.bars import pace
from cli.terminal.printing import show
from cli.terminal.process import Speaker, clock, duration
from cli.terminal.progress import describe_speeds
from retrieval.text import counted, human_bytes

if TYPE_CHECKING:
    from retrieval.indexing.reports import BuildPlan

SHOWN_ENDINGS = 6
SHOWN_PARTIAL = 5
SMALL_SHARE = 0.01  # of an index: fewer unused bytes are not worth a word


def print_build(report: dict[str, Any], size: int, speaker: Speaker) -> None:
    """Print one line on a build that left an index of ``size`` bytes, notes on problems, and details on demand."""
    if not speaker.quiet:
        show(_summary(report, size))
    note_build(report, speaker)


def note_build(report: dict[str, Any], speaker: Speaker) -> None:
    """Print notes on problems of a build, and details on demand."""
    _detail_work(report, speaker)
    _detail_coverage(report, speaker)
    if report["passed_over"]:
        endings = describe_endings(report["passed_over_endings"])
        speaker.detail(f"skipped {counted(report['passed_over'], 'file')} without an image extension{endings}")
    _note_partial(report["partial"], speaker)
    rejected = sum(report["rejected"].values())
    if rejected:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(report["rejected"].items()))
        see = naming("diffsim-index info --rejects", report["index"])
        speaker.note(f"{counted(rejected, 'image')} rejected ({reasons}); list the reasons with: {see}")
    if "too_large" in report["rejected"]:
        speaker.note("too large images are admitted with --max-pixels N and --retry-rejects")
    for folder in report["unreadable_folders"]:
        if os.path.isfile(folder):
            speaker.note(f"{folder} is damaged: images that it no longer shows stay in the index")
        else:
            speaker.note(f"skipped a folder that this user may not read: {folder}")
    _note_incomplete(report, speaker)
    _note_gone(report, speaker)


def _note_gone(report: dict[str, Any], speaker: Speaker) -> None:
    """Say which images are missing and yet in the index, and how to drop or move them."""
    for source, count in report["withheld"].items():
        speaker.note(
            f"{counted(count, 'image')} of {source} are missing, which is most of it, so they stay in the index: "
            "mount the disk, or remove them with --gone"
        )
    for source, count in report["gone_elsewhere"].items():
        drop = naming(f"diffsim-index remove --source {quote(source)}", report["index"])
        move = naming(f"diffsim-index relocate {quote(source)} NEW", report["index"])
        where = f"in {source}" if source else "below no source"
        remedy = f"if they were moved: {move}; to drop them: {drop}" if source else "remove them by name"
        speaker.note(f"{counted(count, 'image')} {where} are missing; {remedy}")


def describe_endings(endings: Mapping[str, int]) -> str:
    """Return the most frequent endings of files that were passed over, in brackets; nothing if there are none."""
    named = [f"{count} {ending or 'without any'}" for ending, count in list(endings.items())[:SHOWN_ENDINGS]]
    rest = sum(list(endings.values())[SHOWN_ENDINGS:])
    listed = ", ".join([*named, f"{rest} others"] if rest else named)
    return f" ({listed})" if listed else ""


def _note_partial(partial: Mapping[str, str], speaker: Speaker) -> None:
    """Name the images whose files are cut, the first ones by name."""
    for path, what in list(partial.items())[:SHOWN_PARTIAL]:
        speaker.note(f"{short_path(path)} {what}")
    if len(partial) > SHOWN_PARTIAL:
        speaker.note(f"{counted(len(partial) - SHOWN_PARTIAL, 'more image')} of cut files; --json lists all")


def _summary(report: dict[str, Any], size: int) -> str:
    """Return the line that everyone reads: images, time, disk and, for a new index, the next command."""
    index, items = short_path(report["index"]), counted(report["items"], "image")
    took, disk = duration(report["seconds"]), human_bytes(size)
    if report["added"] == report["items"] > 0:
        search = naming(f"diffsim-search PICTURE --mode {report['modes'][0]}", report["index"])
        return f"{index}: {items} in {took}, {disk}; search it with: {search}"
    return f"{index}: {items}, {describe_changes(report)}; {took}, {disk}"


def describe_changes(report: dict[str, Any]) -> str:
    """Return how many images a build added, removed and so on."""
    changes = {
        "added": report["added"] - report["replaced"],
        "changed": report["replaced"],
        "completed": report["completed"],
        "renamed or touched": report["moved"],
        "back": report["revived"],
        "removed": report["removed"],
    }
    listed = ", ".join(f"{count} {what}" for what, count in changes.items() if count)
    listed += f" ({report['copied']} copied from equal images)" if report["copied"] else ""
    return listed or "nothing new"


def _detail_work(report: dict[str, Any], speaker: Speaker) -> None:
    """Say how fast images were computed."""
    speaker.detail(f"model {report['model']}, modes {', '.join(report['modes'])}")
    computed = report.get("added", 0) - report.get("copied", 0) + report["completed"]
    if computed:
        speaker.detail(
            f"computed {counted(computed, 'image')} at {pace(computed, report['seconds'])}, loading included"
        )
    if len(report["speeds"]) > 1:
        speaker.detail(describe_speeds(report["speeds"]))


def _detail_coverage(report: dict[str, Any], speaker: Speaker) -> None:
    """Say how many images have no tensors yet, and who computes these."""
    items = report["items"]
    partial = [f"{count} for {mode}" for mode, count in report["coverage"].items() if count < items]
    if partial:
        fill = naming("diffsim-index fill", report["index"])
        have = f"of {counted(items, 'image')}, {', '.join(partial)} have stored tensors"
        speaker.detail(f"{have}; the rest are computed by a search, or now by: {fill}")


def _note_incomplete(report: dict[str, Any], speaker: Speaker) -> None:
    if report["incomplete"]:
        images = counted(report["incomplete"], "image")
        speaker.note(f"{images} could not be completed: the files are gone or have changed since they were indexed")


def print_fill(report: dict[str, Any], speaker: Speaker) -> None:
    """Print one line on a fill, notes on problems, and details on demand."""
    if not speaker.quiet:
        done = f"{counted(report['completed'], 'image')} completed in {duration(report['seconds'])}"
        adopted = f", {report['adopted']} taken over from searches" if report["adopted"] else ""
        show(f"{short_path(report['index'])}: {done}{adopted}")
    _detail_work(report, speaker)
    _detail_coverage(report, speaker)
    _note_incomplete(report, speaker)


def print_info(about: dict[str, Any]) -> None:
    """Print the contents of an index."""
    count = counted(about["items"], "image")
    show(f"{about['path']}: {count}, model {about['model']}, generation {about['generation']}")
    projections = about["bytes"]["projections"]
    show(f"  codec {about['codec']}" + (f", projections {human_bytes(projections)}" if projections else ""))
    for mode in about["modes"]:
        show(f"  {mode}: {_describe_mode(about, mode)}")
        if mode in about["percentiles"]:
            show(f"    {_describe_percentiles(about['percentiles'][mode])}")
    size = human_bytes(about["bytes_per_image"]["catalog and vectors"])
    show(f"  encoders: {', '.join(about['encoders']) or 'none'}; catalogue and vectors {size} per image")
    if about["cache"]["tensors"] or about["attention"] == "lazy":
        cached = f"{about['cache']['tensors']} tensors, {human_bytes(about['cache']['bytes'])}"
        show(f"  {about['attention']}; cache of searches: {cached}")
    show(f"  {counted(about['segments'], 'segment')}, {about['removed']} removed, {len(about['rejects'])} rejected")
    show(f"  sources: {', '.join(short_path(source) for source in about['sources']) or 'none'}")
    total, unused = about["bytes"]["total"], about["unused_bytes"]
    freed = f", {human_bytes(unused)} of it by removed images and old segments" if unused > SMALL_SHARE * total else ""
    show(f"  {human_bytes(total)} on the disk{freed}{'; free them with: diffsim-index compact' if freed else ''}")
    show(f"  last changed {about['created']} by {about['created_by']}, format {about['format_version']}")


def _describe_mode(about: dict[str, Any], mode: str) -> str:
    target, stored = about["modes"][mode], about["coverage"][mode]
    parts = [f"layer {target['layer']}"]
    if target["timestep"]:
        parts.append(f"timestep {target['timestep']} (denoising step {target['denoising_step']})")
    if target["stored_as"] != mode:
        parts.append(f"tensors shared with {target['stored_as']}")
    elif stored:
        parts.append(f"{human_bytes(about['bytes_per_image'][mode])} per image")
    if stored != about["items"]:
        parts.append(f"tensors of {stored} of {counted(about['items'], 'image')} stored")
    return ", ".join(parts)


def _describe_percentiles(known: dict[str, Any]) -> str:
    """Return one line on what scores of a mode are worth in this index."""
    example, at = known["example"], known["score_at"]
    capped = " or fewer" if example["percentile"] >= known["most"] else ""
    worth = f"one in {example['one_in']:,} random pairs{capped}"
    return (
        f"a score of {example['score']:g} or more: {worth}; percentile 50 is {at['50']:.3f}, 99 is {at['99']:.3f}, "
        f"99.9 is {at['99.9']:.3f}"
    )


def print_compact(change: dict[str, Any], now: bool, speaker: Speaker) -> None:
    """Print the outcome of a compaction."""
    if not speaker.quiet:
        count, segments = counted(change["items"], "image"), counted(change["segments"], "segment")
        sizes = f"{human_bytes(change['bytes_before'])} before, {human_bytes(change['bytes_after'])} now"
        show(f"{change['index']}: {count} in {segments}; {sizes}")
    if not now and change["bytes_after"]:
        drop = naming("diffsim-index compact --now", change["index"])
        speaker.say(f"the old segments stay for a day, for searches that opened them; delete them with: {drop}")


def print_plan(plan: "BuildPlan", chosen_here: bool) -> None:
    """Print a dry run; ``chosen_here`` says that nobody named the model."""
    why = f"{plan.why}; choose another with --model" if chosen_here else plan.why
    show(f"{short_path(plan.index)}: model {plan.model} ({why}), modes {', '.join(plan.modes)}; nothing was written")
    counts = {
        "new": plan.new,
        "changed": plan.changed,
        "copies of known images": plan.copied,
        "renamed or touched": plan.moved,
        "back": plan.revived,
        "gone": plan.vanished,
        "missing but kept": sum(plan.withheld.values()),
        "unchanged": plan.unchanged,
        "to complete": plan.to_complete,
        "rejected before": plan.rejected_before,
        "skipped without an image extension": plan.passed_over,
    }
    endings = describe_endings(plan.passed_over_endings)
    show("  " + ", ".join(f"{count} {what}" for what, count in counts.items()) + endings)
    if plan.estimate is None:
        show("  nothing to compute")
        return
    show("  " + describe_estimate(plan.estimate))
    if plan.seconds is not None and plan.seconds_an_image is not None:
        show(f"  time: about {clock(plan.seconds)} ({plan.seconds_an_image:.2g} s per image)")
    if plan.problem:
        show(f"  it does not fit: {with_advice(plan.problem, plan.advice, plan.advice_facts)}")


def plan_to_json(plan: "BuildPlan") -> dict[str, Any]:
    """Return a dry run as JSON values, with its advice as clauses for people."""
    values = plan.to_dict()
    facts = values.pop("advice_facts")
    values["problem"] = with_advice(plan.problem, values.pop("advice"), facts)
    if estimate := values["estimate"]:
        facts = estimate.pop("advice_facts")
        estimate["advice"] = ADVICE[estimate["advice"]].format(**facts) if estimate["advice"] else ""
    return values
