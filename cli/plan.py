"""Print what a build would do and take."""

from typing import TYPE_CHECKING

from cli.output import human_bytes
from cli.running import clock
from retrieval.vocabulary import counted

if TYPE_CHECKING:
    from retrieval.events import BuildPlan, Estimate


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
        print(f"  it does not fit: {plan.problem}")


def describe_estimate(estimate: "Estimate") -> str:
    """Return disk and memory in one line."""
    modes = "".join(f"{mode} {human_bytes(size)}, " for mode, size in estimate.bytes_by_mode.items())
    modes += "else " if modes else "vectors and catalogue "
    size = f"{estimate.codec}; an image: {modes}{human_bytes(estimate.bytes_beside)}"
    parts = [f"{counted(estimate.images, 'image')} ({size})"] if estimate.images else []
    if estimate.to_complete:
        parts.append(f"what {counted(estimate.to_complete, 'image')} lack{'s' if estimate.to_complete == 1 else ''}")
    disk, free = human_bytes(estimate.disk_bytes), human_bytes(estimate.free_disk_bytes)
    line = f"disk: {disk} for {' and '.join(parts)}, {free} free"
    if estimate.local_bytes < estimate.disk_bytes:
        line += f" here, where {human_bytes(estimate.local_bytes)} of it lie at a time"
    if estimate.models_bytes is not None and estimate.batch_bytes:
        memory = human_bytes(estimate.models_bytes + estimate.batch_bytes)
        line += f"; memory: about {memory} in batches of {estimate.batch}"
    return line
