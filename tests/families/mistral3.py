"""Mistral Small 3.1 beside Mistral3ForConditionalGeneration, with PixtralProcessor."""

from __future__ import annotations

from typing import Any

import transformers
from families.pixtral import SPECIALS, TEMPLATE, patches
from families.system import Reference, System, chat
from families.tiny import LANGUAGE, VISION, draw

from vlmkit.architecture import Parameters
from vlmkit.tokenizer import bytes_tokenizer


def reference(text: Any = None, **changes: Any) -> Reference:
    vision = transformers.PixtralVisionConfig(**VISION, hidden_act="silu", image_size=112, patch_size=14)
    numbers: Any = LANGUAGE | {"rms_norm_eps": 1e-5}
    text = text or transformers.MistralConfig(**numbers, head_dim=16, sliding_window=None, rope_theta=1e9)
    fields: dict[str, Any] = {"image_token_index": 263, "spatial_merge_size": 2, "tie_word_embeddings": False} | changes
    config = transformers.Mistral3Config(vision_config=vision, text_config=text, **fields)
    roles = {"bos_token": "<s>", "eos_token": "</s>", "extra_special_tokens": {"image_token": "[IMG]"}}
    processor = transformers.PixtralProcessor(
        image_processor=transformers.PixtralImageProcessor(size={"longest_edge": 112}, patch_size={"height": 14, "width": 14}),
        tokenizer=bytes_tokenizer([*SPECIALS, "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"], **roles),
        patch_size=14,
        spatial_merge_size=fields["spatial_merge_size"],
        chat_template=TEMPLATE.replace("message.content + '\n\n'", "'[SYSTEM_PROMPT]' + message.content + '[/SYSTEM_PROMPT]'"),
    )
    return Reference(draw(transformers.Mistral3ForConditionalGeneration(config)), processor, chat, patches)


SYSTEMS = (
    System(
        title="Mistral Small 3.1",
        counts={"mistral-small-3.1-24b": Parameters(403_305_472, 35_652_608, 0, 23_572_403_200)},
        tiny="mistral3-tiny",
        reference=reference,
        servable=lambda size: size.aspect_ratio <= 112,
    ),
)
