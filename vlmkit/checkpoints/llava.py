"""Checkpoints of LlavaForConditionalGeneration: LLaVA-1.5 (arXiv:2310.03744), BakLLaVA, Maya, Pixtral and others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlmkit.architecture import Architecture
from vlmkit.checkpoints.chat import prompt_of, source_of
from vlmkit.checkpoints.family import Family, Renames
from vlmkit.checkpoints.image_processors import field, refuse_other_count
from vlmkit.checkpoints.one_view import image_policy, image_processor
from vlmkit.checkpoints.parts import strategy_of
from vlmkit.checkpoints.projector import RENAMES, config_fields, parts_of
from vlmkit.encoders.base import Encoder
from vlmkit.encoders.pixtral import Pixtral
from vlmkit.layout.base import TokenLayout
from vlmkit.layout.rows import Rows
from vlmkit.layout.run import Run
from vlmkit.layout.template import Template
from vlmkit.preprocess.geometry import Size
from vlmkit.preprocess.policies.base import ImagePolicy
from vlmkit.preprocess.policies.edge_cap import EdgeCap
from vlmkit.spec import SpecError
from vlmkit.zoo.aimv2 import LLAMA_3
from vlmkit.zoo.llava import VICUNA_V1
from vlmkit.zoo.maya import AYA_23
from vlmkit.zoo.pixtral import MISTRAL_TEKKEN

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from vlmkit.processor import VLMProcessor

PROMPTS = ((VICUNA_V1, "\n"), (AYA_23, "\n"), (LLAMA_3, "\n"), (MISTRAL_TEKKEN, ""))
"""Templates of turns in the checkpoints of this class, each with the text after an image; the first where none is stated."""


class Llava(Family):
    def reference(self) -> type[PreTrainedModel]:
        from transformers import LlavaForConditionalGeneration

        return LlavaForConditionalGeneration  # type: ignore[no-any-return]

    def renames(self, architecture: Architecture) -> Renames:
        return RENAMES

    def architecture(self, config: PretrainedConfig, processor: Any) -> Architecture:
        parts = parts_of(config, processor.image_processor)
        return Architecture(
            name=f"llava-{config.text_config.model_type}",
            policy=policy_of(processor, parts["encoder"]),
            layout=layout_of(processor),
            **parts,
        )

    def config(self, architecture: Architecture, processor: VLMProcessor) -> PretrainedConfig:
        from transformers import LlavaConfig

        name = "LlavaForConditionalGeneration"
        fields = config_fields(name, architecture, processor)
        encoder, layout = architecture.encoder, architecture.layout
        expected = Rows if isinstance(encoder, Pixtral) else Run
        if not isinstance(layout, expected):
            raise SpecError(f"{name} splices {expected.kind!r} of a {encoder.kind!r} tower's tokens, but the layout is {layout.kind!r}")
        return LlavaConfig(**fields)

    def processor(self, architecture: Architecture, processor: VLMProcessor) -> Any:
        from transformers import LlavaProcessor, PixtralProcessor

        policy, encoder, layout = architecture.policy, architecture.encoder, architecture.layout
        common = {
            "image_processor": image_processor(policy, encoder),
            "tokenizer": processor.tokenizer,
            "patch_size": encoder.patch_size,
            "image_token": layout.placeholder,
            "chat_template": source_of(processor),
        }
        if isinstance(layout, Rows):
            if layout.image_end is None or not isinstance(policy, EdgeCap) or policy.factor != encoder.patch_size:
                raise SpecError(
                    f"PixtralProcessor ends an image with a token and rounds its sides up to whole patches of {encoder.patch_size} pixels, "
                    f"but image_end is {layout.image_end!r} and the policy {policy}"
                )
            return PixtralProcessor(image_break_token=layout.row_end, image_end_token=layout.image_end, **common)
        if isinstance(policy, EdgeCap):
            raise SpecError(f"LlavaProcessor makes squares, but the policy is {policy.kind!r}")
        return LlavaProcessor(
            vision_feature_select_strategy=strategy_of(encoder),
            num_additional_image_tokens=getattr(encoder, "class_positions", 0),
            **common,
        )


def policy_of(processor: Any, encoder: Encoder) -> ImagePolicy:
    """The policy of a published processor. Raises SpecError where it writes another number of placeholders than the tower gives tokens."""
    if hasattr(processor, "image_break_token"):
        patch, merge = processor.patch_size, processor.spatial_merge_size
        if not isinstance(patch, int) or patch * merge != encoder.patch_size:
            stated = field(processor, "patch_size", "spatial_merge_size")
            raise SpecError(f"{stated}: the tower gives a token for each patch of {encoder.patch_size} pixels")
        return image_policy(processor.image_processor, encoder, patch=patch * merge)
    policy = image_policy(processor.image_processor, encoder)
    names, patch = ("patch_size", "num_additional_image_tokens", "vision_feature_select_strategy"), processor.patch_size
    for size in (Size(64, 64), Size(48, 96)):
        (view,) = policy.plan(size).views
        whole = isinstance(patch, int) and (view.height // patch) * (view.width // patch)
        written = whole + processor.num_additional_image_tokens - (processor.vision_feature_select_strategy == "default")
        refuse_other_count(processor, written, encoder.grid_out(view.grid(encoder.patch_size)).tokens, *names)
    return policy


def layout_of(processor: Any, prompts: tuple[tuple[Template, str], ...] = PROMPTS) -> TokenLayout:
    """The layout of a LlavaProcessor, or of a PixtralProcessor, whose images have rows."""
    template, after_image = prompt_of(processor, processor.image_token, prompts)
    if not hasattr(processor, "image_break_token"):
        return Run(template=template, placeholder=processor.image_token, after_image=after_image)
    return Rows(
        template=template,
        placeholder=processor.image_token,
        after_image=after_image,
        row_end=processor.image_break_token,
        image_end=processor.image_end_token,
    )


FAMILY = Llava()
