"""Checkpoints of Qwen2VLForConditionalGeneration: Qwen2-VL (arXiv:2409.12191), UI-TARS (arXiv:2501.12326) and others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlmkit.architecture import Architecture
from vlmkit.checkpoints.chat import prompt_of, source_of
from vlmkit.checkpoints.family import LANGUAGE_MODEL, Family, Renames
from vlmkit.checkpoints.image_processors import (
    edges_of,
    field,
    named,
    normalisation,
    refuse_others,
    resample_number,
    resample_of,
    stated_normalisation,
)
from vlmkit.checkpoints.video_processors import refuse_other_pixels, sampling_fields, sampling_of
from vlmkit.connectors.patch_merger import PatchMerger
from vlmkit.encoders.qwen2_vl import Qwen2VL
from vlmkit.fusion.splice import Splice
from vlmkit.language_model import LanguageModel
from vlmkit.layout.bracketed import Bracketed
from vlmkit.layout.template import CHATML
from vlmkit.preprocess.policies.smart_resize import ClipPixels, SmartResize
from vlmkit.spec import SpecError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from vlmkit.processor import VLMProcessor

PROMPTS = ((CHATML.replace(default_system="You are a helpful assistant."), ""), (CHATML, ""))
"""Templates of turns in the checkpoints of this class, each with the text after an image; the first where none is stated."""
NAME = "Qwen2VLForConditionalGeneration"


class Qwen2VLFamily(Family):
    def reference(self) -> type[PreTrainedModel]:
        from transformers import Qwen2VLForConditionalGeneration

        return Qwen2VLForConditionalGeneration  # type: ignore[no-any-return]

    def renames(self, architecture: Architecture) -> Renames:
        return (
            ("connector.norm.", "model.visual.merger.ln_q."),
            ("connector.mlp.", "model.visual.merger.mlp."),
            ("encoder.", "model.visual."),
            *LANGUAGE_MODEL,
        )

    def architecture(self, config: PretrainedConfig, processor: Any) -> Architecture:
        images, vision, text = processor.image_processor, config.vision_config, LanguageModel.from_config(config.text_config)
        refuse_other_patches(images, vision)
        refuse_other_patches(processor.video_processor, vision)
        if vision.hidden_size != text.dim:
            raise SpecError(f"vision_config.hidden_size: visual tokens are {vision.hidden_size} wide, but the language model {text.dim}")
        start, end = (token_of(processor.tokenizer, config, name) for name in ("vision_start_token_id", "vision_end_token_id"))
        template, after_image = prompt_of(processor, start + processor.image_token + end, PROMPTS)
        return Architecture(
            name=f"qwen2-vl-{text.dim}",
            policy=policy_of(images, processor.video_processor),
            encoder=Qwen2VL.from_config(vision, **normalisation(images)),
            connector=PatchMerger(ratio=vision.spatial_merge_size),
            layout=Bracketed(
                template=template,
                placeholder=processor.image_token,
                video_placeholder=processor.video_token,
                after_image=after_image,
                start=start,
                end=end,
            ),
            fusion=Splice(),
            language_model=text.replace(config=text.config | {"tie_word_embeddings": config.tie_word_embeddings}),
            sampling=sampling_of(processor.video_processor),
        )

    def config(self, architecture: Architecture, processor: VLMProcessor) -> PretrainedConfig:
        from transformers import Qwen2VLConfig

        encoder, connector, layout = architecture.encoder, architecture.connector, architecture.layout
        if not isinstance(encoder, Qwen2VL) or encoder.layer != -1 or encoder.mlp % encoder.width:
            raise SpecError(
                f"{NAME} has the last block of qwen2_vl, its MLPs a whole number of times as wide, but the encoder is {encoder}"
            )
        if not isinstance(connector, PatchMerger) or connector != PatchMerger(ratio=connector.ratio):
            raise SpecError(f"{NAME} has a 'patch_merger' of exact GELU, but the connector is {connector}")
        if not isinstance(architecture.fusion, Splice):
            raise SpecError(f"{NAME} splices visual tokens, but the fusion is {architecture.fusion.kind!r}")
        if type(layout) is not Bracketed or layout.video_placeholder is None or layout.after_image:
            raise SpecError(f"{NAME} has 'bracketed' images, and films with a placeholder of their own, but the layout is {layout}")
        text = architecture.language_model.transformers_config()
        if text.model_type != "qwen2_vl_text":
            raise SpecError(f"{NAME} has a language model of type 'qwen2_vl_text', but it is {text.model_type!r}")
        ids = processor.plain_tokenizer.specials
        return Qwen2VLConfig(
            vision_config=encoder.numbers() | {"spatial_merge_size": connector.ratio, "hidden_size": architecture.language_model.dim},
            text_config=text,
            image_token_id=ids[layout.placeholder],
            video_token_id=ids[layout.video_placeholder],
            vision_start_token_id=ids[layout.start],
            vision_end_token_id=ids[layout.end],
            tie_word_embeddings=text.tie_word_embeddings,
        )

    def processor(self, architecture: Architecture, processor: VLMProcessor) -> Any:
        from transformers import Qwen2VLImageProcessor, Qwen2VLProcessor, Qwen2VLVideoProcessor

        policy, encoder, connector, layout = architecture.policy, architecture.encoder, architecture.connector, architecture.layout
        assert isinstance(encoder, Qwen2VL)
        assert isinstance(connector, PatchMerger)
        assert isinstance(layout, Bracketed)
        factor = encoder.patch_size * connector.ratio
        if not isinstance(policy, SmartResize) or (policy.factor, policy.max_aspect_ratio) != (factor, 200):
            raise SpecError(
                f"Qwen2VLProcessor has 'smart_resize' of factor {factor} (patch x merge) and up to 200:1, but the policy is {policy}"
            )
        common = {
            "patch_size": encoder.patch_size,
            "temporal_patch_size": encoder.patch_frames,
            "merge_size": connector.ratio,
            **stated_normalisation(encoder),
            "resample": resample_number(policy),
        }
        shown = sampling_fields(architecture.sampling, encoder.patch_frames)
        size = {"shortest_edge": policy.min_pixels, "longest_edge": policy.max_pixels}
        films = (
            ClipPixels(min_pixels=policy.min_pixels, max_pixels=policy.max_pixels, total_pixels=None)
            if policy.clip is None
            else policy.clip
        )
        shared = films.total_pixels is None or (films.frames_per_share, films.least) == (encoder.patch_frames, 1.05)
        if films.factor not in (None, policy.factor) or not shared:
            raise SpecError(f"{NAME} bounds frames of films as ClipPixels does by itself, but the policy has {films}")
        bounds = {"shortest_edge": films.min_pixels, "longest_edge": films.max_pixels}
        budget = {} if films.total_pixels is None else {"cap_pixels_per_frame": True, "max_video_tokens": tokens_of(films, policy.factor)}
        made = Qwen2VLProcessor(
            image_processor=Qwen2VLImageProcessor(size=size, **common),
            tokenizer=processor.tokenizer,
            video_processor=Qwen2VLVideoProcessor(size=bounds, **budget, **shown, **common),
            chat_template=source_of(processor),
        )
        if (made.image_token, made.video_token) != (layout.placeholder, layout.video_placeholder):
            raise SpecError(
                f"Qwen2VLProcessor has the placeholders {made.image_token!r} and {made.video_token!r} with this tokenizer, but the layout "
                f"has {layout.placeholder!r} and {layout.video_placeholder!r}"
            )
        return made


def token_of(tokenizer: Any, config: PretrainedConfig, name: str) -> str:
    """The token whose id the config states under this name. Raises SpecError where the tokenizer does not have it."""
    token: str | None = tokenizer.convert_ids_to_tokens(getattr(config, name))
    if token is None:
        raise SpecError(f"{name}: the tokenizer has no token {getattr(config, name)}")
    return token


FAMILY = Qwen2VLFamily()


PATCHES = ("patch_size", "temporal_patch_size", "merge_size")
"""Fields of both processors that the model's config states too."""


def refuse_other_patches(processor: Any, vision: Any) -> None:
    """Raise SpecError where an image or video processor cuts other patches than the model expects."""
    told, expected = (
        [getattr(processor, name) for name in PATCHES],
        [vision.patch_size, vision.temporal_patch_size, vision.spatial_merge_size],
    )
    if told != expected:
        raise SpecError(f"{field(processor, *PATCHES)}: the model expects {expected}")


def policy_of(images: Any, videos: Any) -> SmartResize:
    """The policy of a published image processor and of the video processor beside it."""
    refuse_others(images, (*PATCHES, "size"), ("min_pixels", "max_pixels", "do_pad", "pad_size", "crop_size"))
    refuse_others(
        videos,
        (*PATCHES, "size", "cap_pixels_per_frame", "max_video_tokens", "do_sample_frames", "fps", "num_frames", "min_frames", "max_frames"),
        ("min_pixels", "max_pixels", "do_pad", "crop_size", "return_metadata"),
    )
    refuse_other_pixels(videos, images)
    with named(videos, "size", "max_video_tokens"):
        clip = frames_of(videos)
    shortest, longest = edges_of(images, "shortest_edge", "longest_edge")
    with named(images, "size"):
        return SmartResize(
            factor=images.patch_size * images.merge_size, min_pixels=shortest, max_pixels=longest, resample=resample_of(images), clip=clip
        )


CONTEXT_SHARE = 0.9
"""What of a context's tokens the published rule gives to the pixels of one film."""


def frames_of(processor: Any) -> ClipPixels:
    """The bounds of a film's frames. Without `cap_pixels_per_frame` a film as a whole has none."""
    total = None
    if processor.cap_pixels_per_frame:
        total = int(processor.max_video_tokens * (processor.patch_size * processor.merge_size) ** 2 * CONTEXT_SHARE)
    shortest, longest = edges_of(processor, "shortest_edge", "longest_edge")
    return ClipPixels(min_pixels=shortest, max_pixels=longest, total_pixels=total, whole=total is not None)


def tokens_of(films: ClipPixels, factor: int) -> int:
    """The context of which the published rule makes the pixels of all frames; it rounds each frame's share down to whole pixels."""
    assert films.total_pixels is not None
    return round(films.total_pixels / (factor**2 * CONTEXT_SHARE))
