"""The procedural world: one seed gives one world, and groups share what they say and nothing else."""

import pytest
import torch
from torch import Tensor

from retrieval.errors import UsageError
from retrieval.mini.cells import cell_histograms
from retrieval.mini.dice import Dice
from retrieval.mini.filters import FILTERS, draw_filters, treat
from retrieval.mini.textures import KINDS, draw_palettes, draw_textures, paint
from retrieval.mini.values import roots
from retrieval.mini.world import Hardness, equalise, make_groups

PLAIN = Hardness(same_palette=0, same_other=0, grey=0, equalised=0)


def margin(histograms: Tensor, groups: int) -> float:
    """How much more alike pictures are within groups than across them, by Bhattacharyya's coefficient."""
    found = roots(histograms[:, 0])
    likeness = (found @ found.T).view(groups, -1, groups, len(found) // groups)
    views = likeness.shape[1]
    apart = ~torch.eye(views, dtype=torch.bool)
    within = torch.stack([likeness[g, :, g][apart].mean() for g in range(groups)]).mean()
    return float(within - likeness.mean())


@pytest.mark.parametrize("kind", ["style", "instance", "layout"])
def test_a_seed_gives_one_world(kind: str) -> None:
    first, again, other = (make_groups(kind, 4, 2, seed=s, size=48) for s in (1, 1, 2))  # type: ignore[arg-type]
    assert first.shape == (4, 2, 3, 48, 48)
    assert first.dtype == torch.uint8
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len({picture.numpy().tobytes() for picture in first.flatten(0, 1)}) == 8


def test_an_unknown_kind_is_told() -> None:
    with pytest.raises(UsageError, match="style, instance, layout"):
        make_groups("mood", 2, 2, seed=0)  # type: ignore[arg-type]


def test_styles_share_colours_and_texture_and_layouts_share_neither() -> None:
    margins = {}
    for kind in ("style", "layout"):
        pictures = make_groups(kind, 12, 3, seed=5, size=96, hardness=PLAIN).flatten(0, 1)  # type: ignore[arg-type]
        margins[kind] = [margin(histograms, 12) for histograms in cell_histograms(pictures, 1)]
    assert margins["style"][0] > 0.25
    assert margins["style"][1] > 0.03
    assert margins["layout"][0] < 0.1


def test_a_family_shares_its_palette_where_it_is_hard() -> None:
    """Four styles of one palette: colours no longer tell the groups of a family apart, as they do without."""
    spread = []
    for share in (0.0, 1.0):
        hard = Hardness(family=4, same_palette=share, same_other=0, grey=0, equalised=0)
        pictures = make_groups("style", 4, 4, seed=3, size=96, hardness=hard).flatten(0, 1)
        spread.append(margin(cell_histograms(pictures, 1)[0], 4))
    assert spread[1] < 0.6 * spread[0]


def test_a_family_shares_its_texture_where_it_is_hard() -> None:
    spread = []
    for share in (0.0, 1.0):
        hard = Hardness(family=4, same_palette=0, same_other=share, grey=0, equalised=0)
        pictures = make_groups("style", 4, 4, seed=3, size=96, hardness=hard).flatten(0, 1)
        spread.append(margin(cell_histograms(pictures, 1)[1], 4))
    assert spread[1] < 0.6 * spread[0]


def test_instances_of_a_family_stand_before_the_same_backgrounds() -> None:
    """The corners of view v of all groups of a family are alike; without the family they are not."""
    likeness = []
    for share in (0.0, 1.0):
        hard = Hardness(family=4, same_palette=0, same_other=share, grey=0, equalised=0)
        pictures = make_groups("instance", 4, 4, seed=11, size=96, hardness=hard).float()
        corners = pictures[..., :10, :10].mean(dim=(3, 4))
        likeness.append(float(corners.std(dim=0).mean()))
    assert likeness[1] < 0.8 * likeness[0]


def test_grey_groups_have_no_colour_and_equalised_batches_one_mean() -> None:
    grey = make_groups("style", 3, 2, seed=1, size=48, hardness=Hardness(grey=1, equalised=0))
    assert torch.equal(grey[:, :, 0], grey[:, :, 2])
    pictures = make_groups("style", 6, 2, seed=1, size=48, hardness=PLAIN).flatten(0, 1).float() / 255
    assert equalise(pictures).mean(dim=(2, 3)).std(dim=0).max() < 0.5 * pictures.mean(dim=(2, 3)).std(dim=0).min()


def test_every_texture_and_every_treatment_makes_a_picture() -> None:
    dice = Dice(0)
    textures = draw_textures(dice, len(KINDS))
    object.__setattr__(textures, "kind", torch.arange(len(KINDS)))
    pictures = paint(dice, textures, draw_palettes(dice, len(KINDS)), 48)
    assert pictures.isfinite().all()
    assert pictures.std(dim=(2, 3)).mean(dim=1).min() > 0.005
    filters = draw_filters(dice, len(FILTERS))
    object.__setattr__(filters, "kind", torch.arange(len(FILTERS)))
    base = pictures[:1].expand(len(FILTERS), -1, -1, -1)
    treated = treat(dice, base, filters)
    assert treated.isfinite().all()
    changed = (treated - base).abs().mean(dim=(1, 2, 3))
    assert changed[0] == 0
    assert changed[1:].min() > 1e-3
