"""Checkpoints of AriaForConditionalGeneration: ARIA (arXiv:2410.05993)."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

from vlmkit.architecture import Architecture
from vlmkit.checkpoints.chat import prompt_of, source_of
from vlmkit.checkpoints.family import LANGUAGE_MODEL, Family, Renames
from vlmkit.checkpoints.image_processors import (
    field,
    named,
    normalisation,
    refuse_others,
    resample_number,
    resample_of,
    stated_normalisation,
)
from vlmkit.connectors.query_attention import QueryAttention
from vlmkit.encoders.siglip import Siglip
from vlmkit.fusion.splice import Splice
from vlmkit.language_model import LanguageModel
from vlmkit.layout.bracketed import Bracketed
from vlmkit.layout.template import CHATML
from vlmkit.preprocess.policies.edge_fit import EdgeFit
from vlmkit.spec import SpecError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from vlmkit.processor import VLMProcessor

NAME = "AriaForConditionalGeneration"
START, END = "<fim_prefix>", "<fim_suffix>"
"""What the published template writes around an image."""


class Aria(Family):
    def reference(self) -> type[PreTrainedModel]:
        from transformers import AriaForConditionalGeneration

        return AriaForConditionalGeneration  # type: ignore[no-any-return]

    def renames(self, architecture: Architecture) -> Renames:
        return (
            ("encoder.", "model.vision_tower."),
            ("connector.", "model.multi_modal_projector."),
            *LANGUAGE_MODEL,
        )

    def architecture(self, config: PretrainedConfig, processor: Any) -> Architecture:
        vision, images, text = config.vision_config, processor.image_processor, LanguageModel.from_config(config.text_config)
        if vision.model_type != "idefics3_vision" or not isinstance(config.vision_feature_layer, int):
            raise SpecError(
                f"vlmkit builds Aria's 'idefics3_vision' tower and reads one layer of it, but the checkpoint has {vision.model_type!r} and "
                f"reads {config.vision_feature_layer}"
            )
        placeholder = processor.image_token
        template, after_image = prompt_of(processor, START + placeholder + END, [(CHATML, "")])
        queries = tuple(sorted((_side(patches), count) for patches, count in config.projector_patch_to_query_dict.items()))
        most = max(count for _, count in queries)
        if config.max_value_projector_patch_to_query_dict != most:
            raise SpecError(
                f"max_value_projector_patch_to_query_dict: projector_patch_to_query_dict has at most {most} queries, not "
                f"{config.max_value_projector_patch_to_query_dict}"
            )
        written = {pixels: processor.size_conversion.get(pixels) for pixels in (side * vision.patch_size for side, _ in queries)}
        if list(written.values()) != [count for _, count in queries]:
            raise SpecError(
                f"the projector gives tokens by {queries} (patches of a side, tokens), but the processor writes {written} "
                f"({field(processor, 'size_conversion')})"
            )
        return Architecture(
            name="aria",
            policy=policy_of(processor, vision.patch_size),
            encoder=Siglip.from_config(
                vision,
                layer=config.vision_feature_layer,
                final_norm=False,
                positions="bucket",
                keep_unused=True,
                **normalisation(images),
            ),
            connector=QueryAttention(queries=queries, heads=vision.num_attention_heads),
            layout=Bracketed(template=template, placeholder=placeholder, after_image=after_image, start=START, end=END),
            fusion=Splice(),
            language_model=text.replace(config=text.config | {"tie_word_embeddings": config.tie_word_embeddings}),
        )

    def config(self, architecture: Architecture, processor: VLMProcessor) -> PretrainedConfig:
        from transformers import AriaConfig

        encoder, connector, layout = architecture.encoder, architecture.connector, architecture.layout
        published = {"final_norm": False, "first_patch": "keep", "positions": "bucket", "keep_unused": True}
        if not isinstance(encoder, Siglip) or encoder != encoder.replace(**published) or not isinstance(encoder.layer, int):
            raise SpecError(f"{NAME} has siglip with {published} and one layer, but the encoder is {encoder}")
        if not isinstance(connector, QueryAttention) or connector != QueryAttention(queries=connector.queries, heads=encoder.heads):
            raise SpecError(f"{NAME} has query_attention with the encoder's {encoder.heads} heads, but the connector is {connector}")
        if type(layout) is not Bracketed or (layout.start, layout.end) != (START, END):
            raise SpecError(f"{NAME} stands between {START} and {END}, but the layout is {layout}")
        if not isinstance(architecture.fusion, Splice):
            raise SpecError(f"{NAME} splices visual tokens, but the fusion is {architecture.fusion.kind!r}")
        text = architecture.language_model.transformers_config()
        if text.model_type != "aria_text":
            raise SpecError(f"{NAME} runs aria_text, but the model type is {text.model_type!r}")
        return AriaConfig(
            vision_config={"model_type": "idefics3_vision", **encoder.numbers()},
            text_config=text.to_dict(),
            vision_feature_layer=encoder.layer,
            projector_patch_to_query_dict={side**2: count for side, count in connector.queries},
            image_token_index=processor.plain_tokenizer.specials[layout.placeholder],
            tie_word_embeddings=text.tie_word_embeddings,
        )

    def processor(self, architecture: Architecture, processor: VLMProcessor) -> Any:
        from transformers import AriaImageProcessor, AriaProcessor

        policy, encoder, connector, layout = architecture.policy, architecture.encoder, architecture.connector, architecture.layout
        assert isinstance(encoder, Siglip)
        assert isinstance(connector, QueryAttention)
        longest, patch = AriaProcessor.images_kwargs["max_image_size"], encoder.patch
        if not isinstance(policy, EdgeFit) or policy != EdgeFit(
            longest=longest, shortest=policy.shortest, factor=patch, resample=policy.resample
        ):
            raise SpecError(f"AriaProcessor sees edge_fit(longest={longest}, factor={patch}) unless it is told otherwise, not {policy}")
        if longest not in (sizes := {side * patch: count for side, count in connector.queries}):
            raise SpecError(f"AriaProcessor knows no number of tokens for {longest} pixels, but {sizes}")
        tokenizer = copy.deepcopy(processor.tokenizer)
        tokenizer._set_model_specific_special_tokens({"image_token": layout.placeholder})
        images = AriaImageProcessor(
            max_image_size=policy.longest,
            min_image_size=policy.shortest,
            **stated_normalisation(encoder),
            resample=resample_number(policy),
        )
        return AriaProcessor(images, tokenizer, chat_template=source_of(processor), size_conversion=sizes)


def policy_of(processor: Any, patch: int) -> EdgeFit:
    """The policy of a published processor, which tells its image processor some fields, whatever that states itself."""
    images, told = processor.image_processor, processor.images_kwargs
    unused = ("split_resolutions", "do_resize", "size", "do_pad", "pad_size", "crop_size")
    refuse_others(images, ("min_image_size",), (*told, *unused))
    with named(images, "min_image_size"):
        return EdgeFit(longest=told["max_image_size"], shortest=images.min_image_size, factor=patch, resample=resample_of(images))


def _side(patches: int) -> int:
    """The side of a square of so many patches. Raises SpecError for what is no square."""
    side = math.isqrt(patches)
    if side**2 != patches:
        raise SpecError(f"projector_patch_to_query_dict: AriaProcessor pads to squares, but {patches} patches are none")
    return side


FAMILY = Aria()
