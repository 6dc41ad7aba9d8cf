"""Training: the objective is the index's own score, its traps are closed, and a stopped run goes on exactly."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from retrieval.aas import QKV, aligned_attention_scores
from retrieval.mini.objective import CONTRAST_BELOW, all_pairs, draw_timesteps, info_nce
from retrieval.mini.train import Recipe, Trainer, train
from retrieval.vocabulary import LINEAR, Readout

CPU = torch.device("cpu")
TINY = Recipe(steps=6, pairs=2, image=48, denoise_every=3)


def tensors(images: int, heads: int, value_heads: int, seed: int) -> QKV:
    generator = torch.Generator().manual_seed(seed)
    q, k = (torch.randn(images, 1, heads, 9, 8, generator=generator) for _ in range(2))
    return QKV(q, k, torch.rand(images, 1, value_heads, 9, 5, generator=generator))


@pytest.mark.parametrize("readout", [LINEAR, Readout(root=True, floor=1e-3)])
@pytest.mark.parametrize("value_heads", [1, 3])
def test_the_objective_is_the_indexs_score(readout: Readout, value_heads: int) -> None:
    first, second = tensors(3, 3, value_heads, 1), tensors(4, 3, value_heads, 2)
    expected = [aligned_attention_scores(first[i : i + 1], second, readout=readout) for i in range(3)]
    torch.testing.assert_close(all_pairs(first, second, readout), torch.stack(expected))


def test_a_contrastive_batch_has_one_timestep() -> None:
    """Timesteps that differ between pairs would let the network match pairs by the time embedding."""
    for seed in range(20):
        drawn = draw_timesteps(torch.Generator().manual_seed(seed), 40, contrast=True)
        assert len(drawn.unique()) == 1
        assert drawn[0] < CONTRAST_BELOW
    assert len(draw_timesteps(torch.Generator().manual_seed(0), 40, contrast=False).unique()) > 20


def test_nothing_but_the_pictures_tells_pairs_apart() -> None:
    """Equal pictures everywhere: with one timestep, and noise of each image's own, the score can't find pairs."""
    trainer = Trainer(replace(TINY, pairs=6), CPU)
    folded, cells = trainer._batch(0, "instance")
    trainer._rendered = (0, folded[:1].expand_as(folded).contiguous(), cells[:1].expand_as(cells).contiguous())
    seen: list[torch.Tensor] = []
    contrast = trainer._contrast

    def watch(kind: object, noisy: torch.Tensor, timesteps: torch.Tensor, *rest: torch.Tensor) -> object:
        seen.extend([noisy, timesteps])
        return contrast(kind, noisy, timesteps, *rest)  # type: ignore[arg-type]

    trainer._contrast = watch  # type: ignore[method-assign, assignment]
    trainer.advance()
    noisy, timesteps = seen
    assert len(timesteps.unique()) == 1
    assert len({image.numpy().tobytes() for image in noisy}) == 12


def test_info_nce_by_hand() -> None:
    scores = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    loss, accuracy = info_nce(scores, torch.tensor(0.0))
    assert loss.item() == pytest.approx(torch.log1p(torch.exp(torch.tensor(-1.0))).item())
    assert accuracy == 1.0
    assert info_nce(scores.flip(0), torch.tensor(0.0))[1] == 0.0


def test_a_stopped_run_goes_on_exactly(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    whole = Trainer(TINY, CPU)
    for _ in range(4):
        whole.advance()
    part = Trainer(TINY, CPU)
    for _ in range(2):
        part.advance()
    torch.save(part.state(), tmp_path / "checkpoint.pt")
    resumed = Trainer(TINY, CPU)
    resumed.restore(torch.load(tmp_path / "checkpoint.pt"))
    for _ in range(2):
        resumed.advance()
    for name, value in whole.average.items():
        assert torch.equal(value, resumed.average[name]), name


def test_training_writes_checkpoint_log_and_weights(tmp_path: Path) -> None:
    recipe = replace(TINY, steps=2)
    weights = train(tmp_path, recipe, CPU)
    assert weights.exists()
    assert (tmp_path / "checkpoint.pt").exists()
    assert train(tmp_path, recipe, CPU) == weights  # nothing left to do
    with pytest.raises(ValueError, match="another recipe"):
        train(tmp_path, replace(recipe, seed=8), CPU)
