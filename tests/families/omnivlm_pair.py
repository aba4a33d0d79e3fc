"""A small OmniVLM as its published scripts wrote it, and what the published runner made of it: tests/golden/omnivlm/README.md."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tokenizers import AddedToken
from torch import Tensor
from transformers import PreTrainedTokenizerFast

import vlmkit
from vlmkit.model import VLM
from vlmkit.processor import VLMProcessor
from vlmkit.tiktoken_files import QWEN, byte_level, letters_of_bytes
from vlmkit.tokenizer import BYTES_SPECIALS

FOLDER = Path(__file__).parents[1] / "golden" / "omnivlm"
TINY = vlmkit.architecture("omnivlm-tiny")
SPECIALS = (*BYTES_SPECIALS, "<|image_pad|>", "<|vision_start|>", "<|vision_end|>")
MERGES = [("t", "h"), ("th", "e"), ("\u0120", "the"), ("i", "s"), ("i", "n")]


def tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, then special tokens, then what is merged: ids are those of the tiny model's own tokenizer, but where words are merged."""
    vocabulary = {word: number for number, word in enumerate((*letters_of_bytes(), *SPECIALS))}
    for pair in MERGES:
        vocabulary["".join(pair)] = len(vocabulary)
    made = byte_level(vocabulary, MERGES, QWEN.pattern)
    made.add_tokens([AddedToken(word, special=True, normalized=False) for word in SPECIALS])
    others = [word for word in SPECIALS if word not in ("<|pad|>", "<|im_end|>")]
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<|pad|>",
        eos_token="<|im_end|>",
        additional_special_tokens=others,
        clean_up_tokenization_spaces=False,
    )


def drawn(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Norms ~N(1, 0.1), all else ~N(0, 0.15), each by a generator of its own that vlmkit's name of it seeds; a tied head is the
    embedding."""
    found = {}
    for name, shape in shapes.items():
        values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
        norm = len(shape) == 1 and "norm" in name and name.endswith("weight")
        found[name] = torch.from_numpy((1 + 0.1 * values if norm else 0.15 * values).astype(np.float32))
    found["language_model.lm_head.weight"] = found["language_model.model.embed_tokens.weight"]
    return found


def built(dtype: torch.dtype = torch.float32) -> tuple[VLM, VLMProcessor]:
    model = vlmkit.build(TINY, seed=0)
    model.load_state_dict(drawn({name: tuple(value.shape) for name, value in model.state_dict().items()}))
    return model.to(dtype).eval(), vlmkit.build_processor(TINY, tokenizer=tokenizer())


def picture() -> Image.Image:
    """Of the size that the tower sees, so that no filter comes between."""
    return Image.fromarray(np.random.RandomState(3).randint(0, 256, (38, 38, 3)).astype(np.uint8))


def runner(name: str) -> NDArray[Any]:
    """`kind-what` of golden.npz."""
    found: NDArray[Any] = np.load(FOLDER / "golden.npz")[name]
    return found
