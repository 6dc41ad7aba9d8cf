"""Write Stable Diffusion 1.5 at its real size with random weights: `python tests/real_size.py FOLDER`.

The scores mean nothing, but speed, memory and loading are those of the real model. The tokenizer and scheduler come
from the tiny model beside the tests. Needs 4.3 GB of disk and takes about a minute.
"""

import shutil
import sys
from pathlib import Path

TINY = Path(__file__).parent / "data" / "tiny_sd15"


def write_real_size_sd15(folder: Path) -> None:
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    for part in ("tokenizer", "scheduler"):
        shutil.copytree(TINY / part, folder / part, dirs_exist_ok=True)
    UNet2DConditionModel(
        sample_size=64,
        cross_attention_dim=768,
        attention_head_dim=8,
        block_out_channels=(320, 640, 1280, 1280),
    ).save_pretrained(folder / "unet")
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
    ).save_pretrained(folder / "vae")
    config = CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, projection_dim=768
    )
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")


if __name__ == "__main__":
    write_real_size_sd15(Path(sys.argv[1]))
