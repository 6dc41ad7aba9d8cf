import torch

from retrieval.models.diffusion.noise import add_noise, draws_for
from retrieval.models.modes import SD15_MODES, at_step


def test_draws_are_the_published_ones_in_the_published_order() -> None:
    generator = torch.Generator().manual_seed(2334)
    d1, d2, d3, d4 = (torch.randn((1, 4, 8, 8), generator=generator) for _ in range(4))
    query, gallery = (draws_for(role, "pairwise", 2334, (4, 8, 8)) for role in ("query", "gallery"))
    assert torch.equal(query.latent, d1)
    assert torch.equal(query.noise, d3)
    assert torch.equal(gallery.latent, d2)
    assert torch.equal(gallery.noise, d4)
    for role in ("query", "gallery"):
        shared = draws_for(role, "shared", 2334, (4, 8, 8))
        assert torch.equal(shared.latent, d1)
        assert torch.equal(shared.noise, d2)


def test_noising_keeps_the_variance_and_the_dtype() -> None:
    latent = torch.full((1, 4, 4, 4), 2.0, dtype=torch.float16)
    noisy = add_noise(latent, torch.ones(1, 4, 4, 4), 0.64)
    assert noisy.dtype == torch.float16
    torch.testing.assert_close(noisy.float(), torch.full((1, 4, 4, 4), 0.8 * 2.0 + 0.6), atol=2e-3, rtol=0)


def test_the_published_step_runs_against_the_timestep() -> None:
    assert at_step("U_0", 900).timestep == 101
    assert [SD15_MODES[m].target.timestep for m in ("style", "instance", "semantic")] == [101, 251, 501]
    assert SD15_MODES["instance"].target.denoising_step == 750
