"""DiffSim-S on the larger diffusion models: SD-XL and DiT-XL/2."""

import torch

from retrieval.backbones import Description
from retrieval.backbones.dit import load_dit as load_dit_network
from retrieval.backbones.sdxl import load_sdxl as load_sdxl_network
from retrieval.metrics import MetricDescription, MetricSettings
from retrieval.metrics.diffusion import ExtractorMetric, model_settings, target_of


def load_sdxl(
    description: MetricDescription, settings: MetricSettings, device: torch.device, offline: bool
) -> ExtractorMetric:
    """Load DiffSim-S on SD-XL.

    ``parity="published"`` multiplies the image's latent by the scheduler's ``init_noise_sigma`` before it is noised.
    """
    published = settings.parity == "published"
    chosen = model_settings("sdxl", description, settings)
    network = load_sdxl_network(weights_of(description), chosen, device, offline, published)
    return ExtractorMetric(
        network, target_of(description, settings), settings, device, settings.noise == "shared", batch_size=1
    )


def load_dit(
    description: MetricDescription, settings: MetricSettings, device: torch.device, offline: bool
) -> ExtractorMetric:
    """Load DiffSim on DiT-XL/2.

    ``parity="published"`` tells the network another timestep than the noise's, as the published code does.
    """
    published = settings.parity == "published"
    chosen = model_settings("dit", description, settings)
    network = load_dit_network(weights_of(description), chosen, device, offline, published)
    return ExtractorMetric(
        network, target_of(description, settings), settings, device, settings.noise == "shared", batch_size=1
    )


def weights_of(description: MetricDescription) -> Description:
    """Return what :mod:`retrieval.backbones.weights` wants to know of a metric's weights."""
    return Description(
        name=description.name,
        title=description.title,
        licence=description.licence,
        download_mb=description.download_mb,
        loader=description.loader,
        repo=description.repo,
        revision=description.revision,
    )
