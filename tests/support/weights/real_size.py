"""Write Stable Diffusion 1.5 at its real size with random weights: `python tests/support/real_size.py FOLDER`.

The scores mean nothing, but speed, memory and loading are those of the real model. The tokenizer and scheduler come
from the tiny model beside the tests. Needs 4.3 GB of disk and takes about a minute.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

from tests.support.paths import DATA

TINY = DATA / "tiny_sd15"


def real_size_unet() -> Any:
    """Return the UNet with random weights; under ``torch.device("meta")`` it has shapes only."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=64,
        cross_attention_dim=768,
        attention_head_dim=8,
        block_out_channels=(320, 640, 1280, 1280),
    )


def real_size_vae() -> Any:
    """Return the VAE; see :func:`real_size_unet`."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
    )


def write_real_size_sd15(folder: Path) -> None:
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    for part in ("tokenizer", "scheduler"):
        shutil.copytree(TINY / part, folder / part, dirs_exist_ok=True)
    real_size_unet().save_pretrained(folder / "unet")
    real_size_vae().save_pretrained(folder / "vae")
    config = CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, projection_dim=768
    )
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")


if __name__ == "__main__":
    write_real_size_sd15(Path(sys.argv[1]))
