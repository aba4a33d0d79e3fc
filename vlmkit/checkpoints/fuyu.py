"""Checkpoints of FuyuForCausalLM: Fuyu-8B (adept.ai/blog/fuyu-8b)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlmkit.architecture import Architecture
from vlmkit.checkpoints.family import LANGUAGE_MODEL, Family, Renames
from vlmkit.checkpoints.image_processors import (
    edges_of,
    field,
    named,
    normalisation,
    refuse_others,
    resample_number,
    resample_of,
    square_of,
    stated_normalisation,
)
from vlmkit.connectors.linear import Linear
from vlmkit.encoders.patches import Patches
from vlmkit.fusion.splice import Splice
from vlmkit.language_model import LanguageModel
from vlmkit.preprocess.policies.fit_canvas import FitCanvas
from vlmkit.spec import SpecError
from vlmkit.zoo.fuyu import FUYU_ROWS

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from vlmkit.processor import VLMProcessor


class Fuyu(Family):
    def reference(self) -> type[PreTrainedModel]:
        from transformers import FuyuForCausalLM

        return FuyuForCausalLM  # type: ignore[no-any-return]

    def renames(self, architecture: Architecture) -> Renames:
        return (
            ("connector.linear.", "model.vision_embed_tokens."),
            *LANGUAGE_MODEL,
        )

    def architecture(self, config: PretrainedConfig, processor: Any) -> Architecture:
        if config.num_channels != 3:
            raise SpecError(f"num_channels: FuyuForCausalLM is given pixels of 3 colours, but the config says {config.num_channels}")
        images = processor.image_processor
        return Architecture(
            name=f"fuyu-{config.text_config.model_type}",
            policy=policy_of(images, config.patch_size),
            encoder=Patches(patch=config.patch_size, **normalisation(images)),
            connector=Linear(),
            layout=FUYU_ROWS,
            fusion=Splice(),
            language_model=LanguageModel.from_config(config.text_config),
        )

    def config(self, architecture: Architecture, processor: VLMProcessor) -> PretrainedConfig:
        from transformers import FuyuConfig

        encoder, connector = architecture.encoder, architecture.connector
        if not isinstance(encoder, Patches) or encoder.order != "dh dw c" or connector != Linear():
            raise SpecError(
                f"FuyuForCausalLM has raw patches, pixel by pixel, and a linear layer with a bias, but the encoder is {encoder} "
                f"and the connector {connector}"
            )
        if not isinstance(architecture.fusion, Splice):
            raise SpecError(f"FuyuForCausalLM splices visual tokens, but the fusion is {architecture.fusion.kind!r}")
        return FuyuConfig(
            patch_size=encoder.patch,
            image_token_id=processor.plain_tokenizer.specials[architecture.layout.placeholder],
            text_config=architecture.language_model.transformers_config(),
        )

    def processor(self, architecture: Architecture, processor: VLMProcessor) -> Any:
        """FuyuProcessor writes a prompt's first and last token itself; the line break behind the question is the caller's."""
        from transformers import FuyuImageProcessor, FuyuProcessor

        policy, encoder, layout = architecture.policy, architecture.encoder, architecture.layout
        if layout != FUYU_ROWS:
            raise SpecError(f"FuyuProcessor writes {FUYU_ROWS}, but the layout is {layout}")
        if not isinstance(policy, FitCanvas) or policy.factor != encoder.patch_size or len(set(policy.fill)) != 1:
            raise SpecError(
                f"FuyuProcessor fits a canvas and pads it in grey to whole patches of {encoder.patch_size} pixels, "
                f"but the policy is {policy}"
            )
        images = FuyuImageProcessor(
            size={"height": policy.height, "width": policy.width},
            patch_size={"height": policy.factor, "width": policy.factor},
            padding_value=float(policy.fill[0]),
            **stated_normalisation(encoder),
            resample=resample_number(policy),
        )
        return FuyuProcessor(images, processor.tokenizer)


def policy_of(images: Any, patch: int) -> FitCanvas:
    """The policy of a published image processor. Raises SpecError where it does not cut the patches that the model expects."""
    refuse_others(images, ("size", "patch_size", "padding_value"), ("crop_size", "pad_size"))
    height, width = edges_of(images, "height", "width")
    factor, value = square_of(images, "patch_size"), int(images.padding_value)
    if factor != patch or height % patch or width % patch:
        raise SpecError(f"{field(images, 'size', 'patch_size')}: the model expects whole patches of {patch} pixels")
    with named(images, "size", "patch_size", "padding_value"):
        return FitCanvas(height=height, width=width, factor=factor, fill=(value, value, value), resample=resample_of(images))


FAMILY = Fuyu()
