"""What LLaVA's classes in transformers share: a tower whose hidden states are read, a 2-layer MLP, a decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlmkit.activations import OWN, THEIRS
from vlmkit.architecture import Architecture
from vlmkit.checkpoints.family import LANGUAGE_MODEL, Renames
from vlmkit.checkpoints.image_processors import normalisation
from vlmkit.checkpoints.parts import encoder_config, encoder_from, strategy_of
from vlmkit.connectors.mlp import Mlp
from vlmkit.fusion.splice import Splice
from vlmkit.language_model import LanguageModel
from vlmkit.spec import SpecError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from vlmkit.processor import VLMProcessor

RENAMES: Renames = (
    ("encoder.", "model.vision_tower."),
    ("connector.layers.0.", "model.multi_modal_projector.linear_1."),
    ("connector.layers.1.", "model.multi_modal_projector.act."),
    ("connector.layers.2.", "model.multi_modal_projector.linear_2."),
    *LANGUAGE_MODEL,
)


def parts_of(config: PretrainedConfig, image_processor: Any) -> dict[str, Any]:
    """Encoder, connector, fusion and language model of a published config."""
    act = config.projector_hidden_act
    encoder = encoder_from(
        config.vision_config,
        layer=config.vision_feature_layer,
        strategy=config.vision_feature_select_strategy,
        **normalisation(image_processor),
    )
    return {
        "encoder": encoder,
        "connector": Mlp(depth=2, activation=THEIRS.get(act, act), bias=config.multimodal_projector_bias),
        "fusion": Splice(),
        "language_model": LanguageModel.from_config(config.text_config),
    }


def config_fields(model: str, architecture: Architecture, processor: VLMProcessor) -> dict[str, Any]:
    """The inverse: arguments of the config class of `model`. Raises SpecError for parts that it cannot express."""
    encoder, connector = architecture.encoder, architecture.connector
    if not isinstance(connector, Mlp) or connector != Mlp(depth=2, activation=connector.activation, bias=connector.bias):
        raise SpecError(f"{model} has a plain 2-layer mlp, but the connector is {connector}")
    if not isinstance(architecture.fusion, Splice):
        raise SpecError(f"{model} splices visual tokens, but the fusion is {architecture.fusion.kind!r}")
    if getattr(encoder, "final_norm", False):
        raise SpecError(f"{model} reads layers before the final norm, but the {encoder.kind!r} tower applies it")
    layer = getattr(encoder, "layer", -1)
    return {
        "vision_config": encoder_config(encoder, architecture.policy),
        "text_config": architecture.language_model.transformers_config(),
        "image_token_index": processor.plain_tokenizer.specials[architecture.layout.placeholder],
        "projector_hidden_act": OWN.get(connector.activation, connector.activation),
        "vision_feature_select_strategy": strategy_of(encoder),
        "vision_feature_layer": list(layer) if isinstance(layer, tuple) else layer,
        "multimodal_projector_bias": connector.bias,
    }
