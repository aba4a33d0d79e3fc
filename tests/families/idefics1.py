"""Idefics beside IdeficsForVisionText2Text, with gates that are one number a channel."""

from __future__ import annotations

from typing import Any

import transformers
from families.system import Conversation, Reference, System, dense_patches
from families.tiny import LANGUAGE, VISION, draw
from torch import Tensor

from vlmkit.architecture import Parameters
from vlmkit.tokenizer import bytes_tokenizer

BOUNDARY, END = "<fake_token_around_image>", "<end_of_utterance>"
SPECIALS = ("<s>", "</s>", BOUNDARY, "<image>", END)
"""From id 263 on; those of images are the last, as published."""


def ask(processor: Any, conversation: Conversation) -> dict[str, Tensor]:
    """Inputs as the published processor takes them: texts and images in one list, and no chat template."""
    items: list[Any] = []
    for message in conversation:
        content = message["content"]
        items.append("User: " if content[0]["type"] == "text" else "User:")
        items += [item["image"] if item["type"] == "image" else item["text"] for item in content]
        items.append(f"{END}\nAssistant:")
    joined = [items[0]]
    for item in items[1:]:
        if isinstance(item, str) and isinstance(joined[-1], str):
            joined[-1] += item
        else:
            joined.append(item)
    return dict(processor(text=[joined], add_end_of_utterance_token=False))


def reference() -> Reference:
    text: dict[str, Any] = {name: value for name, value in LANGUAGE.items() if name != "num_key_value_heads"}
    config = transformers.IdeficsConfig(
        **text | {"num_hidden_layers": 4, "vocab_size": 265, "bos_token_id": 263, "eos_token_id": 264},
        additional_vocab_size=3,
        cross_layer_interval=2,
        qk_layer_norms=True,
        alpha_type="vector",
        use_resampler=True,
        vision_config={**VISION, "hidden_size": 48, "num_hidden_layers": 2, "image_size": 28, "patch_size": 14},
        perceiver_config={
            "use_resampler": True,
            "resampler_n_latents": 4,
            "resampler_depth": 2,
            "resampler_n_heads": 4,
            "resampler_head_dim": 8,
            "qk_layer_norms_perceiver": True,
        },
    )
    tokenizer = bytes_tokenizer(SPECIALS, bos_token="<s>", eos_token="</s>")
    processor = transformers.IdeficsProcessor(transformers.IdeficsImageProcessor(image_size=28), tokenizer)
    return Reference(draw(transformers.IdeficsForVisionText2Text(config)), processor, ask, dense_patches())


SYSTEMS = (
    System(
        title="Idefics",
        counts={
            "idefics-9b": Parameters(630_766_080, 125_961_984, 1_434_519_568, 6_738_440_192),
            "idefics-80b": Parameters(630_766_080, 125_961_984, 13_925_422_120, 65_285_709_824),
        },
        tiny="idefics-tiny",
        reference=reference,
    ),
)
