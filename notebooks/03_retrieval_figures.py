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
# # The paper's retrieval figures
# Figures 4 and 16 of the paper show the four nearest images in Sref, COCO and the IP bench, one row per metric. This
# notebook does not have those images. It draws its own sets in the same folder layouts, and uses metrics that need no
# weights. With weights and data, one command makes the same figure:
# `diffsim-eval figure FOLDER --metric diffsim-s,clip,dinov2 --out figure.png`.

# %%
from shown import BUILD, picture

from retrieval.evaluation.figure import draw_figure
from retrieval.evaluation.runner import Run
from retrieval.metrics.registry import load_metric
from retrieval.sample_images import layouts

sets = {"sref": layouts.draw_styles, "ip": layouts.draw_characters, "coco": layouts.draw_scenes}
for name, draw in sets.items():
    if not (BUILD / name).exists():
        draw(BUILD / name)


def figure(name, queries, metrics):
    run = Run({metric: load_metric(metric) for metric in metrics})
    draw_figure(BUILD / name, [BUILD / name / query for query in queries], BUILD / f"{name}.png", run)
    return picture(BUILD / f"{name}.png", width=760)


# %% [markdown]
# **Sref layout** (`STYLE/N.png`): which pictures have the style of the query?

# %%
figure("sref", ["risograph/1.png", "lowpoly/2.png"], ["cells", "lab-hist", "ssim"])

# %% [markdown]
# **IP layout** (`original/CHARACTER.png`, `CHARACTER/WEIGHT.png`): the query is an original; its variants drift from
# it as the weight falls.

# %%
figure("ip", ["original/chalk-cat.png", "original/neon-teapot.png"], ["cells-instance", "lab-hist", "ssim"])

# %% [markdown]
# **COCO layout** (`CLASS/NUMBER.jpg`): which pictures show the same subject? Styles and compositions differ.

# %%
figure("coco", ["cat/000000000200.jpg", "sailboat/000000000000.jpg"], ["cells-semantic", "lab-hist", "ssim"])

# %% [markdown]
# **Conclusion, 2026-11-20.** In the Sref layout, `cells` and the Lab histogram both put the three other pictures of the
# style first, for both queries: each of these styles has its own palettes. In the IP layout, both find the nearest
# variants first, four of four for the teapot. In the COCO layout, the neighbours share the palette and mostly show
# another subject, by every metric here. Structural similarity finds little more than near copies. The sets are drawn
# and the metrics have no weights, so these figures say nothing about SD 1.5, CLIP or DINOv2.
