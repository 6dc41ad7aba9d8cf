# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Speed and size
# The published code runs the network on both images of every pair. Here the network runs once per image.

# %%
import shutil
import time

import numpy as np
import torch
from PIL import Image
from shown import BUILD, bars, table

from retrieval import Engine, build_index
from retrieval.metrics.registry import load_metric
from retrieval.sample_images.pictures import draw_gallery

torch.set_num_threads(1)
gallery, index = BUILD / "gallery", BUILD / "speed.diffsim"
if not gallery.exists():
    draw_gallery(gallery, size=256)
shutil.rmtree(index, ignore_errors=True)
report = build_index(gallery, index, model="cells")
print(f"cells, three modes, pictures of 256 x 256: {report.added / report.seconds:.0f} images/s, loading included")

# %% [markdown]
# The stages of a search: medians of 20 searches, one thread, every image scored exactly.

# %%
engine = Engine.open(index)
query = gallery / "oil" / "cat.png"
engine.search(query, "style")
timings = [engine.search(query, "style", exhaustive=True).timing_ms for _ in range(20)]
median = {stage: float(np.median([t[stage] for t in timings])) for stage in timings[0]}
table(["stage", "ms"], [[stage, ms] for stage, ms in median.items()])

# %% [markdown]
# The same 128 scores by running the model on both images of every pair, as the published loop does.

# %%
metric = load_metric("cells")
images = [Image.open(path).convert("RGB") for path in sorted(gallery.rglob("*.png"))]
start = time.perf_counter()
for image in images[:32]:
    metric.score(metric.encode(images[:1], "query"), metric.encode([image], "gallery"))
loop = (time.perf_counter() - start) / 32 * 1e3
cached = (median["read"] + median["rerank"]) / len(images)
bars({"model on both images": loop, "cached": cached}, "one exact score with cells (logarithmic)", "ms")

# %% [markdown]
# The bytes of a cache on disk, per image and mode, as float16: tokens x width x (Q, K and V) x branches.

# %%
shapes = {  # tokens, width, tokens of K and V, branches
    "sd15, diffsim-xl: both branches": (256, 1280, 256, 2),
    "sd15, one branch": (256, 1280, 256, 1),
    "diffsim-c, its one branch": (256, 1280, 16, 1),
    "clip-aas": (50, 768, 50, 1),
    "dinov2-aas": (257, 384, 257, 1),
}
sizes = {name: 2 * b * w * (n + 2 * m) / 1e3 for name, (n, w, m, b) in shapes.items()}
sizes["cells, measured"] = engine.info()["bytes"]["style"] / len(engine) / 1e3
bars(sizes, "on disk, per image and mode (logarithmic)", "kB")

# %% [markdown]
# **Conclusion, 2026-11-20.** With the cache, an exact score of `cells` cost about a hundredth of running the model on
# both images. For SD 1.5 the share is smaller still: its model costs far more, and its score has the same formula. A
# search spends most of its time on encoding the query. On disk, SD 1.5 takes about 85 times as much as `cells`, and
# DiffSim-C a fifth of SD 1.5, because it stores 16 keys per image. These times vary by half: other work shared the two
# processor cores. BENCHMARKS.md has figures of a quiet machine.
