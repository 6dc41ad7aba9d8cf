"""The families of vision models that were trained with text; this module loads no library of models."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType


@dataclass(frozen=True)
class TextFamily:
    """How the text tower of one family of models is loaded and read."""

    kind: str  # a class of transformers
    vector: str  # the field of its output
    padded: bool = False  # trained with lower-case texts that are padded to one length, without a mask


_CLIP = TextFamily("CLIPTextModelWithProjection", "text_embeds")
_SIGLIP = TextFamily("SiglipTextModel", "pooler_output", padded=True)

TEXT_FAMILIES: Mapping[str, TextFamily] = MappingProxyType(
    {
        "clip": _CLIP,
        "hf:clip_vision_model": _CLIP,
        "hf:metaclip_2_vision_model": replace(_CLIP, kind="MetaClip2TextModelWithProjection"),
        "hf:siglip_vision_model": _SIGLIP,
        "hf:siglip2_vision_model": replace(_SIGLIP, kind="Siglip2TextModel"),
    }
)
"""The families with text, by the name of the image encoder in its fingerprint."""

WITH_TEXT = ("clip", "siglip2")
"""The named encoders that have text; CLIP, MetaCLIP 2, SigLIP and SigLIP 2 of any repository have it too."""
