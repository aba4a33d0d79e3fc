"""Checkpoints of IdeficsForVisionText2Text: Idefics (arXiv:2306.16527).

The published class keeps the words that LLaMA does not have in tables of their own, behind its embeddings and behind its output layer.
Here the language model has one table of each: reading joins them, writing cuts them before the first of the image's special tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from vlmkit.architecture import Architecture
from vlmkit.checkpoints.family import Family, Renames
from vlmkit.checkpoints.image_processors import normalisation, resample_number, stated_normalisation
from vlmkit.checkpoints.one_view import image_policy, resize_fields
from vlmkit.connectors.flamingo_resampler import FlamingoResampler
from vlmkit.encoders.clip import Clip
from vlmkit.fusion.cross_attention import CrossAttention
from vlmkit.language_model import LanguageModel
from vlmkit.layout.seen_fenced import SeenFenced
from vlmkit.spec import Settings, SpecError
from vlmkit.zoo.idefics3 import END_OF_UTTERANCE

if TYPE_CHECKING:
    from collections.abc import Container

    from transformers import PretrainedConfig, PreTrainedModel

    from vlmkit.processor import VLMProcessor

NAME = "IdeficsForVisionText2Text"
LAYER = (
    ("attention.q_norm.", "cross_attn.q_layer_norm."),
    ("attention.k_norm.", "cross_attn.k_layer_norm."),
    ("attention.", "cross_attn."),
    ("norm_attention.", "input_layernorm."),
    ("norm_mlp.", "post_attention_layernorm."),
    ("gate_attention", "alpha_cross_attn"),
    ("gate_mlp", "alpha_dense"),
)
"""Names within a cross-attention layer, where they differ."""
RESAMPLER = (
    ("attention.context_norm.", "0.context_layer_norm."),
    ("attention.latents_norm.", "0.latents_layer_norm."),
    ("attention.q_norm.", "0.q_layer_norm."),
    ("attention.k_norm.", "0.k_layer_norm."),
    ("attention.o_proj.", "0.output_proj."),
    ("attention.", "0."),
    ("mlp.0.", "1.ln."),
    ("mlp.1.", "1.fc."),
    ("mlp.3.", "1.c_proj."),
)
"""Names within a layer of the resampler."""
TABLES = (
    ("model.embed_tokens.weight", "model.embed_tokens.additional_embedding.weight"),
    ("lm_head.weight", "lm_head.additional_fc.weight"),
)
"""Those of LLaMA's words, and those of the others."""
SHAPED = ("alpha_cross_attn", "alpha_dense")
"""Gates, which the published class has as (1, 1, D) where there is one a channel."""


class Idefics1(Family):
    turns: ClassVar = END_OF_UTTERANCE

    def reference(self) -> type[PreTrainedModel]:
        from transformers import IdeficsForVisionText2Text

        return IdeficsForVisionText2Text  # type: ignore[no-any-return]

    def renames(self, architecture: Architecture) -> Renames:
        connector, fusion = architecture.connector, architecture.fusion
        assert isinstance(connector, FlamingoResampler)
        assert isinstance(fusion, CrossAttention)
        crossing = range(len(fusion.places(architecture.language_model.transformers_config().num_hidden_layers)))
        resampler, gated = "model.perceiver_resampler", "model.gated_cross_attn_layers"
        return (
            ("encoder.", "model.vision_model."),
            ("connector.norm.", f"{resampler}.layer_norm."),
            *(
                (f"connector.layers.{n}.{ours}", f"{resampler}.blocks.{n}.{theirs}")
                for n in range(connector.depth)
                for ours, theirs in RESAMPLER
            ),
            ("connector.", f"{resampler}."),
            *((f"fusion.layers.{n}.{ours}", f"{gated}.{n}.{theirs}") for n in crossing for ours, theirs in LAYER),
            ("fusion.layers.", f"{gated}."),
            ("language_model.lm_head.", "lm_head."),
            ("language_model.model.", "model."),
        )

    def architecture(self, config: PretrainedConfig, processor: Any) -> Architecture:
        images, perceiver = processor.image_processor, config.perceiver_config
        if not config.use_resampler:
            raise SpecError(f"use_resampler: {NAME} without a resampler is not built")
        starts = {"zeros": 0.0, "ones": 1.0}
        encoder = Clip.from_config(config.vision_config, class_token="keep", keep_unused=True, **normalisation(images))
        return Architecture(
            name="idefics-llama",
            policy=image_policy(images, encoder, unused=("image_size", "image_num_channels", "transform")),
            encoder=encoder,
            connector=FlamingoResampler(
                latents=perceiver.resampler_n_latents,
                depth=perceiver.resampler_depth,
                heads=perceiver.resampler_n_heads,
                head_dim=perceiver.resampler_head_dim,
                qk_norm=perceiver.qk_layer_norms_perceiver,
            ),
            layout=SeenFenced(template=self.turns.replace(begin=processor.tokenizer.bos_token or ""), placeholder="<image>"),
            fusion=CrossAttention(
                before=config.cross_layer_interval,
                visual_dim=config.vision_config.embed_dim,
                activation=config.hidden_act,
                qk_norm=config.qk_layer_norms,
                gate="vector" if config.alpha_type == "vector" else "scalar",
                gate_start=starts.get(config.alpha_initializer, 0.0),
                gate_spread=0.0 if config.alpha_initializer in starts else config.alphas_initializer_range,
            ),
            language_model=LanguageModel(model_type="llama", config=Settings(language_settings(config))),
        )

    def config(self, architecture: Architecture, processor: VLMProcessor) -> PretrainedConfig:
        from transformers import IdeficsConfig

        encoder, connector, fusion, layout = architecture.encoder, architecture.connector, architecture.fusion, architecture.layout
        text = architecture.language_model.transformers_config()
        published = {"layer": -1, "final_norm": False, "class_token": "keep", "positions": "fixed", "keep_unused": True}
        if not isinstance(encoder, Clip) or encoder != encoder.replace(**published):
            raise SpecError(f"{NAME} has clip with {published}, but the encoder is {encoder}")
        if not isinstance(connector, FlamingoResampler):
            raise SpecError(f"{NAME} has a 'flamingo_resampler', but the connector is {connector.kind!r}")
        if not isinstance(layout, SeenFenced):
            raise SpecError(f"{NAME} looks at images whose marks are 'seen_fenced', but the layout is {layout.kind!r}")
        varied = ("before", "qk_norm", "gate", "gate_start", "gate_spread")
        plain = isinstance(fusion, CrossAttention) and fusion == CrossAttention(
            visual_dim=encoder.dim_out, activation=text.hidden_act, **{name: getattr(fusion, name) for name in varied}
        )
        if not plain or not isinstance(fusion, CrossAttention) or not isinstance(fusion.before, int):
            raise SpecError(
                f"{NAME} has cross_attention before every n-th layer, over features {encoder.dim_out} wide, with the language model's "
                f"activation {text.hidden_act!r}, but the fusion is {fusion}"
            )
        if text.model_type != "llama" or text.num_key_value_heads != text.num_attention_heads:
            raise SpecError(f"{NAME} has 'llama' with a head of keys and values for each of queries, but the language model is {text}")
        specials = processor.plain_tokenizer.specials
        words = min(specials[layout.placeholder], specials[layout.boundary])
        start = {0.0: "zeros", 1.0: "ones"}.get(fusion.gate_start) if not fusion.gate_spread else "normal"
        if start is None:
            raise SpecError(f"{NAME} begins with gates of 0 or 1, or spread around 0, but the fusion's begin at {fusion.gate_start}")
        return IdeficsConfig(
            **{name: getattr(text, name) for name in SAME},
            vocab_size=words,
            additional_vocab_size=text.vocab_size - words,
            tie_word_embeddings=text.tie_word_embeddings,
            rope_parameters=text.rope_parameters,
            cross_layer_interval=fusion.before,
            qk_layer_norms=fusion.qk_norm,
            alpha_type="vector" if fusion.gate == "vector" else "float",
            alpha_initializer=start,
            alphas_initializer_range=fusion.gate_spread,
            use_resampler=True,
            vision_config={**encoder.numbers(), "embed_dim": encoder.width},
            perceiver_config={
                "use_resampler": True,
                "resampler_n_latents": connector.latents,
                "resampler_depth": connector.depth,
                "resampler_n_heads": connector.heads,
                "resampler_head_dim": connector.head_dim,
                "qk_layer_norms_perceiver": connector.qk_norm,
            },
        )

    def processor(self, architecture: Architecture, processor: VLMProcessor) -> Any:
        from transformers import IdeficsImageProcessor, IdeficsProcessor

        policy, encoder, layout = architecture.policy, architecture.encoder, architecture.layout
        assert isinstance(encoder, Clip)
        fields = resize_fields(policy, encoder.patch_size)
        if fields is None:
            raise SpecError(f"{NAME} sees one view, such as 'squash' with size={encoder.image_size}, but the policy is {policy}")
        turns = self.turns.replace(begin=processor.tokenizer.bos_token or "")
        if layout != SeenFenced(template=turns, placeholder="<image>"):
            raise SpecError(
                f"{NAME}'s processor can express {SeenFenced(template=turns, placeholder='<image>')}, but the layout is {layout}"
            )
        images = IdeficsImageProcessor(**fields, resample=resample_number(policy), **stated_normalisation(encoder))
        return IdeficsProcessor(images, processor.tokenizer)

    def read(self, reference: PreTrainedModel, directory: str, missing: Container[str]) -> dict[str, Tensor]:
        weights = super().read(reference, directory, missing)
        for table, further in TABLES:
            if further in weights:
                weights[table] = torch.cat([weights[table], weights.pop(further)])
        return {name: tensor.flatten() if name.endswith(SHAPED) else tensor for name, tensor in weights.items()}

    def write(self, weights: dict[str, Tensor], config: PretrainedConfig) -> dict[str, Tensor]:
        written = dict(weights)
        for table, further in TABLES:
            whole = written[table]
            written[table] = whole[: config.vocab_size].clone()
            if config.additional_vocab_size:
                written[further] = whole[config.vocab_size :].clone()
        if config.alpha_type == "vector":
            written = {name: tensor[None, None] if name.endswith(SHAPED) else tensor for name, tensor in written.items()}
        return written


SAME = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_act",
    "initializer_range",
    "rms_norm_eps",
    "max_position_embeddings",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
)
"""Settings that LLaMA and the published class share."""


def language_settings(config: PretrainedConfig) -> dict[str, Any]:
    """LLaMA's settings of a published config, those left out that are LLaMA's own."""
    from transformers import LlamaConfig

    own = LlamaConfig(
        **{name: getattr(config, name) for name in SAME},
        num_key_value_heads=config.num_attention_heads,
        vocab_size=config.vocab_size + config.additional_vocab_size,
        rope_parameters=config.rope_parameters,
        tie_word_embeddings=config.tie_word_embeddings,
    )
    return LanguageModel.from_config(own).config.to_dict()


FAMILY = Idefics1()
