"""Fuyu beside FuyuForCausalLM, with FuyuProcessor and a tokenizer of the same make as its own."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from families.system import Conversation, Reference, System, images_of
from families.tiny import draw
from tokenizers import Tokenizer, models, normalizers
from torch import Tensor

from vlmkit.architecture import Parameters
from vlmkit.encoders.base import Encoder

BYTES = [f"<0x{value:02X}>" for value in range(256)]
PIECES = ["<unk>", "<s>", "</s>", *BYTES, "▁", "▁What", "is", "|SPEAKER|", "|NEWLINE|", "|ENDOFTEXT|"]


def tokenizer() -> Any:
    """Unigrams with a ▁ before the first; Adept's tokens and single bytes are words of the vocabulary like any other."""
    made = Tokenizer(models.Unigram([(piece, -float(len(piece) == 6)) for piece in PIECES], unk_id=0, byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def inputs(processor: Any, conversation: Conversation) -> dict[str, Tensor]:
    """The processor takes one image and gives its rows, <s>, the question, <0x04>. Several images stand before the last one's <s>;
    a question without an image is written out."""
    (question,) = (item["text"] for message in conversation for item in message["content"] if item["type"] == "text")
    images = images_of(conversation)
    if not images:
        ids = torch.tensor([processor.tokenizer.encode(f"<s>{question}\n<0x04>", add_special_tokens=False)])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    found = [processor(images=image, text=f"{question}\n", return_legacy_image_output=False, return_tensors="pt") for image in images]
    begin = processor.tokenizer.bos_token_id
    rows = [one["input_ids"][0, : one["input_ids"][0].tolist().index(begin)] for one in found[:-1]]
    ids = torch.cat([*rows, found[-1]["input_ids"][0]])[None]
    patches = torch.cat([one["pixel_values"] for one in found])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": patches}


def patches(inputs: dict[str, Tensor], encoder: Encoder) -> Tensor:
    """(N, p*p*3), pixel by pixel, -> (N, 3*p*p), colour by colour."""
    side = encoder.patch_size
    return inputs["pixel_values"].view(-1, side, side, 3).permute(0, 3, 1, 2).flatten(1)


def reference() -> Reference:
    words = tokenizer()
    rope = {"rope_type": "default", "rope_theta": 25000.0, "partial_rotary_factor": 0.5}
    text: Any = transformers.PersimmonConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=2048,
        vocab_size=320,
        rope_parameters=rope,
        pad_token_id=256,
        bos_token_id=264,
        eos_token_id=266,
    )
    config = transformers.FuyuConfig(text_config=text, patch_size=10, image_token_id=PIECES.index("|SPEAKER|"))
    images = transformers.FuyuImageProcessor(size={"height": 60, "width": 90}, patch_size={"height": 10, "width": 10})
    return Reference(draw(transformers.FuyuForCausalLM(config)), transformers.FuyuProcessor(images, words), inputs, patches)


SYSTEMS = (
    System(
        title="Fuyu",
        counts={"fuyu-8b": Parameters(0, 11_063_296, 0, 9_397_175_296)},
        tiny="fuyu-tiny",
        reference=reference,
        servable=lambda size: size.aspect_ratio <= 60,
        compared_with="FuyuForCausalLM, whose processor takes one image a prompt: several are the rows of each, one after the other",
    ),
)
