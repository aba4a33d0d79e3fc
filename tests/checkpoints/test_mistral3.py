"""Settings of Mistral 3's config that its two published checkpoints do not vary, and what its class cannot express."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from families.mistral3 import reference
from families.system import user
from families.tiny import picture

import vlmkit
from vlmkit.checkpoints import export
from vlmkit.checkpoints.mistral3 import FAMILY
from vlmkit.connectors.merged_mlp import MergedMlp
from vlmkit.preprocess.policies.edge_cap import EdgeCap
from vlmkit.spec import SpecError

TINY = vlmkit.architecture("mistral3-tiny")


@pytest.mark.parametrize(
    "changes",
    [
        {"spatial_merge_size": 1},
        {"spatial_merge_size": 3},
        {"multimodal_projector_bias": True},
        {"tie_word_embeddings": True},
        {"vision_feature_layer": -2},
        {"projector_hidden_act": "relu"},
    ],
    ids=str,
)
def test_a_changed_field_is_the_references(changes: dict[str, Any], tmp_path: Path) -> None:
    published = reference(**changes)
    conversation = [user("Which is larger?", picture(40, 52), picture(200, 90, seed=1))]
    inputs = published.inputs(published.processor, conversation)
    model, processor = published.taken_over(tmp_path / "published")
    batch = processor([conversation], add_generation_prompt=True)
    assert batch["input_ids"].tolist() == inputs["input_ids"].tolist()
    batch["pixel_values"] = published.patches(inputs, model.config.spec.encoder)
    export(model, processor, tmp_path / "exported")
    again = type(published.model).from_pretrained(tmp_path / "exported").eval()
    read_back = type(published.processor).from_pretrained(tmp_path / "exported")
    with torch.no_grad():
        expected = published.model(**inputs).logits
        assert float((model(**batch).logits - expected).abs().max()) <= 1e-4  # measured 5e-6
        assert torch.equal(again(**published.inputs(read_back, conversation)).logits, expected)


def test_a_processor_that_counts_other_tokens_than_the_model_makes_is_refused(tmp_path: Path) -> None:
    published = reference()
    published.processor.spatial_merge_size = 1
    with pytest.raises(
        SpecError, match="patch_size=14, spatial_merge_size=1 of PixtralProcessor: the model merges 2x2 patches of 14 pixels"
    ):
        published.taken_over(tmp_path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"connector": "mlp"}, "has a 'merged_mlp' in the order 'c dh dw', but the connector is Mlp"),
        ({"connector": MergedMlp(order="dh dw c")}, "in the order 'c dh dw', but the connector is MergedMlp"),
        ({"connector": MergedMlp(norm_eps=1e-3)}, "epsilon of 1e-05 in its projector too, but the connector's norm_eps is 0.001"),
        ({"encoder": TINY.encoder.replace(layer=(-2, -1))}, "reads one layer of a 'pixtral' tower"),
        ({"layout": vlmkit.architecture("llava-1.5-tiny").layout}, "splices 'rows', but the layout is 'run'"),
    ],
)
def test_an_architecture_that_the_class_cannot_express_is_refused(changes: dict[str, Any], reason: str) -> None:
    arch = TINY.replace(**changes)
    with pytest.raises(SpecError, match=reason):
        FAMILY.config(arch, vlmkit.build_processor(TINY))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"policy": EdgeCap(longest=112, factor=56)}, "whole tokens of 28 pixels, but .*factor=56"),
        ({"layout": TINY.layout.replace(image_end=None)}, "image_end is None"),
    ],
)
def test_an_architecture_without_a_processor_is_refused(changes: dict[str, Any], reason: str) -> None:
    arch = TINY.replace(**changes)
    with pytest.raises(SpecError, match=reason):
        FAMILY.processor(arch, vlmkit.build_processor(arch))
