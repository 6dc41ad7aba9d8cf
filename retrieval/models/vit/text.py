"""Text towers of vision models that were trained with text: CLIP, MetaCLIP 2, SigLIP and SigLIP 2.

A text becomes a vector in the space of the same repository's image vectors, so that their cosine compares the two.
The repository's ``tokenizer.json`` alone cuts texts into tokens, because the tokenizer classes of transformers change
between versions.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor

from retrieval.errors import ModelError
from retrieval.models.descriptions import Description
from retrieval.models.references import folder_in
from retrieval.models.repositories import TRANSFORMERS
from retrieval.models.vit.text_families import TextFamily
from retrieval.models.weights.finding import find_weights, source_of
from retrieval.models.weights.loading import load_pretrained
from retrieval.models.weights.parts import CONFIG, Part
from retrieval.models.weights.reading import model_errors

TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"


@dataclass(frozen=True, eq=False)
class TextTower:
    """One text tower, float32."""

    model: Any
    family: TextFamily
    tokens: Callable[[str], Tensor]  # from a text to int64 [1, tokens]

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return float32 ``[texts, dim]``, rows of norm 1."""
        device = next(self.model.parameters()).device
        outputs = [self.model(input_ids=self.tokens(text).to(device)) for text in texts]
        vectors = torch.cat([getattr(output, self.family.vector) for output in outputs]).float()
        result: NDArray[np.float32] = torch.nn.functional.normalize(vectors, dim=1).cpu().numpy()
        return result


def load_text(
    description: Description, family: TextFamily, folder: Path | None, device: torch.device, offline: bool, digest: str
) -> TextTower:
    """Load the text tower that belongs to an image encoder.

    Args:
        description: of the image encoder.
        family: see :data:`TEXT_FAMILIES`.
        folder: local weights; None: the hub's cache or the hub.
        device: where it runs.
        offline: use only the hub's cache.
        digest: of the image encoder's weights in the index; those of a local folder must be the same.

    Raises:
        ModelError: files are missing or damaged, or a local folder holds another model.
    """
    folder = folder or folder_in(description.name)
    if folder is not None and find_weights(description, folder, offline).digest() != digest:
        raise ModelError(f"{folder} holds other weights of {description.name} than the index was made with")
    part = Part(files=(CONFIG, TOKENIZER, TOKENIZER_CONFIG), stems=TRANSFORMERS)
    source = replace(source_of(description), parts=(part,))
    weights = find_weights(replace(description, source=source), folder, offline)
    config = _config(weights.root)
    kind = getattr(transformers, family.kind, None)
    if kind is None:
        raise ModelError(f"transformers {transformers.__version__} has no {family.kind}; a newer version has")
    what = f"the text tower of {description.name}"
    model = load_pretrained(kind, weights[""], what, dtype=torch.float32, config=config).to(device)
    return TextTower(model, family, _tokens(weights.root, family, int(config.max_position_embeddings)))


def _config(root: Path) -> Any:
    """Read the configuration of the text tower, which lies inside that of the whole model."""
    with model_errors(f"{root / CONFIG} states no model"):
        config: Any = transformers.AutoConfig.from_pretrained(root, local_files_only=True, trust_remote_code=False)
    if not hasattr(config, "text_config"):
        raise ModelError(f"{root} holds a {config.model_type} model, which has no text tower")
    if hasattr(config, "projection_dim"):
        config.text_config.projection_dim = config.projection_dim
    return config.text_config


def _read_tokenizer(text: str) -> Any:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises this very class
        raise ValueError(str(error)) from error


def _tokens(root: Path, family: TextFamily, length: int) -> Callable[[str], Tensor]:
    """Return the function from a text to its tokens: ``length`` at most, or exactly where texts are padded."""
    with model_errors(f"{root / TOKENIZER} is no tokenizer"):
        text = (root / TOKENIZER).read_text("utf-8")
        tokenizer = _read_tokenizer(text)
        stated = json.loads((root / TOKENIZER_CONFIG).read_text("utf-8"))["pad_token"] if family.padded else ""
        padding = tokenizer.token_to_id(stated["content"] if isinstance(stated, dict) else stated)
        if family.padded and padding is None:
            raise ValueError(f"it has no token {stated} to pad texts with")
    tokenizer.no_padding()
    tokenizer.enable_truncation(length)

    def tokens(text: str) -> Tensor:
        ids = tokenizer.encode(text.lower() if family.padded else text).ids
        return torch.tensor([ids + [padding] * (length - len(ids) if family.padded else 0)])

    return tokens
