"""Checkpoints of PaliGemmaForConditionalGeneration: PaliGemma (arXiv:2407.07726) and PaliGemma 2 (arXiv:2412.03555)."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from vlmkit.architecture import Architecture
from vlmkit.checkpoints.chat import prompt_of
from vlmkit.checkpoints.family import LANGUAGE_MODEL, Family, Renames
from vlmkit.checkpoints.image_processors import normalisation, refuse_other_count
from vlmkit.checkpoints.one_view import image_policy, image_processor
from vlmkit.checkpoints.parts import encoder_config
from vlmkit.connectors.linear import Linear
from vlmkit.encoders.siglip import Siglip
from vlmkit.fusion.prefix import Prefix
from vlmkit.language_model import LanguageModel
from vlmkit.layout.images_first import ImagesFirst
from vlmkit.layout.jinja_template import JinjaTemplate
from vlmkit.layout.template import Template
from vlmkit.spec import SpecError
from vlmkit.zoo.paligemma import PROMPT

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from vlmkit.processor import VLMProcessor

NOT_LANGUAGE = ("use_bidirectional_attention", "num_image_tokens")
"""What the published class writes into the language model's config; fusion and encoder say it."""


class PaliGemma(Family):
    own_head = True  # Gemma 2's cap of logits

    def reference(self) -> type[PreTrainedModel]:
        from transformers import PaliGemmaForConditionalGeneration

        return PaliGemmaForConditionalGeneration  # type: ignore[no-any-return]

    def renames(self, architecture: Architecture) -> Renames:
        return (
            ("encoder.", "model.vision_tower."),
            ("connector.", "model.multi_modal_projector."),
            *LANGUAGE_MODEL,
        )

    def architecture(self, config: PretrainedConfig, processor: Any) -> Architecture:
        if config.vision_config.model_type != "siglip_vision_model":
            raise SpecError(f"vision tower {config.vision_config.model_type!r} is not the 'siglip_vision_model' of PaliGemma")
        if config.projection_dim != config.text_config.hidden_size:
            raise SpecError(
                f"projection_dim: visual tokens are {config.projection_dim} wide, but the language model {config.text_config.hidden_size}"
            )
        images, text = processor.image_processor, copy.deepcopy(config.text_config)
        for name in NOT_LANGUAGE:
            delattr(text, name)
        encoder = Siglip.from_config(config.vision_config, **normalisation(images))
        policy = image_policy(images, encoder)
        refuse_other_count(images, images.image_seq_length, encoder.native_grid.tokens, "image_seq_length")
        return Architecture(
            name=f"paligemma-{text.model_type}",
            policy=policy,
            encoder=encoder,
            connector=Linear(),
            layout=ImagesFirst(template=template_of(processor), placeholder=processor.image_token),
            fusion=Prefix(),
            language_model=LanguageModel.from_config(text),
        )

    def config(self, architecture: Architecture, processor: VLMProcessor) -> PretrainedConfig:
        from transformers import PaliGemmaConfig

        encoder, connector, language_model = architecture.encoder, architecture.connector, architecture.language_model
        published = {"layer": -1, "final_norm": True, "first_patch": "keep", "positions": "fixed"}
        if not isinstance(encoder, Siglip) or encoder != encoder.replace(**published):
            raise SpecError(f"PaliGemmaForConditionalGeneration has siglip with {published}, but the encoder is {encoder}")
        if connector != Linear():
            raise SpecError(f"PaliGemmaForConditionalGeneration has one linear layer with bias, but the connector is {connector}")
        if not isinstance(architecture.fusion, Prefix):
            raise SpecError(
                f"PaliGemmaForConditionalGeneration sees the prefix in both directions, but the fusion is {architecture.fusion.kind!r}"
            )
        if language_model.model_type not in ("gemma", "gemma2"):
            raise SpecError(f"PaliGemmaForConditionalGeneration runs gemma and gemma2, but the model type is {language_model.model_type!r}")
        return PaliGemmaConfig(
            vision_config=encoder_config(encoder, architecture.policy),
            text_config=language_model.transformers_config(),
            image_token_index=processor.plain_tokenizer.specials[architecture.layout.placeholder],
            projection_dim=language_model.dim,
            hidden_size=language_model.dim,
            tie_word_embeddings=language_model.transformers_config().tie_word_embeddings,
        )

    def processor(self, architecture: Architecture, processor: VLMProcessor) -> Any:
        from transformers import PaliGemmaProcessor
        from transformers.models.paligemma.processing_paligemma import IMAGE_TOKEN

        layout, tokenizer = architecture.layout, copy.deepcopy(processor.tokenizer)
        template = layout.template
        if isinstance(template, JinjaTemplate):
            source: str | None = template.source
            begin, end = template.begin, tokenizer.eos_token
        else:
            source, begin, end = None, template.begin, template.assistant[1]
            template = PROMPT.replace(begin=begin, assistant=("", end))
        wanted = ImagesFirst(template=template, placeholder=IMAGE_TOKEN)
        if layout != wanted or not {begin, end} <= processor.plain_tokenizer.specials.keys():
            published = ImagesFirst(template=PROMPT, placeholder=IMAGE_TOKEN)
            raise SpecError(f"PaliGemmaProcessor writes {published} with any first and last token, but the layout is {layout}")
        tokenizer.bos_token, tokenizer.eos_token = begin, end
        images = image_processor(architecture.policy, architecture.encoder)
        images.image_seq_length = architecture.encoder.native_grid.tokens  # type: ignore[attr-defined]
        made = PaliGemmaProcessor(image_processor=images, tokenizer=tokenizer, chat_template=source)
        if len(tokenizer) > architecture.language_model.vocabulary:
            raise SpecError(
                f"PaliGemmaProcessor knows {len(tokenizer):,} tokens with its locations and masks, more than the language model's "
                f"vocabulary of {architecture.language_model.vocabulary:,}"
            )
        return made


def template_of(processor: Any) -> Template | JinjaTemplate:
    """Prompts have no turns, unless the directory has a chat template. Whatever that writes, the processor puts the first token behind the
    last image, and a line break behind everything."""
    begin = processor.tokenizer.bos_token
    prompt = PROMPT.replace(begin=begin, assistant=("", processor.tokenizer.eos_token))
    if processor.chat_template is None:
        return prompt
    template, _ = prompt_of(processor, processor.image_token, (), begin=begin, end="\n")
    return template


FAMILY = PaliGemma()
