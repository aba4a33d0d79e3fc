"""Checkpoints of Idefics2ForConditionalGeneration (arXiv:2405.02246)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlmkit.architecture import Architecture
from vlmkit.checkpoints.idefics import Idefics
from vlmkit.checkpoints.image_processors import edges_of, named, refuse_others, resample_number, resample_of, stated_normalisation
from vlmkit.connectors.perceiver import Perceiver
from vlmkit.encoders.base import Encoder
from vlmkit.layout.base import TokenLayout
from vlmkit.layout.fenced import Fenced
from vlmkit.layout.jinja_template import JinjaTemplate
from vlmkit.layout.template import Template
from vlmkit.preprocess.policies.base import ImagePolicy
from vlmkit.preprocess.policies.edge_bounds import EdgeBounds
from vlmkit.spec import SpecError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


class Idefics2(Idefics):
    connector_names = (
        ("connector.projection.", "model.connector.modality_projection."),
        ("connector.", "model.connector.perceiver_resampler."),
    )

    def reference(self) -> type[PreTrainedModel]:
        from transformers import Idefics2ForConditionalGeneration

        return Idefics2ForConditionalGeneration  # type: ignore[no-any-return]

    def connector(self, config: PretrainedConfig) -> Perceiver:
        perceiver, text = config.perceiver_config, config.text_config
        if perceiver.hidden_act != text.hidden_act:
            raise SpecError(
                f"hidden_act: the perceiver's activation is {perceiver.hidden_act!r}, that of the layer before it, which is the language "
                f"model's, {text.hidden_act!r}; vlmkit's 'perceiver' has one"
            )
        return Perceiver(
            latents=perceiver.resampler_n_latents,
            depth=perceiver.resampler_depth,
            heads=perceiver.resampler_n_heads,
            kv_heads=perceiver.num_key_value_heads,
            head_dim=perceiver.resampler_head_dim,
            hidden=text.intermediate_size,
            activation=perceiver.hidden_act,
            norm_eps=perceiver.rms_norm_eps,
        )

    def connector_config(self, architecture: Architecture) -> dict[str, Any]:
        connector, text = architecture.connector, architecture.language_model.transformers_config()
        if not isinstance(connector, Perceiver):
            raise SpecError(f"{self.name} has a 'perceiver', but the connector is {connector.kind!r}")
        if (connector.hidden or 4 * text.hidden_size, connector.activation) != (text.intermediate_size, text.hidden_act):
            raise SpecError(
                f"{self.name} takes hidden={text.intermediate_size} and activation={text.hidden_act!r} of the perceiver from the "
                f"language model, but the connector is {connector}"
            )
        return {
            "perceiver_config": {
                "hidden_act": connector.activation,
                "hidden_size": text.hidden_size,
                "rms_norm_eps": connector.norm_eps,
                "resampler_n_latents": connector.latents,
                "resampler_depth": connector.depth,
                "resampler_n_heads": connector.heads,
                "resampler_head_dim": connector.head_dim,
                "num_key_value_heads": connector.kv_heads,
            }
        }

    def policy(self, images: Any, patch: int) -> ImagePolicy:
        refuse_others(images, ("size", "do_image_splitting"), ("do_pad", "pad_size", "crop_size"))
        shortest, longest = edges_of(images, "shortest_edge", "longest_edge")
        with named(images, "size"):
            return EdgeBounds(
                shortest=shortest, longest=longest, factor=patch, quarters=images.do_image_splitting, resample=resample_of(images)
            )

    def images(self, policy: ImagePolicy, encoder: Encoder) -> Any:
        from transformers import Idefics2ImageProcessor

        if not isinstance(policy, EdgeBounds):
            raise SpecError(f"{self.name} sees 'edge_bounds', but the policy is {policy.kind!r}")
        return Idefics2ImageProcessor(
            size={"shortest_edge": policy.shortest, "longest_edge": policy.longest},
            do_image_splitting=policy.quarters,
            resample=resample_number(policy),
            **stated_normalisation(encoder),
        )

    def layout(self, processor: Any, template: Template | JinjaTemplate) -> TokenLayout:
        return Fenced(template=template, placeholder=processor.image_token, boundary=processor.fake_image_token)

    def assemble(self, **parts: Any) -> Any:
        from transformers import Idefics2Processor

        return Idefics2Processor(**parts)


FAMILY = Idefics2()
