"""Text towers: vectors are those of transformers' own tokenizers and models."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from retrieval.errors import ModelError
from retrieval.models.registry import describe_embedder, load_embedder
from retrieval.models.vit.text import TextTower, load_text
from retrieval.models.vit.text_families import TEXT_FAMILIES
from retrieval.models.weights.loading import quiet_loading
from tests.slices import loads_model_libraries
from tests.support.hub.text_models import LENGTH, TOKENIZERS, write_text_model

pytestmark = loads_model_libraries

CPU = torch.device("cpu")
TEXTS = ["a red bicycle", "At NIGHT", "x", "a very long text that has many more words than any tiny model can take"]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("text")
    return lambda name: root / name if (root / name).is_dir() else write_text_model(root / name, name)


def load(folder: Path) -> TextTower:
    name = f"hf:{folder}"
    stated = load_embedder(name, None, CPU, offline=True).fingerprint()
    family = TEXT_FAMILIES[stated["name"]]
    return load_text(describe_embedder(name), family, None, CPU, offline=True, digest=stated["weights"])


def of_transformers(folder: Path, name: str) -> Any:
    from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerFast

    kind = PreTrainedTokenizerFast if name == "siglip" else AutoTokenizer  # its own class needs sentencepiece
    with quiet_loading():
        model, tokenizer = AutoModel.from_pretrained(folder).eval(), kind.from_pretrained(folder)
    padding = {"padding": "max_length"} if name != "clip" else {"padding": True}
    texts = [text.lower() for text in TEXTS] if name == "siglip2" else TEXTS  # as transformers 5 does by itself
    inputs = tokenizer(texts, truncation=True, max_length=LENGTH, return_tensors="pt", **padding)
    with torch.no_grad():
        found = model.get_text_features(**inputs)
    vectors = found if isinstance(found, torch.Tensor) else found.pooler_output
    return torch.nn.functional.normalize(vectors, dim=1).numpy()


@pytest.mark.parametrize("name", TOKENIZERS)
def test_vectors_are_those_of_transformers(name: str, folder_of: Callable[[str], Path]) -> None:
    folder = folder_of(name)
    vectors = load(folder).embed(TEXTS)
    np.testing.assert_allclose(vectors, of_transformers(folder, name), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert np.abs(vectors[0] - vectors[1]).max() > 0.01  # texts differ


def test_files_that_do_not_fit_are_errors(tmp_path: Path) -> None:
    folder = write_text_model(tmp_path / "clip", "clip")
    description, family = describe_embedder(f"hf:{folder}"), TEXT_FAMILIES["clip"]
    with pytest.raises(ModelError, match="holds other weights"):
        load_text(description, family, None, CPU, offline=True, digest="of another model")
    digest = load_embedder(description.name, None, CPU, offline=True).fingerprint()["weights"]
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"tokenizer.json is no tokenizer"):
        load_text(description, family, None, CPU, offline=True, digest=digest)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"tokenizer.json missing"):
        load_text(description, family, None, CPU, offline=True, digest=digest)
