"""What checkpoints of Idefics2, Idefics3 and SmolVLM share: the tower, the turns, names of weights, what is checked."""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from vlmkit.architecture import Architecture
from vlmkit.checkpoints.chat import prompt_of, source_of
from vlmkit.checkpoints.family import Family, Renames
from vlmkit.checkpoints.image_processors import field, named, normalisation, refuse_other_count
from vlmkit.connectors.base import Connector
from vlmkit.encoders.base import Encoder
from vlmkit.encoders.siglip import Siglip
from vlmkit.fusion.splice import Splice
from vlmkit.language_model import LanguageModel
from vlmkit.layout.base import TokenLayout
from vlmkit.layout.jinja_template import JinjaTemplate
from vlmkit.layout.template import Template
from vlmkit.preprocess.geometry import Size
from vlmkit.preprocess.policies.base import ImagePolicy
from vlmkit.spec import SpecError
from vlmkit.zoo.idefics3 import END_OF_UTTERANCE

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from vlmkit.processor import VLMProcessor


class Idefics(Family):
    """SigLIP with positions at fractions of the sides -> a connector -> any language model."""

    connector_names: ClassVar[Renames]

    @abstractmethod
    def connector(self, config: PretrainedConfig) -> Connector:
        """The connector of a published config."""

    @abstractmethod
    def connector_config(self, architecture: Architecture) -> dict[str, Any]:
        """The inverse, as fields of the config. Raises SpecError for a connector that the published class does not have."""

    @abstractmethod
    def policy(self, images: Any, patch: int) -> ImagePolicy:
        """The policy of a published image processor before a tower of this patch size."""

    @abstractmethod
    def images(self, policy: ImagePolicy, encoder: Encoder) -> Any:
        """The inverse. Raises SpecError for a policy that the published class does not have."""

    @abstractmethod
    def layout(self, processor: Any, template: Template | JinjaTemplate) -> TokenLayout:
        """The layout of a published processor."""

    @abstractmethod
    def assemble(self, **parts: Any) -> Any:
        """The published processor of its image processor, tokenizer, chat template and tokens a view."""

    @property
    def name(self) -> str:
        return self.reference().__name__

    def renames(self, architecture: Architecture) -> Renames:
        return (
            ("encoder.", "model.vision_model."),
            *self.connector_names,
            ("language_model.lm_head.", "lm_head."),
            ("language_model.model.", "model.text_model."),
        )

    def architecture(self, config: PretrainedConfig, processor: Any) -> Architecture:
        images, vision, text = processor.image_processor, config.vision_config, LanguageModel.from_config(config.text_config)
        template, after_image = prompt_of(processor, processor.image_token, [(END_OF_UTTERANCE, "")])
        made = Architecture(
            name=f"{config.model_type}-{text.model_type}",
            policy=self.policy(images, vision.patch_size),
            encoder=Siglip.from_config(vision, positions="bucket", **normalisation(images)),
            connector=self.connector(config),
            layout=self.layout(processor, template).replace(after_image=after_image),
            fusion=Splice(),
            language_model=text.replace(config=text.config | {"tie_word_embeddings": config.tie_word_embeddings}),
        )
        sized = [name for name in ("size", "max_image_size") if hasattr(images, name)]
        if problems := made.policy.problems(vision.patch_size * made.connector.merge):
            raise SpecError(f"{field(images, *sized)}: {problems[0]}")
        with named(images, *sized):
            refuse_other_count(processor, processor.image_seq_len, tokens_of_a_view(made), "image_seq_len")
        return made

    def config(self, architecture: Architecture, processor: VLMProcessor) -> PretrainedConfig:
        encoder, fusion = architecture.encoder, architecture.fusion
        published = {"layer": -1, "final_norm": True, "first_patch": "keep", "positions": "bucket"}
        if not isinstance(encoder, Siglip) or encoder != encoder.replace(**published):
            raise SpecError(f"{self.name} has siglip with {published}, but the encoder is {encoder}")
        if not isinstance(fusion, Splice):
            raise SpecError(f"{self.name} splices visual tokens, but the fusion is {fusion.kind!r}")
        text = architecture.language_model.transformers_config()
        config: PretrainedConfig = self.reference().config_class(
            vision_config=encoder.numbers(),
            text_config=text,
            image_token_id=processor.plain_tokenizer.specials[architecture.layout.placeholder],
            tie_word_embeddings=text.tie_word_embeddings,
            **self.connector_config(architecture),
        )
        return config

    def processor(self, architecture: Architecture, processor: VLMProcessor) -> Any:
        policy, encoder, layout = architecture.policy, architecture.encoder, architecture.layout
        images, tokenizer = self.images(policy, encoder), copy.deepcopy(processor.tokenizer)
        made = self.assemble(
            image_processor=images,
            tokenizer=tokenizer,
            image_seq_len=tokens_of_a_view(architecture),
            chat_template=source_of(processor),
        )
        if added := tokenizer.get_added_vocab().keys() - processor.tokenizer.get_added_vocab().keys():
            raise SpecError(f"{type(made).__name__} needs {', '.join(sorted(added))}, which the tokenizer does not have")
        expressed = (self.policy(images, encoder.patch_size), self.layout(made, layout.template))
        if expressed != (policy, layout.replace(after_image="")):
            raise SpecError(f"{type(made).__name__} can express {expressed}, but not {policy} with {layout}")
        return made


def tokens_of_a_view(architecture: Architecture) -> int:
    return architecture.image_tokens(architecture.policy.plan(Size(64, 64))).grids[-1].tokens
