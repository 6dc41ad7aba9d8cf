"""Tokenizers of tiny models with a text tower, in the files that their real repositories have."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from tests.support.hub.vision_models import write_model

LENGTH = 16  # tokens, as the tiny models' configurations say
Tokenizer = tuple[Any, dict[str, Any], int]
"""A tokenizer, the content of its configuration's file, and the id of its end."""


def _of_clip() -> Tokenizer:
    from tokenizers import Regex, models, normalizers, pre_tokenizers, processors
    from tokenizers import Tokenizer as Fast

    first, last = "<|startoftext|>", "<|endoftext|>"
    merges = [("r", "e"), ("re", "d</w>"), ("a", "t</w>"), ("n", "i"), ("ni", "g")]
    letters = [*ascii_lowercase, *(letter + "</w>" for letter in ascii_lowercase), *("".join(pair) for pair in merges)]
    vocab = {token: number for number, token in enumerate([first, last, *letters])}
    fast = Fast(models.BPE(vocab=vocab, merges=merges, unk_token=last, end_of_word_suffix="</w>"))
    fast.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = pre_tokenizers.Split(Regex(r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "removed", invert=True)
    fast.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    fast.post_processor = processors.RobertaProcessing(
        (last, vocab[last]), (first, vocab[first]), trim_offsets=False, add_prefix_space=False
    )
    stated = {"bos_token": first, "eos_token": last, "pad_token": last, "unk_token": last}
    return fast, {**stated, "tokenizer_class": "CLIPTokenizer", "model_max_length": LENGTH}, vocab[last]


def _of_gemma() -> Tokenizer:
    from tokenizers import Tokenizer as Fast
    from tokenizers import models, normalizers, pre_tokenizers, processors

    special, merges = ["<pad>", "<eos>", "<bos>", "<unk>"], [("r", "e"), ("re", "d"), ("▁", "a"), ("a", "t")]
    vocab = {
        token: number
        for number, token in enumerate([*special, "▁", *ascii_lowercase, *("".join(pair) for pair in merges)])
    }
    fast = Fast(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    fast.normalizer = normalizers.Replace(" ", "▁")
    fast.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    fast.post_processor = processors.TemplateProcessing("$A <eos>", "$A $B <eos>", [("<eos>", 1)])
    stated = {"add_bos_token": False, "add_eos_token": True, "padding_side": "right", "pad_token": "<pad>"}
    named = {"eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>", "model_input_names": ["input_ids"]}
    return fast, {**stated, **named, "tokenizer_class": "GemmaTokenizer", "model_max_length": LENGTH}, 1


def _of_siglip() -> Tokenizer:
    from tokenizers import Tokenizer as Fast
    from tokenizers import models, normalizers, pre_tokenizers, processors

    pieces = ["<unk>", "</s>", "▁", "▁red", "▁a", "at", *ascii_lowercase]
    fast = Fast(models.Unigram([(piece, -float(number)) for number, piece in enumerate(pieces)], unk_id=0))
    fast.normalizer = normalizers.Lowercase()
    fast.pre_tokenizer = pre_tokenizers.Metaspace()
    fast.post_processor = processors.TemplateProcessing("$A </s>", "$A $B </s>", [("</s>", 1)])
    stated = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    return fast, {**stated, "model_input_names": ["input_ids"], "model_max_length": LENGTH}, 1


TOKENIZERS: Mapping[str, Callable[[], Tokenizer]] = {"clip": _of_clip, "siglip": _of_siglip, "siglip2": _of_gemma}


def write_text_model(folder: Path, name: str, seed: int = 0) -> Path:
    """Write a tiny model with both towers, and its tokenizer."""
    write_model(folder, name, seed=seed)
    fast, stated, end = TOKENIZERS[name]()
    fast.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(stated))
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["eos_token_id"] = end
    (folder / "config.json").write_text(json.dumps(config))
    return folder
