"""Checkpoints of MllamaForConditionalGeneration: Llama 3.2-Vision (arXiv:2407.21783) and LLaVA-CoT (arXiv:2411.10440).

The published class counts its cross-attention layers among those of the language model. Here they are the fusion's, and stand before
the layers that are left: of forty with cross-attention at 3, 8, ... thirty-two, before 3, 7, ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlmkit.architecture import Architecture
from vlmkit.checkpoints.chat import prompt_of, source_of
from vlmkit.checkpoints.family import LANGUAGE_MODEL, Family, Renames
from vlmkit.checkpoints.image_processors import (
    field,
    normalisation,
    refuse_others,
    refuse_unfit,
    resample_number,
    resample_of,
    square_of,
    stated_normalisation,
)
from vlmkit.connectors.linear import Linear
from vlmkit.encoders.mllama import Mllama
from vlmkit.fusion.cross_attention import CrossAttention
from vlmkit.language_model import LanguageModel
from vlmkit.layout.seen import SeenMark
from vlmkit.preprocess.policies.canvas_tiles import CanvasTiles
from vlmkit.spec import SpecError
from vlmkit.zoo.aimv2 import LLAMA_3

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from vlmkit.processor import VLMProcessor

NAME = "MllamaForConditionalGeneration"
LAYER = (
    ("attention.", "cross_attn."),
    ("norm_attention.", "input_layernorm."),
    ("norm_mlp.", "post_attention_layernorm."),
    ("mlp.", "mlp."),
    ("gate_attention", "cross_attn_attn_gate"),
    ("gate_mlp", "cross_attn_mlp_gate"),
)
"""Names within a cross-attention layer."""


class MllamaFamily(Family):
    def reference(self) -> type[PreTrainedModel]:
        from transformers import MllamaForConditionalGeneration

        return MllamaForConditionalGeneration  # type: ignore[no-any-return]

    def renames(self, architecture: Architecture) -> Renames:
        own, crossing = numbered(architecture)
        theirs = "model.language_model.layers"
        return (
            ("encoder.", "model.vision_model."),
            ("connector.linear.", "model.multi_modal_projector."),
            *((f"fusion.layers.{ours}.{name}", f"{theirs}.{at}.{other}") for ours, at in enumerate(crossing) for name, other in LAYER),
            *((f"language_model.model.layers.{ours}.", f"{theirs}.{at}.") for ours, at in enumerate(own)),
            *LANGUAGE_MODEL,
        )

    def architecture(self, config: PretrainedConfig, processor: Any) -> Architecture:
        images, text = processor.image_processor, config.text_config
        template, after_image = prompt_of(processor, processor.image_token, [(LLAMA_3, "")])
        language_model = LanguageModel.from_config(text)
        crossing = text.cross_attention_layers
        settings = {"num_hidden_layers": text.num_hidden_layers - len(crossing), "cross_attention_layers": []}
        encoder = Mllama.from_config(config.vision_config, **normalisation(images))
        return Architecture(
            name="mllama",
            policy=policy_of(images, encoder),
            encoder=encoder,
            connector=Linear(),
            layout=SeenMark(template=template, placeholder=processor.image_token, after_image=after_image),
            fusion=CrossAttention(
                before=tuple(at - number for number, at in enumerate(crossing)),
                activation=text.hidden_act,
                looks_at_none="everything",
                feeds="seeing",
            ),
            language_model=language_model.replace(config=language_model.config | settings),
        )

    def config(self, architecture: Architecture, processor: VLMProcessor) -> PretrainedConfig:
        from transformers import MllamaConfig

        encoder, fusion, layout = architecture.encoder, architecture.fusion, architecture.layout
        text = architecture.language_model.transformers_config()
        if not isinstance(encoder, Mllama):
            raise SpecError(f"{NAME} has an 'mllama' tower, but the encoder is {encoder.kind!r}")
        if architecture.connector != Linear():
            raise SpecError(f"{NAME} has one linear layer, but the connector is {architecture.connector}")
        if not isinstance(layout, SeenMark):
            raise SpecError(f"{NAME} looks at images whose marks are 'seen', but the layout is {layout.kind!r}")
        if not isinstance(fusion, CrossAttention) or fusion != CrossAttention(
            before=fusion.before, activation=text.hidden_act, looks_at_none="everything", feeds="seeing"
        ):
            raise SpecError(
                f"{NAME} has cross_attention(looks_at_none='everything', feeds='seeing') with the language model's activation "
                f"{text.hidden_act!r}, but the fusion is {fusion}"
            )
        if text.model_type != "mllama_text_model" or text.cross_attention_layers:
            raise SpecError(f"{NAME} has 'mllama_text_model' without cross_attention_layers, but the language model is {text.model_type!r}")
        own, crossing = numbered(architecture)
        text.num_hidden_layers, text.cross_attention_layers = len(own) + len(crossing), list(crossing)
        return MllamaConfig(
            vision_config=encoder.numbers(),
            text_config=text.to_dict(),
            image_token_index=processor.plain_tokenizer.specials[layout.placeholder],
        )

    def processor(self, architecture: Architecture, processor: VLMProcessor) -> Any:
        from transformers import MllamaImageProcessor, MllamaProcessor

        policy, encoder = architecture.policy, architecture.encoder
        assert isinstance(encoder, Mllama)
        size, tiles = encoder.image_size, encoder.tiles
        if not isinstance(policy, CanvasTiles) or policy != CanvasTiles(size=size, tiles=tiles, resample=policy.resample):
            raise SpecError(f"{NAME} sees canvas_tiles(size={size}, tiles={tiles}) with black beside the image, but the policy is {policy}")
        images = MllamaImageProcessor(
            size={"height": policy.size, "width": policy.size},
            max_image_tiles=policy.tiles,
            **stated_normalisation(encoder),
            resample=resample_number(policy),
        )
        return MllamaProcessor(images, processor.tokenizer, chat_template=source_of(processor))


def policy_of(images: Any, encoder: Mllama) -> CanvasTiles:
    """The policy of a published image processor. Raises SpecError where its tiles are not those that the tower expects."""
    refuse_others(images, ("size", "max_image_tiles"), ("pad_size", "crop_size"))
    if images.max_image_tiles != encoder.tiles:
        raise SpecError(f"{field(images, 'max_image_tiles')}: the tower tells up to {encoder.tiles} tiles of an image apart")
    policy = CanvasTiles(size=square_of(images), tiles=images.max_image_tiles, resample=resample_of(images))
    refuse_unfit(policy, encoder, images, "size")
    return policy


def numbered(architecture: Architecture) -> tuple[list[int], list[int]]:
    """Where the language model's layers and those of the fusion stand among all layers of the published class."""
    assert isinstance(architecture.fusion, CrossAttention)
    count = architecture.language_model.transformers_config().num_hidden_layers
    before = architecture.fusion.places(count)
    own = [number + sum(place <= number for place in before) for number in range(count)]
    return own, [place + number for number, place in enumerate(before)]


FAMILY = MllamaFamily()
