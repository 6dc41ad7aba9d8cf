"""The repositories on the hub and their parts: exactly the files that are read, by the name of each repository.

The revisions are commits, whose files can't change. Where no public evidence names one it is "main", and an index keeps
the commit that it was made with. README.md names the public evidence for every file. Importing this module is cheap.
"""

from dataclasses import dataclass

from retrieval.models.weights.parts import CONFIG, FP16, Part

TRANSFORMERS = ("model", "pytorch_model")
DIFFUSERS = ("diffusion_pytorch_model", "diffusion_pytorch_model")
PIXELS = "preprocessor_config.json"
ANY_PIXELS = (PIXELS, "processor_config.json")  # transformers 5 writes the second for a model with two towers
WORDS = ("merges.txt", "special_tokens_map.json", "tokenizer_config.json", "vocab.json")
ENCODER_HALF = ("encoder.", "quant_conv.")  # of a VAE: images are never decoded
STYLE_HALF = ("backbone.", "last_layer_style")  # of CSD: images are not compared by content
IMAGE_TOWER = ("vision_model.", "visual_projection.")  # of CLIP: images are never compared with text
ADAPTER, ADAPTER_ENCODER = "models", "models/image_encoder"  # parts of IP-Adapter


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A repository on the hub at one commit, and the parts of it that are read."""

    repo: str
    revision: str
    parts: tuple[Part, ...]


def _of_transformers(
    folder: str = "",
    *,
    files: tuple[str, ...] = (CONFIG,),
    optional: tuple[str, ...] = (),
    variant: str | None = None,
    read: tuple[str, ...] = (),
) -> Part:
    return Part(folder=folder, files=files, optional=optional, stems=TRANSFORMERS, variant=variant, read=read)


def _of_diffusers(
    folder: str = "", *, variant: str | None = None, pickled: bool = False, read: tuple[str, ...] = ()
) -> Part:
    return Part(folder=folder, stems=DIFFUSERS, index_first=True, variant=variant, pickled=pickled, read=read)


def _tokenizer(folder: str) -> Part:
    return Part(folder=folder, files=WORDS, optional=WORDS)


def any_of_transformers(repo: str, revision: str) -> Repository:
    """Return any repository of a vision model; of one with two towers only the tensors of images count."""
    part = Part(stems=TRANSFORMERS, either=ANY_PIXELS, read=IMAGE_TOWER)
    return Repository(repo=repo, revision=revision, parts=(part,))


_SCHEDULER = Part(folder="scheduler", files=("scheduler_config.json",))
_WITH_PIXELS = (CONFIG, PIXELS)

SD15 = Repository(
    repo="stable-diffusion-v1-5/stable-diffusion-v1-5",
    revision="451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
    parts=(
        _of_diffusers("unet"),
        _of_diffusers("vae", read=ENCODER_HALF),
        _of_transformers("text_encoder"),
        _tokenizer("tokenizer"),
        _SCHEDULER,
    ),
)
SDXL = Repository(
    repo="stabilityai/stable-diffusion-xl-base-1.0",
    revision="462165984030d82259a11f4367a4eed129e94a7b",
    parts=(
        _of_diffusers("unet", variant=FP16),
        _of_diffusers("vae", variant=FP16, read=ENCODER_HALF),
        _of_transformers("text_encoder", variant=FP16),
        _of_transformers("text_encoder_2", variant=FP16),
        _tokenizer("tokenizer"),
        _tokenizer("tokenizer_2"),
        _SCHEDULER,
    ),
)
CLIP = Repository(  # main has no safetensors; this commit adds them, with the same numbers
    repo="openai/clip-vit-base-patch32",
    revision="c237dc49a33fc61debc9276459120b7eac67e7ef",
    parts=(_of_transformers(files=_WITH_PIXELS, optional=(PIXELS,), read=IMAGE_TOWER),),
)
DINOV2_SMALL = Repository(
    repo="facebook/dinov2-small",
    revision="ed25f3a31f01632728cabb09d1542f84ab7b0056",
    parts=(_of_transformers(files=_WITH_PIXELS, optional=(PIXELS,)),),
)
DINOV2_BASE = Repository(
    repo="facebook/dinov2-base",
    revision="f9e44c814b77203eaa57a6bdbbd535f21ede1415",
    parts=(_of_transformers(),),
)
DINOV2_LARGE = any_of_transformers("facebook/dinov2-large", "47b73eefe95e8d44ec3623f8890bd894b6ea2d6c")
SIGLIP2 = any_of_transformers("google/siglip2-base-patch16-224", "75de2d55ec2d0b4efc50b3e9ad70dba96a7b2fa2")
CSD = Repository(
    repo="yuxi-liu-wired/CSD",
    revision="main",
    parts=(Part(files=(), stems=("model", "model"), shards=False, read=STYLE_HALF),),
)
IP_ADAPTER = Repository(
    repo="h94/IP-Adapter",
    revision="018e402774aeeddd60609b4ecdb7e298259dc729",
    parts=(
        Part(folder=ADAPTER, files=(), stems=("ip-adapter-plus_sd15", "ip-adapter-plus_sd15"), shards=False),
        _of_transformers(ADAPTER_ENCODER),
    ),
)
DIT_VAE = Repository(
    repo="stabilityai/sd-vae-ft-mse",
    revision="31f26fdeee1355a5c34592e401dd41e45d25a493",
    parts=(_of_diffusers(read=ENCODER_HALF),),
)


def dit(side: int, revision: str) -> Repository:
    """Return the repository of DiT-XL/2 at ``side`` pixels, which has pickles only."""
    network = _of_diffusers("transformer", pickled=True)
    return Repository(repo=f"facebook/DiT-XL-2-{side}", revision=revision, parts=(network,))
