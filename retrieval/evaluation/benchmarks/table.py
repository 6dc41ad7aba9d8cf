"""The table of benchmarks, with the layouts of their folders.

Folders are walked in the order of the bytes of names, and draws come from one seeded generator. So the same data give
the same triplets on every machine. Where the paper's text and code differ, ``variant="code"`` follows the code, which
gave the published numbers, and ``"paper"`` follows the text.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from retrieval.errors import UsageError
from retrieval.evaluation.benchmarks.own_data import load_file, load_groups, load_levels, load_votes
from retrieval.evaluation.benchmarks.paper import (
    BenchOptions,
    load_characters,
    load_cute,
    load_dreambench,
    load_nights,
    load_tid2013,
)
from retrieval.evaluation.triplets import Triplet


@dataclass(frozen=True)
class Bench:
    """A benchmark: the layout of its folder, and the function that loads its triplets."""

    name: str
    title: str
    layout: str
    load: Callable[[Path, BenchOptions], list[Triplet]]
    published: int = 0  # triplets in the paper
    column: str = ""  # its column in the table of published numbers
    layer: str = "U_0"  # the published settings of DiffSim-S
    denoising_step: int = 900
    settings_differ: str = ""


_ENTRIES = (
    Bench("sref", "Sref: 508 styles x 4", "STYLE/N.png", load_groups, 2000, "Sref"),
    Bench("instantstyle", "InstantStyle: 30 styles x 5", "STYLE/N.png", load_groups, 2000, "InstantStyle"),
    Bench("ip", "IP: 299 characters x 5 pairs", "CHARACTER/1.0.png ... 0.2.png, original/CHARACTER.jpg",
          load_characters, 1495, "IP", denoising_step=750),
    Bench("cute", "CUTE: 180 objects x 10", "CATEGORY/OBJECT/LIGHTING/N.jpg", load_cute, 1800, "CUTE",
          denoising_step=600),
    Bench("tid2013", "TID2013: 25 references x 24 distortions", "I01.BMP, i01_01_1.bmp ...", load_tid2013, 600,
          "TID2013", settings_differ="levels 2 and 3 (code), 1 and 5 (paper)"),
    Bench("nights", "NIGHTS: human votes", "data.csv, ref/, distort/", load_nights, 2120, "NIGHTS",
          denoising_step=500, settings_differ="split val (code), test (paper)"),
    Bench("dreambench++", "Dreambench++: human ratings", "PIPELINE/src_image/REF/0_0.jpg, tgt_image, data_human_rating",
          load_dreambench, 937, "Dreambench++", denoising_step=750),
    Bench("votes", "votes on the NIGHTS page", "votes.csv, ID/ref.jpg d0.jpg d1.jpg", load_votes),
    Bench("levels", "ordered distortions", "levels.csv, SCENE/DISTORTION_Lk.jpg", load_levels),
    Bench("triplets", "a CSV of your own", "reference,nearer,farther[,part]", load_file),
    Bench("groups", "folders of your own: same folder, same group", "GROUP/IMAGE", load_groups),
)  # fmt: skip

BENCHES: Mapping[str, Bench] = MappingProxyType({bench.name: bench for bench in _ENTRIES})
TIKTOK = "tiktok"  # measures the variance of a score over the frames of a video instead of triplets


def describe_bench(name: str) -> Bench:
    """Return the benchmark called ``name``; an unknown name is a UsageError that lists the known ones."""
    if name not in BENCHES:
        raise UsageError(f"unknown benchmark '{name}'; known: {', '.join(BENCHES)}, {TIKTOK}, pairs, all")
    return BENCHES[name]
