"""Checkpoints of Mistral3ForConditionalGeneration: Mistral Small 3.1 and 3.2 (mistral.ai/news/mistral-small-3-1)."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from vlmkit.architecture import Architecture
from vlmkit.checkpoints.chat import source_of
from vlmkit.checkpoints.family import LANGUAGE_MODEL, Family, Renames
from vlmkit.checkpoints.image_processors import field
from vlmkit.checkpoints.llava import layout_of
from vlmkit.checkpoints.one_view import image_policy, image_processor
from vlmkit.checkpoints.projector import config_fields, parts_of
from vlmkit.connectors.merged_mlp import MergedMlp
from vlmkit.connectors.mlp import Mlp
from vlmkit.encoders.pixtral import Pixtral
from vlmkit.layout.rows import Rows
from vlmkit.preprocess.policies.edge_cap import EdgeCap
from vlmkit.spec import SpecError
from vlmkit.zoo.mistral3 import MISTRAL_V7
from vlmkit.zoo.pixtral import MISTRAL_TEKKEN

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from vlmkit.processor import VLMProcessor

NAME = "Mistral3ForConditionalGeneration"
PROMPTS = ((MISTRAL_V7, ""), (MISTRAL_TEKKEN, ""))
"""Templates of turns in the checkpoints of this class, each with the text after an image; the first where none is stated."""


class Mistral3(Family):
    def reference(self) -> type[PreTrainedModel]:
        from transformers import Mistral3ForConditionalGeneration

        return Mistral3ForConditionalGeneration  # type: ignore[no-any-return]

    def renames(self, architecture: Architecture) -> Renames:
        projector = "model.multi_modal_projector"
        return (
            ("encoder.", "model.vision_tower."),
            ("connector.merge.", f"{projector}.patch_merger.merging_layer."),
            ("connector.mlp.0.", f"{projector}.linear_1."),
            ("connector.mlp.2.", f"{projector}.linear_2."),
            ("connector.", f"{projector}."),
            *LANGUAGE_MODEL,
        )

    def architecture(self, config: PretrainedConfig, processor: Any) -> Architecture:
        stated = copy.copy(config)
        stated.vision_feature_select_strategy = "full"  # the class reads every patch, and has no word for it
        parts = parts_of(stated, processor.image_processor)
        encoder, mlp, ratio = parts["encoder"], parts["connector"], config.spatial_merge_size
        if not isinstance(encoder, Pixtral) or isinstance(encoder.layer, tuple):
            raise SpecError(f"{NAME} reads one layer of a 'pixtral' tower, but the encoder is {encoder}")
        if (processor.patch_size, processor.spatial_merge_size) != (encoder.patch, ratio):
            raise SpecError(
                f"{field(processor, 'patch_size', 'spatial_merge_size')}: the model merges {ratio}x{ratio} patches of {encoder.patch} "
                "pixels"
            )
        return Architecture(
            name=f"mistral3-{config.text_config.model_type}",
            policy=image_policy(processor.image_processor, encoder, patch=encoder.patch * ratio),
            layout=layout_of(processor, PROMPTS),
            **parts
            | {"connector": MergedMlp(ratio=ratio, norm_eps=norm_eps(config.text_config), activation=mlp.activation, bias=mlp.bias)},
        )

    def config(self, architecture: Architecture, processor: VLMProcessor) -> PretrainedConfig:
        from transformers import Mistral3Config

        encoder, connector, layout = architecture.encoder, architecture.connector, architecture.layout
        if not isinstance(connector, MergedMlp) or connector.order != "c dh dw":
            raise SpecError(f"{NAME} has a 'merged_mlp' in the order 'c dh dw', but the connector is {connector}")
        if not isinstance(encoder, Pixtral) or isinstance(encoder.layer, tuple):
            raise SpecError(f"{NAME} reads one layer of a 'pixtral' tower, but the encoder is {encoder}")
        if not isinstance(layout, Rows):
            raise SpecError(f"{NAME} splices 'rows', but the layout is {layout.kind!r}")
        mlp = Mlp(depth=2, activation=connector.activation, bias=connector.bias)
        fields = config_fields(NAME, architecture.replace(connector=mlp), processor)
        del fields["vision_feature_select_strategy"]
        if connector.norm_eps != norm_eps(fields["text_config"]):
            raise SpecError(
                f"{NAME} has the language model's epsilon of {norm_eps(fields['text_config'])} in its projector too, but the connector's "
                f"norm_eps is {connector.norm_eps}"
            )
        return Mistral3Config(spatial_merge_size=connector.ratio, **fields)

    def processor(self, architecture: Architecture, processor: VLMProcessor) -> Any:
        from transformers import PixtralProcessor

        policy, encoder, layout, connector = architecture.policy, architecture.encoder, architecture.layout, architecture.connector
        assert isinstance(layout, Rows)
        step = encoder.patch_size * connector.merge
        if layout.image_end is None or not isinstance(policy, EdgeCap) or policy.factor != step:
            raise SpecError(
                f"PixtralProcessor ends an image with a token and rounds its sides up to whole tokens of {step} pixels, but image_end is "
                f"{layout.image_end!r} and the policy {policy}"
            )
        return PixtralProcessor(
            image_processor=image_processor(policy, encoder),
            tokenizer=processor.tokenizer,
            patch_size=encoder.patch_size,
            spatial_merge_size=connector.merge,
            image_token=layout.placeholder,
            image_break_token=layout.row_end,
            image_end_token=layout.image_end,
            chat_template=source_of(processor),
        )


def norm_eps(text: PretrainedConfig) -> float:
    """The epsilon that the projector takes from the language model. Raises SpecError for one whose norms are no RMSNorm."""
    found = getattr(text, "rms_norm_eps", None)
    if found is None:
        raise SpecError(f"{NAME} takes the epsilon of its projector from the language model, and {text.model_type!r} has no rms_norm_eps")
    return float(found)


FAMILY = Mistral3()
