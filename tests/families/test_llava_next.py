"""Prompts of LLaVA-1.6's four checkpoints, and what the class of transformers cannot express."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers
from families.llava_next import reference
from families.tiny import picture

import vlmkit
from vlmkit.checkpoints import export
from vlmkit.checkpoints.llava_next import FAMILY
from vlmkit.spec import SpecError
from vlmkit.tokenizer import bytes_tokenizer

TINY = vlmkit.architecture("llava-1.6-tiny")
PROMPTS = {
    "llava-1.6-vicuna-7b": "<s>USER: <image>\nWhat is shown in this image? ASSISTANT:",
    "llava-1.6-vicuna-13b": "<s>USER: <image>\nWhat is shown in this image? ASSISTANT:",
    "llava-1.6-mistral-7b": "<s>[INST] <image>\nWhat is shown in this image? [/INST]",
    "llava-1.6-34b": (
        "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n<image>\nWhat is shown in this image?<|im_end|>"
        "<|im_start|>assistant\n"
    ),
}
"""As in transformers' script that converts the checkpoints; that of Vicuna without its system message."""


@pytest.mark.parametrize("name", PROMPTS)
def test_a_prompt_is_the_published_one(name: str) -> None:
    arch = TINY.replace(layout=vlmkit.architecture(name).layout)
    processor = vlmkit.build_processor(arch, tokenizer=bytes_tokenizer(["<image>", "<s>", "</s>"], bos_token="<s>"))
    batch = processor(images=picture(28, 28), text="What is shown in this image?", add_generation_prompt=True)
    shown = processor.decode(batch["input_ids"][0]).replace("<image>" * arch.tokens(vlmkit.Size(28, 28)), "<image>")
    assert shown == PROMPTS[name]
    published = FAMILY.processor(arch, processor)
    assert FAMILY.architecture(FAMILY.config(arch, processor), published).layout == arch.layout


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"layout": vlmkit.architecture("llava-1.5-tiny").layout}, "splices 'unpadded_rows', but the layout is 'run'"),
        ({"policy": vlmkit.architecture("llava-1.5-tiny").policy}, "whole tiles of 'anyres' .* but the policy is PadSquare"),
        ({"policy": TINY.policy.replace(fill=(9, 9, 9))}, "with black beside the image"),
        ({"policy": TINY.policy.replace(size=56), "encoder": TINY.encoder.replace(positions="bicubic")}, "56 pixels, .* images 28"),
        ({"encoder": TINY.encoder.replace(class_token="keep")}, r"gives 2x2 \+ 1 tokens"),
        ({"connector": "linear"}, "plain 2-layer mlp, but the connector is Linear"),
    ],
)
def test_an_architecture_that_the_class_cannot_express_is_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    arch = TINY.replace(**changes)
    with pytest.raises(SpecError, match=reason):
        FAMILY.config(arch, vlmkit.build_processor(arch))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"image_grid_pinpoints": [[28, 56], [56, 28]]},
            r"image_grid_pinpoints=\[\[28, 56\], \[56, 28\]\] .* expects tiles of 28 pixels for",
        ),
        ({"crop_size": {"height": 56, "width": 56}}, "crop_size={'height': 56, 'width': 56} of LlavaNextImageProcessor: .* one size"),
    ],
)
def test_a_processor_that_cuts_other_tiles_than_the_model_expects_is_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    published = reference()
    published.model.save_pretrained(tmp_path)
    published.processor.image_processor = transformers.LlavaNextImageProcessor(
        **{"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}, "image_grid_pinpoints": [[28, 56]]} | changes
    )
    published.processor.save_pretrained(tmp_path)
    with pytest.raises(SpecError, match=reason):
        vlmkit.load(tmp_path)


def test_activations_have_their_transformers_names(tmp_path: Path) -> None:
    arch = TINY.replace(connector=vlmkit.connectors["mlp"](activation="gelu_tanh"))
    export(vlmkit.build(arch), vlmkit.build_processor(arch), tmp_path)
    model, _ = vlmkit.load(tmp_path)
    assert model.config.spec.connector == arch.connector
