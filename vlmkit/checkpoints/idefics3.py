"""Checkpoints of Idefics3ForConditionalGeneration: Idefics3 (arXiv:2408.12637) and the first SmolVLMs (arXiv:2504.05299)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from vlmkit.architecture import Architecture
from vlmkit.checkpoints.idefics import Idefics
from vlmkit.checkpoints.image_processors import edges_of, field, named, refuse_others, resample_number, resample_of, stated_normalisation
from vlmkit.connectors.pixel_shuffle import PixelShuffle
from vlmkit.encoders.base import Encoder
from vlmkit.layout.base import TokenLayout
from vlmkit.layout.jinja_template import JinjaTemplate
from vlmkit.layout.template import Template
from vlmkit.layout.tile_tags import TileTags
from vlmkit.preprocess.policies.base import ImagePolicy
from vlmkit.preprocess.policies.longest_edge_tiles import LongestEdgeTiles
from vlmkit.spec import SpecError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


MAX_LONGEST = 4096
"""Pixels of a longer side, which transformers' processor caps."""


class Idefics3(Idefics):
    connector_names = (("connector.linear.", "model.connector.modality_projection.proj."),)
    whole: ClassVar[str] = "global_image_tag"
    """The processor's name of the tag of a whole image."""

    def reference(self) -> type[PreTrainedModel]:
        from transformers import Idefics3ForConditionalGeneration

        return Idefics3ForConditionalGeneration  # type: ignore[no-any-return]

    def connector(self, config: PretrainedConfig) -> PixelShuffle:
        return PixelShuffle(ratio=config.scale_factor)

    def connector_config(self, architecture: Architecture) -> dict[str, Any]:
        connector = architecture.connector
        if not isinstance(connector, PixelShuffle) or connector != PixelShuffle(ratio=connector.ratio):
            raise SpecError(f"{self.name} has a 'pixel_shuffle' without bias, but the connector is {connector}")
        return {"scale_factor": connector.ratio}

    def policy(self, images: Any, patch: int) -> ImagePolicy:
        refuse_others(images, ("size", "max_image_size", "do_image_splitting"), ("do_pad", "pad_size", "crop_size", "return_row_col_info"))
        (longest,), (size,) = edges_of(images, "longest_edge"), edges_of(images, "longest_edge", name="max_image_size")
        if longest > MAX_LONGEST:
            raise SpecError(
                f"{field(images, 'size')}: expected up to {MAX_LONGEST} pixels, to which transformers shrinks longer edges again"
            )
        with named(images, "size", "max_image_size"):
            return LongestEdgeTiles(
                size=size,
                view=size // patch * patch if size % patch else None,
                tiles=max(1, longest // size),
                longest=longest if longest % size else None,
                split=images.do_image_splitting,
                resample=resample_of(images),
            )

    def images(self, policy: ImagePolicy, encoder: Encoder) -> Any:
        if not isinstance(policy, LongestEdgeTiles):
            raise SpecError(f"{self.name} sees 'longest_edge_tiles', but the policy is {policy.kind!r}")
        return self.image_processor_class()(
            size={"longest_edge": policy.longest or policy.tiles * policy.size},
            max_image_size={"longest_edge": policy.size},
            do_image_splitting=policy.split,
            resample=resample_number(policy),
            **stated_normalisation(encoder),
        )

    def image_processor_class(self) -> Any:
        """transformers' image processor."""
        from transformers import Idefics3ImageProcessor

        return Idefics3ImageProcessor

    def layout(self, processor: Any, template: Template | JinjaTemplate) -> TokenLayout:
        return TileTags(
            template=template,
            placeholder=processor.image_token,
            boundary=processor.fake_image_token,
            whole=getattr(processor, self.whole),
        )

    def assemble(self, **parts: Any) -> Any:
        from transformers import Idefics3Processor

        return Idefics3Processor(**parts)


FAMILY = Idefics3()
