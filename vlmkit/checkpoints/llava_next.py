"""Checkpoints of LlavaNextForConditionalGeneration: LLaVA-1.6 (llava-vl.github.io/blog/2024-01-30-llava-next)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlmkit.architecture import Architecture
from vlmkit.checkpoints.chat import prompt_of, source_of
from vlmkit.checkpoints.family import Family, Renames
from vlmkit.checkpoints.image_processors import (
    edges_of,
    field,
    refuse_other_count,
    refuse_others,
    resample_number,
    resample_of,
    sides_of,
    square_of,
    stated_normalisation,
)
from vlmkit.checkpoints.parts import strategy_of
from vlmkit.checkpoints.projector import RENAMES, config_fields, parts_of
from vlmkit.encoders.base import Encoder, ViT
from vlmkit.features import Grid
from vlmkit.layout.unpadded_rows import UnpaddedRows
from vlmkit.preprocess.geometry import Size
from vlmkit.preprocess.policies.anyres import AnyRes
from vlmkit.spec import SpecError
from vlmkit.zoo.llava import VICUNA_V1
from vlmkit.zoo.llava_next import CHATML_DIRECT, MISTRAL_INSTRUCT

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from vlmkit.processor import VLMProcessor

PROMPTS = ((VICUNA_V1, "\n"), (MISTRAL_INSTRUCT, "\n"), (CHATML_DIRECT, "\n"), (CHATML_DIRECT.replace(default_system=None), "\n"))
"""Templates of turns in the checkpoints of this class, each with the text after an image; the first where none is stated."""


class LlavaNext(Family):
    def reference(self) -> type[PreTrainedModel]:
        from transformers import LlavaNextForConditionalGeneration

        return LlavaNextForConditionalGeneration  # type: ignore[no-any-return]

    def renames(self, architecture: Architecture) -> Renames:
        return (*RENAMES, ("fusion.learned.newline", "model.image_newline"))

    def architecture(self, config: PretrainedConfig, processor: Any) -> Architecture:
        template, after_image = prompt_of(processor, processor.image_token, PROMPTS)
        parts, policy = parts_of(config, processor.image_processor), policy_of(config, processor.image_processor)
        refuse_other_grids(parts["encoder"])
        refuse_other_tokens(processor, policy, parts["encoder"])
        return Architecture(
            name=f"llava-next-{config.text_config.model_type}",
            policy=policy,
            layout=UnpaddedRows(template=template, placeholder=processor.image_token, after_image=after_image),
            **parts,
        )

    def config(self, architecture: Architecture, processor: VLMProcessor) -> PretrainedConfig:
        from transformers import LlavaNextConfig

        name = "LlavaNextForConditionalGeneration"
        fields = config_fields(name, architecture, processor)
        policy, encoder, layout = architecture.policy, architecture.encoder, architecture.layout
        if not isinstance(layout, UnpaddedRows):
            raise SpecError(f"{name} splices 'unpadded_rows', but the layout is {layout.kind!r}")
        if not isinstance(policy, AnyRes) or policy != AnyRes(size=policy.size, grids=policy.grids, resample=policy.resample):
            raise SpecError(f"{name} sees whole tiles of 'anyres' with black beside the image, but the policy is {policy}")
        side, own = policy.size, getattr(encoder, "image_size", None)
        if own != side:
            raise SpecError(f"{name} has tiles as large as the tower's own images, but tiles have {side} pixels, the images {own}")
        refuse_other_grids(encoder, Size(side, side).grid(encoder.patch_size))
        return LlavaNextConfig(image_grid_pinpoints=pinpoints(policy), **fields)

    def processor(self, architecture: Architecture, processor: VLMProcessor) -> Any:
        from transformers import LlavaNextImageProcessor, LlavaNextProcessor

        policy, encoder, layout = architecture.policy, architecture.encoder, architecture.layout
        assert isinstance(policy, AnyRes)
        images = LlavaNextImageProcessor(
            size={"shortest_edge": policy.size},
            crop_size={"height": policy.size, "width": policy.size},
            image_grid_pinpoints=pinpoints(policy),
            **stated_normalisation(encoder),
            resample=resample_number(policy),
        )
        return LlavaNextProcessor(
            image_processor=images,
            tokenizer=processor.tokenizer,
            patch_size=encoder.patch_size,
            vision_feature_select_strategy=strategy_of(encoder),
            image_token=layout.placeholder,
            num_additional_image_tokens=getattr(encoder, "class_positions", 0),
            chat_template=source_of(processor),
        )


def policy_of(config: PretrainedConfig, processor: Any) -> AnyRes:
    """The policy of a published image processor. Raises SpecError where its tiles are not those that the model expects."""
    refuse_others(processor, ("size", "crop_size", "image_grid_pinpoints"), ("do_resize", "do_center_crop", "do_pad", "pad_size"))
    side = square_of(processor, "crop_size")
    if side != (square_of(processor) if "height" in sides_of(processor) else edges_of(processor, "shortest_edge")[0]):
        raise SpecError(f"{field(processor, 'size', 'crop_size')}: vlmkit reads tiles and the whole image in one size alone")
    points = [list(point) for point in config.image_grid_pinpoints]
    theirs = [list(point) for point in processor.image_grid_pinpoints]
    if side != config.vision_config.image_size or points != theirs or any(length % side for point in points for length in point):
        raise SpecError(
            f"{field(processor, 'size', 'crop_size', 'image_grid_pinpoints')}: the model expects tiles of "
            f"{config.vision_config.image_size} pixels for {points}"
        )
    grids = tuple((height // side, width // side) for height, width in points)
    return AnyRes(size=side, grids=grids, resample=resample_of(processor))


def refuse_other_tokens(processor: Any, policy: AnyRes, encoder: Encoder) -> None:
    """Raise SpecError where a published processor counts other tokens of a tile than the tower gives."""
    names, patch, tile = ("patch_size", "num_additional_image_tokens", "vision_feature_select_strategy"), processor.patch_size, policy.size
    whole = (tile // patch) ** 2 if isinstance(patch, int) else 0
    written = whole + processor.num_additional_image_tokens - (processor.vision_feature_select_strategy == "default")
    refuse_other_count(processor, written, encoder.grid_out(Size(tile, tile).grid(encoder.patch_size)).tokens, *names)


def pinpoints(policy: AnyRes) -> list[list[int]]:
    """Grids of tiles by their pixels, as transformers names them."""
    return [[rows * policy.size, columns * policy.size] for rows, columns in policy.grids]


def refuse_other_grids(encoder: Encoder, tile: Grid | None = None) -> None:
    """Raise SpecError for a tower that gives anything but a token for each patch of a tile: the published class lays tiles side by side
    again, and fails where a class token is kept, or a patch dropped."""
    tile = encoder.native_grid if tile is None and isinstance(encoder, ViT) else tile
    if tile is not None and encoder.grid_out(tile) != tile:
        raise SpecError(
            f"vision_feature_select_strategy: LlavaNextForConditionalGeneration has a token for each of the {tile} patches of a tile, but "
            f"with {strategy_of(encoder)!r} the {encoder.kind!r} tower gives {encoder.grid_out(tile)} tokens"
        )


FAMILY = LlavaNext()
