"""Print what a command of diffsim-index did or found: the result on stdout, the rest for people on stderr."""

from collections.abc import Callable
from typing import Any

from cli.output import human_bytes
from cli.progress import describe_speeds, pace
from cli.running import speaker


def print_build(report: dict[str, Any], quiet: bool) -> None:
    """Print what a build did."""
    rejected = sum(report["rejected"].values())
    print(f"{report['index']}: {report['items']} images ({', '.join(report['modes'])}; model {report['model']})")
    say = speaker(quiet)
    if report["added"]:
        changed = f", {report['replaced']} of them changed files" if report["replaced"] else ""
        seconds = report["seconds"]
        say(f"{report['added']} added in {seconds:.1f} s ({pace(report['added'], seconds)}){changed}")
        say(describe_speeds(report["speeds"]))
    if report["completed"]:
        say(f"{report['completed']} completed: they have now what they lacked")
    _say_coverage(report, say)
    if report["moved"]:
        say(f"{report['moved']} renamed or touched: kept as they were")
    if report["removed"]:
        say(f"{report['removed']} removed: their files are gone")
    if report["unchanged"]:
        say(f"{report['unchanged']} were there already")
    if rejected:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(report["rejected"].items()))
        say(f"{rejected} rejected ({reasons}); see them with: diffsim-index info --rejects")
    if report["passed_over"]:
        say(f"{report['passed_over']} files passed over: their names are no image's")
    for folder in report["unreadable_folders"]:
        say(f"could not be read: {folder}")


def _say_coverage(report: dict[str, Any], say: Callable[[str], None]) -> None:
    """Say what has no tensors yet, and why."""
    items = report["items"]
    partial = [f"{mode} of {count}" for mode, count in report["coverage"].items() if count < items]
    if partial:
        say(
            f"tensors stored: {', '.join(partial)} of {items} images; searches or diffsim-index fill compute the others"
        )
    if report["incomplete"]:
        say(f"{report['incomplete']} could not be completed: their files are gone, or have changed")


def print_fill(report: dict[str, Any], quiet: bool) -> None:
    """Print what a fill did."""
    print(f"{report['index']}: {report['items']} images ({', '.join(report['modes'])}; model {report['model']})")
    say = speaker(quiet)
    say(f"{report['completed']} completed in {report['seconds']:.1f} s, {report['adopted']} taken over from searches")
    if report["speeds"]:
        say(describe_speeds(report["speeds"]))
    _say_coverage(report, say)


def print_info(about: dict[str, Any]) -> None:
    """Print what an index is."""
    items = max(1, about["items"])
    print(f"{about['path']}: {about['items']} images, model {about['model']}, generation {about['generation']}")
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
    print(f"  {about['segments']} segments, {about['removed']} removed, {len(about['rejects'])} rejected")
    print(f"  last changed {about['created']} by {about['created_by']}, format {about['format_version']}")
