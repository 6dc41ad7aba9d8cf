"""The file lists of the real repositories on the hub, and tiny files of the same names.

The lists of Stable Diffusion 1.5, DiT and CLIP are complete; those of the others hold all files of the folders that
are read. Public manifests and cache listings gave them; retrieval/models/README.md names these.
"""

import io
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

from tests.support.paths import DATA

SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
CLIP = "openai/clip-vit-base-patch32"
DINOV2 = "facebook/dinov2-small"
IP_ADAPTER = "h94/IP-Adapter"
SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
DIT_256 = "facebook/DiT-XL-2-256"
DIT_512 = "facebook/DiT-XL-2-512"
VAE = "stabilityai/sd-vae-ft-mse"

_DIT = """.gitattributes README.md model_index.json scheduler/scheduler_config.json transformer/config.json
    transformer/diffusion_pytorch_model.bin vae/config.json vae/diffusion_pytorch_model.bin"""
FILES: Mapping[str, tuple[str, ...]] = {
    name: tuple(text.split())
    for name, text in {
        SD15: """.gitattributes README.md feature_extractor/preprocessor_config.json model_index.json
            safety_checker/config.json safety_checker/model.fp16.safetensors safety_checker/model.safetensors
            safety_checker/pytorch_model.bin safety_checker/pytorch_model.fp16.bin scheduler/scheduler_config.json
            text_encoder/config.json text_encoder/model.fp16.safetensors text_encoder/model.safetensors
            text_encoder/pytorch_model.bin text_encoder/pytorch_model.fp16.bin tokenizer/merges.txt
            tokenizer/special_tokens_map.json tokenizer/tokenizer_config.json tokenizer/vocab.json unet/config.json
            unet/diffusion_pytorch_model.bin unet/diffusion_pytorch_model.fp16.bin
            unet/diffusion_pytorch_model.fp16.safetensors unet/diffusion_pytorch_model.non_ema.bin
            unet/diffusion_pytorch_model.non_ema.safetensors unet/diffusion_pytorch_model.safetensors
            v1-5-pruned-emaonly.ckpt v1-5-pruned-emaonly.safetensors v1-5-pruned.ckpt v1-5-pruned.safetensors
            v1-inference.yaml vae/config.json vae/diffusion_pytorch_model.bin vae/diffusion_pytorch_model.fp16.bin
            vae/diffusion_pytorch_model.fp16.safetensors vae/diffusion_pytorch_model.safetensors""",
        CLIP: """.gitattributes README.md config.json flax_model.msgpack merges.txt model.safetensors
            preprocessor_config.json pytorch_model.bin special_tokens_map.json tf_model.h5 tokenizer.json
            tokenizer_config.json vocab.json""",
        DINOV2: ".gitattributes README.md config.json model.safetensors preprocessor_config.json pytorch_model.bin",
        IP_ADAPTER: """.gitattributes README.md models/image_encoder/config.json models/image_encoder/model.safetensors
            models/image_encoder/pytorch_model.bin models/ip-adapter-full-face_sd15.bin
            models/ip-adapter-full-face_sd15.safetensors models/ip-adapter-plus-face_sd15.bin
            models/ip-adapter-plus-face_sd15.safetensors models/ip-adapter-plus_sd15.bin
            models/ip-adapter-plus_sd15.safetensors models/ip-adapter_sd15.bin models/ip-adapter_sd15.safetensors
            models/ip-adapter_sd15_light.bin models/ip-adapter_sd15_light.safetensors""",
        SDXL: """.gitattributes 01.png LICENSE.md README.md model_index.json scheduler/scheduler_config.json
            sd_xl_base_1.0.safetensors sd_xl_base_1.0_0.9vae.safetensors text_encoder/config.json
            text_encoder/flax_model.msgpack text_encoder/model.fp16.safetensors text_encoder/model.onnx
            text_encoder/model.safetensors text_encoder/openvino_model.bin text_encoder/openvino_model.xml
            text_encoder_2/config.json text_encoder_2/flax_model.msgpack text_encoder_2/model.fp16.safetensors
            text_encoder_2/model.onnx text_encoder_2/model.onnx_data text_encoder_2/model.safetensors
            text_encoder_2/openvino_model.bin text_encoder_2/openvino_model.xml tokenizer/merges.txt
            tokenizer/special_tokens_map.json tokenizer/tokenizer_config.json tokenizer/vocab.json
            tokenizer_2/merges.txt tokenizer_2/special_tokens_map.json tokenizer_2/tokenizer_config.json
            tokenizer_2/vocab.json unet/config.json unet/diffusion_flax_model.msgpack
            unet/diffusion_pytorch_model.fp16.safetensors unet/diffusion_pytorch_model.safetensors unet/model.onnx
            unet/model.onnx_data unet/openvino_model.bin unet/openvino_model.xml vae/config.json
            vae/diffusion_flax_model.msgpack vae/diffusion_pytorch_model.fp16.safetensors
            vae/diffusion_pytorch_model.safetensors vae_1_0/config.json
            vae_1_0/diffusion_pytorch_model.fp16.safetensors vae_1_0/diffusion_pytorch_model.safetensors
            vae_decoder/config.json vae_decoder/model.onnx vae_decoder/openvino_model.bin
            vae_encoder/config.json vae_encoder/model.onnx vae_encoder/openvino_model.bin""",
        DIT_256: _DIT,
        DIT_512: _DIT,
        VAE: ".gitattributes README.md config.json diffusion_pytorch_model.bin diffusion_pytorch_model.safetensors",
    }.items()
}


@cache
def tiny_repository(name: str) -> dict[str, bytes]:
    """Every file of a repository: real tensors, though few, in the files of weights; else a line of text."""
    networks = {folder: network() for folder, network in _NETWORKS[name].items()}
    return {file: _content(name, file, networks) for file in FILES[name]}


def _content(name: str, file: str, networks: Mapping[str, Any]) -> bytes:
    folder, _, base = file.rpartition("/")
    known = networks.get("transformer" if name.startswith("facebook/DiT") and not folder else folder)
    if folder.startswith("tokenizer"):
        return (DATA / "tiny_sd15" / "tokenizer" / base).read_bytes()
    if folder == "scheduler" and "DiT" not in name:
        kind = {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading", "steps_offset": 1}
        stated = json.loads((DATA / "tiny_sd15" / "scheduler" / base).read_bytes())
        return json.dumps(stated | (kind if name == SDXL else {})).encode()
    if base == "preprocessor_config.json":
        if folder:
            return b'{"size": 224, "crop_size": 224}'
        return json.dumps({"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}).encode()
    if isinstance(known, dict):  # an adapter, which is tensors alone
        return _weights_of(base, known) if base.startswith("ip-adapter-plus_sd15.") else b"another adapter"
    if known is None:
        return f"another program's {file}".encode()
    if base == "config.json":
        config = known.config
        text: str = config.to_json_string() if hasattr(config, "to_json_string") else known.to_json_string()
        return text.encode()
    if base.startswith(("model.", "pytorch_model.", "diffusion_pytorch_model.")) and "onnx" not in base:
        return _weights_of(base, known.state_dict())
    return f"another program's {file}".encode()


def _weights_of(file: str, state: Mapping[str, torch.Tensor]) -> bytes:
    from safetensors.torch import save

    half = ".fp16." in file
    other = 1.5 if ".non_ema." in file else 1.0  # other numbers, so that a wrong choice shows
    tensors = {
        key: (other * (value.half() if half else value) if value.is_floating_point() else value).contiguous().clone()
        for key, value in state.items()
    }
    if file.endswith(".safetensors"):
        return save(tensors, metadata={"format": "pt"})
    buffer = io.BytesIO()
    torch.save(nested(tensors) if file.startswith("ip-adapter") else tensors, buffer)
    return buffer.getvalue()


def nested(tensors: Mapping[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """An adapter's pickle holds two mappings, where its safetensors file joins their names by a dot."""
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        part, _, rest = key.partition(".")
        parts.setdefault(part, {})[rest] = value
    return parts


def _of_tiny_sd15(kind: str, folder: str) -> Any:
    import diffusers
    import transformers

    owner: Any = diffusers if hasattr(diffusers, kind) else transformers
    return getattr(owner, kind).from_pretrained(DATA / "tiny_sd15" / folder)


def _unet() -> Any:
    return _of_tiny_sd15("UNet2DConditionModel", "unet")


def _vae() -> Any:
    return _of_tiny_sd15("AutoencoderKL", "vae")


def _text_encoder() -> Any:
    return _of_tiny_sd15("CLIPTextModel", "text_encoder")


def _text(width: int, projected: bool) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(width)
    words = json.loads((DATA / "tiny_sd15" / "text_encoder" / "config.json").read_bytes())
    shape = {"hidden_size": width, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    keys = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")
    config = CLIPTextConfig(**shape, projection_dim=16, **{key: words[key] for key in keys if key in words})
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def _sdxl_unet() -> Any:
    from diffusers import UNet2DConditionModel

    torch.manual_seed(1)
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4, 8),
        transformer_layers_per_block=(1, 2, 3),
        cross_attention_dim=32,
        norm_num_groups=8,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=64,
    )


def _whole_clip() -> Any:
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(2)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision = {**tower, "image_size": 32, "patch_size": 8}
    return CLIPModel(CLIPConfig(text_config={**tower, "vocab_size": 99}, vision_config=vision, projection_dim=24))


def _image_encoder() -> Any:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(3)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return CLIPVisionModelWithProjection(CLIPVisionConfig(**tower, image_size=224, patch_size=56, projection_dim=32))


def _dinov2() -> Any:
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(4)
    return Dinov2Model(
        Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8)
    )


def _adapter() -> dict[str, torch.Tensor]:
    """IP-Adapter Plus for the tiny UNet: four layers that turn the encoder's states into 16 tokens."""
    draw = torch.Generator().manual_seed(5)
    shapes: dict[str, tuple[int, ...]] = {
        "latents": (1, 16, 64),
        "norm_out.bias": (32,),
        "norm_out.weight": (32,),
        "proj_in.bias": (64,),
        "proj_in.weight": (64, 32),
        "proj_out.bias": (32,),
        "proj_out.weight": (32, 64),
    }
    for number in range(4):
        attention, feed = f"layers.{number}.0", f"layers.{number}.1"
        shapes |= {f"{attention}.norm{each}.{kind}": (64,) for each in (1, 2) for kind in ("bias", "weight")}
        shapes |= {f"{attention}.to_kv.weight": (128, 64), f"{attention}.to_out.weight": (64, 64)}
        shapes |= {f"{attention}.to_q.weight": (64, 64), f"{feed}.0.bias": (64,), f"{feed}.0.weight": (64,)}
        shapes |= {f"{feed}.1.weight": (256, 64), f"{feed}.3.weight": (64, 256)}
    tensors = {f"image_proj.{name}": torch.randn(shape, generator=draw) / 8 for name, shape in shapes.items()}
    unet = _unet()
    for number, name in enumerate(n for n in unet.attn_processors if "attn2" in n):
        width = unet.get_submodule(name.removesuffix(".processor")).to_q.in_features
        for kind in ("to_k_ip", "to_v_ip"):
            tensors[f"ip_adapter.{2 * number + 1}.{kind}.weight"] = torch.randn(width, 32, generator=draw) / 8
    return tensors


def _dit(side: int) -> Any:
    from diffusers import DiTTransformer2DModel

    torch.manual_seed(side)
    return DiTTransformer2DModel(
        num_attention_heads=4, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=15, sample_size=side // 8
    )


_NETWORKS: Mapping[str, Mapping[str, Any]] = {
    SD15: {"unet": _unet, "vae": _vae, "text_encoder": _text_encoder},
    SDXL: {
        "unet": _sdxl_unet,
        "vae": _vae,
        "text_encoder": lambda: _text(16, projected=False),
        "text_encoder_2": lambda: _text(16, projected=True),
    },
    CLIP: {"": _whole_clip},
    DINOV2: {"": _dinov2},
    IP_ADAPTER: {"models": _adapter, "models/image_encoder": _image_encoder},
    DIT_256: {"transformer": lambda: _dit(256)},
    DIT_512: {"transformer": lambda: _dit(512)},
    VAE: {"": _vae},
}


def write_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files as a local copy of a repository has them."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder
