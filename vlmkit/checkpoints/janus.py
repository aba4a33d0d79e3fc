"""Checkpoints of JanusForConditionalGeneration: Janus-Pro (arXiv:2501.17811), its understanding side."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, ClassVar

from vlmkit.activations import LEARNED, THEIRS
from vlmkit.architecture import Architecture
from vlmkit.checkpoints.chat import prompt_of, source_of
from vlmkit.checkpoints.family import LANGUAGE_MODEL, Family, Renames
from vlmkit.checkpoints.image_processors import (
    mean_colour,
    named,
    normalisation,
    refuse_other_count,
    refuse_others,
    refuse_unfit,
    resample_number,
    resample_of,
    square_of,
    stated_normalisation,
)
from vlmkit.connectors.mlp import Mlp
from vlmkit.encoders.hf import named_theirs
from vlmkit.encoders.siglip import Siglip
from vlmkit.fusion.splice import Splice
from vlmkit.language_model import LanguageModel
from vlmkit.layout.bracketed_lines import BracketedLines
from vlmkit.preprocess.policies.letterbox import Letterbox
from vlmkit.spec import SpecError
from vlmkit.zoo.janus import PROMPT

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

    from vlmkit.model import VLM
    from vlmkit.processor import VLMProcessor

PROMPTS = ((PROMPT.replace(preface=""), ""), (PROMPT, ""))
"""Published processors write the default system message themselves, exported ones leave it to their template."""
IMAGE = "{{% if not loop.first %}}{{{{ '\\n' }}}}{{% endif %}}{}{{% if not loop.last %}}{{{{ '\\n' }}}}{{% endif %}}"
"""An image in Jinja, on a line of its own."""
PLAIN = {"num_channels": 3, "use_qk_norm": False, "attention_bias": True}
"""Settings of the published tower that vlmkit's has no other choice for. With norms of queries and keys transformers' own class fails:
each is as wide as all heads together, and is given one."""


class Janus(Family):
    unread: ClassVar[tuple[str, ...]] = (
        "model.vqmodel",
        "model.generation_embeddings",
        "model.generation_aligner",
        "model.generation_head",
    )

    def reference(self) -> type[PreTrainedModel]:
        from transformers import JanusForConditionalGeneration

        return JanusForConditionalGeneration  # type: ignore[no-any-return]

    def renames(self, architecture: Architecture) -> Renames:
        encoder, connector = architecture.encoder, architecture.connector
        assert isinstance(encoder, Siglip)
        assert isinstance(connector, Mlp)
        blocks = (("encoder.encoder.layers", "model.vision_model.encoder.layers", number) for number in range(encoder.blocks))
        return (
            *((f"{ours}.{n}.self_attn.out_proj.", f"{theirs}.{n}.self_attn.projection_layer.") for ours, theirs, n in blocks),
            ("encoder.", "model.vision_model."),
            ("connector.layers.0.", "model.aligner.fc1."),
            *((("connector.layers.1.", "model.aligner.activation_fn."),) if connector.activation in LEARNED else ()),
            *((f"connector.layers.{2 * n}.", f"model.aligner.hidden_layers.{n - 1}.") for n in range(1, connector.depth)),
            *LANGUAGE_MODEL,
        )

    def architecture(self, config: PretrainedConfig, processor: Any) -> Architecture:
        from transformers.models.janus.processing_janus import DEFAULT_SYSTEM_PROMPT

        vision, images = config.vision_config, processor.image_processor
        if wrong := [f"{name}={getattr(vision, name)}" for name, value in PLAIN.items() if getattr(vision, name) != value]:
            raise SpecError(f"vlmkit builds Janus's tower with {PLAIN}, but the checkpoint has {', '.join(wrong)}")
        if vision.projection_dim != config.text_config.hidden_size:
            raise SpecError(
                f"projection_dim: visual tokens are {vision.projection_dim} wide, but the language model {config.text_config.hidden_size}"
            )
        preface = DEFAULT_SYSTEM_PROMPT if processor.use_default_system_prompt else ""
        template, _ = prompt_of(processor, processor.image_token, PROMPTS, IMAGE.format(processor.image_token), preface=preface)
        numbers: dict[str, Any] = {
            "width": vision.hidden_size,
            "layers": vision.num_hidden_layers,
            "heads": vision.num_attention_heads,
            "mlp": int(vision.hidden_size * vision.mlp_ratio),
            "patch": vision.patch_size,
            "image_size": vision.image_size,
            "activation": vision.hidden_act,
            "norm_eps": vision.layer_norm_eps,
        }
        encoder, policy = named_theirs(Siglip, Siglip.names, **(numbers | normalisation(images))), policy_of(images)
        refuse_unfit(policy, encoder, images, "size")
        refuse_other_count(processor, processor.num_image_tokens, encoder.native_grid.tokens, "num_image_tokens")
        return Architecture(
            name=f"janus-{config.text_config.model_type}",
            policy=policy,
            encoder=encoder,
            connector=aligner(vision),
            layout=BracketedLines(
                template=template,
                placeholder=processor.image_token,
                start=processor.image_start_token,
                end=processor.image_end_token,
            ),
            fusion=Splice(),
            language_model=LanguageModel.from_config(config.text_config),
        )

    def load(self, directory: str, dtype: torch.dtype | None = None) -> tuple[VLM, VLMProcessor]:
        model, processor = super().load(directory, dtype)
        model.generation_config.guidance_scale = None  # of images that are drawn; words would be guided too
        return model, processor

    def config(self, architecture: Architecture, processor: VLMProcessor) -> PretrainedConfig:
        from transformers import JanusConfig

        encoder, connector, language_model = architecture.encoder, architecture.connector, architecture.language_model
        published = {"layer": -1, "final_norm": True, "first_patch": "keep", "positions": "fixed"}
        if not isinstance(encoder, Siglip) or encoder != encoder.replace(**published):
            raise SpecError(f"JanusForConditionalGeneration has siglip with {published}, but the encoder is {encoder}")
        act = THEIRS.get(encoder.activation, encoder.activation)
        if not isinstance(connector, Mlp) or connector != Mlp(depth=connector.depth, activation=act):
            raise SpecError(f"JanusForConditionalGeneration has a plain mlp with the tower's activation {act!r}, but it is {connector}")
        if not isinstance(architecture.layout, BracketedLines) or not isinstance(architecture.fusion, Splice):
            raise SpecError(
                f"JanusForConditionalGeneration splices bracketed_lines, but the layout is {architecture.layout.kind!r} and the fusion "
                f"{architecture.fusion.kind!r}"
            )
        if language_model.model_type != "llama":
            raise SpecError(f"JanusForConditionalGeneration runs llama, but the model type is {language_model.model_type!r}")
        text = language_model.transformers_config()
        drawing = {"projection_dim": language_model.dim, "image_token_embed_dim": language_model.dim}
        return JanusConfig(
            vision_config={
                "hidden_size": encoder.width,
                "num_hidden_layers": encoder.layers,
                "num_attention_heads": encoder.heads,
                "mlp_ratio": encoder.mlp / encoder.width,
                "patch_size": encoder.patch,
                "image_size": encoder.image_size,
                "hidden_act": encoder.activation,
                "layer_norm_eps": encoder.norm_eps,
                "projection_dim": language_model.dim,
                "depth": connector.depth,
                "num_image_tokens": encoder.native_grid.tokens,
            },
            text_config=text,
            vq_config=drawing,
            image_token_id=processor.plain_tokenizer.specials[architecture.layout.placeholder],
            tie_word_embeddings=text.tie_word_embeddings,
        )

    def processor(self, architecture: Architecture, processor: VLMProcessor) -> Any:
        from transformers import JanusImageProcessor, JanusProcessor

        policy, encoder, layout = architecture.policy, architecture.encoder, architecture.layout
        assert isinstance(encoder, Siglip)
        assert isinstance(layout, BracketedLines)
        if not isinstance(policy, Letterbox) or policy != policy.replace(view=None, antialias=True):
            raise SpecError(f"JanusImageProcessor letterboxes whole squares, but the policy is {policy}")
        if layout.after_image:
            raise SpecError(f"JanusProcessor writes a line break after an image, but the layout writes {layout.after_image!r} as well")
        tokenizer = copy.deepcopy(processor.tokenizer)
        named = {"image_token": layout.placeholder, "boi_token": layout.start, "eoi_token": layout.end}
        tokenizer._set_model_specific_special_tokens(named)
        tokenizer.bos_token = layout.template.begin or None
        images = JanusImageProcessor(
            size={"height": policy.size, "width": policy.size},
            min_size=policy.min_side,
            **stated_normalisation(encoder, policy.fill),
            resample=resample_number(policy),
        )
        return JanusProcessor(
            images,
            tokenizer,
            chat_template=source_of(processor, image=IMAGE.format(layout.placeholder)),
            use_default_system_prompt=False,
            num_image_tokens=encoder.native_grid.tokens,
        )


def policy_of(images: Any) -> Letterbox:
    """The policy of a published image processor."""
    refuse_others(images, ("size", "min_size"), ("pad_size", "crop_size"))
    with named(images, "size", "min_size"):
        return Letterbox(size=square_of(images), min_side=images.min_size, fill=mean_colour(images), resample=resample_of(images))


def aligner(vision: PretrainedConfig) -> Mlp:
    """The connector of a published vision config. Raises SpecError for an activation with weights that stands in several places."""
    if vision.hidden_act in LEARNED and vision.depth > 2:
        raise SpecError(f"hidden_act: {vision.hidden_act!r} has weights, which the {vision.depth - 1} places of the aligner share")
    return Mlp(depth=vision.depth, activation=THEIRS.get(vision.hidden_act, vision.hidden_act))


FAMILY = Janus()
