"""Checkpoints of VideoLlama3ForConditionalGeneration: VideoLLaMA 3 (arXiv:2501.13106)."""

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
from vlmkit.checkpoints.video_processors import refuse_other_pixels
from vlmkit.connectors.bilinear_mlp import BilinearMlp
from vlmkit.encoders.siglip_rotary import SiglipRotary
from vlmkit.fusion.splice import Splice
from vlmkit.language_model import LanguageModel
from vlmkit.layout.template import CHATML
from vlmkit.layout.timestamps import Timestamps
from vlmkit.preprocess.policies.smart_resize import SmartResize
from vlmkit.preprocess.sampling import Sampling
from vlmkit.spec import SpecError
from vlmkit.zoo.videollama3 import STARTS, VIDEOLLAMA3_7B, shared_pixels

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from vlmkit.processor import VLMProcessor

NAME = "VideoLlama3ForConditionalGeneration"
PROMPTS = ((CHATML, "\n"), (CHATML, ""))
"""Templates of turns in the checkpoints of this class, each with the text after an image; the first where none is stated."""
UNCHANGED = 0.1
"""Up to which change transformers' processor leaves a film's token out; no config states it."""

CHOSEN = ("fps", "frames", "min_frames", "max_frames")
"""Fields of the sampling that a processor states."""
STATED = ("template", "placeholder", "video_placeholder", "after_image", "drop_unchanged")
"""Fields of the layout that a processor or its chat template states."""


class VideoLlama3(Family):
    def reference(self) -> type[PreTrainedModel]:
        from transformers import VideoLlama3ForConditionalGeneration

        return VideoLlama3ForConditionalGeneration  # type: ignore[no-any-return]

    def renames(self, architecture: Architecture) -> Renames:
        return (
            ("encoder.", "model.vision_model."),
            ("connector.mlp.layers.", "model.projector.readout."),
            *LANGUAGE_MODEL,
        )

    def architecture(self, config: PretrainedConfig, processor: Any) -> Architecture:
        images, videos, text = processor.image_processor, processor.video_processor, LanguageModel.from_config(config.text_config)
        encoder = SiglipRotary.from_config(config.vision_config, **normalisation(images))
        for each in (images, videos):
            if (each.patch_size, each.temporal_patch_size) != (encoder.patch, 1):
                stated = field(each, "patch_size", "temporal_patch_size")
                raise SpecError(f"{stated}: the model expects patches of {encoder.patch} pixels and 1 frame")
        template, after_image = prompt_of(processor, processor.image_token, PROMPTS)
        return Architecture(
            name=f"videollama3-{text.model_type}",
            policy=policy_of(images, videos),
            encoder=encoder,
            connector=BilinearMlp(ratio=images.merge_size, ratio_clips=videos.merge_size),
            layout=Timestamps(
                template=template,
                placeholder=processor.image_token,
                video_placeholder=processor.video_token,
                after_image=after_image,
                drop_unchanged=UNCHANGED if videos.use_token_compression else None,
            ),
            fusion=Splice(),
            language_model=text.replace(config=text.config | {"tie_word_embeddings": config.tie_word_embeddings}),
            sampling=sampling_of(videos),
        )

    def config(self, architecture: Architecture, processor: VLMProcessor) -> PretrainedConfig:
        from transformers import VideoLlama3Config

        encoder, connector, layout = architecture.encoder, architecture.connector, architecture.layout
        if not isinstance(encoder, SiglipRotary) or not encoder.whole or encoder.layer != -1:
            raise SpecError(f"{NAME} has the last block of 'siglip_rotary', but the encoder is {encoder}")
        if not isinstance(connector, BilinearMlp) or connector != BilinearMlp(ratio=connector.ratio, ratio_clips=connector.ratio_clips):
            raise SpecError(f"{NAME} has a 'bilinear_mlp' of two linear layers and exact GELU, but the connector is {connector}")
        if not isinstance(architecture.fusion, Splice):
            raise SpecError(f"{NAME} splices visual tokens, but the fusion is {architecture.fusion.kind!r}")
        if not isinstance(layout, Timestamps) or layout.video_placeholder is None:
            raise SpecError(f"{NAME} has 'timestamps', and films with a placeholder of their own, but the layout is {layout}")
        text = architecture.language_model.transformers_config()
        ids = processor.plain_tokenizer.specials
        return VideoLlama3Config(
            vision_config=encoder.numbers(),
            text_config=text,
            image_token_id=ids[layout.placeholder],
            video_token_id=ids[layout.video_placeholder],
            tie_word_embeddings=text.tie_word_embeddings,
        )

    def processor(self, architecture: Architecture, processor: VLMProcessor) -> Any:
        from transformers import VideoLlama3ImageProcessor, VideoLlama3Processor, VideoLlama3VideoProcessor

        policy, encoder, connector, layout = architecture.policy, architecture.encoder, architecture.connector, architecture.layout
        assert isinstance(encoder, SiglipRotary)
        assert isinstance(connector, BilinearMlp)
        assert isinstance(layout, Timestamps)
        assert layout.video_placeholder is not None
        factor = encoder.patch * connector.merge
        if not isinstance(policy, SmartResize) or (policy.factor, policy.max_aspect_ratio) != (factor, 200):
            raise SpecError(f"VideoLlama3Processor has 'smart_resize' of factor {factor} and up to 200:1, but the policy is {policy}")
        clip, sampling = policy.clip, architecture.sampling
        if clip is None or clip != shared_pixels(encoder.patch * connector.merge_clips, clip.min_pixels, clip.max_pixels):
            raise SpecError(
                f"VideoLlama3Processor has frames that share their pixels, of factor {encoder.patch * connector.merge_clips}, but {clip}"
            )
        if sampling is None or sampling != STARTS.replace(**{name: getattr(sampling, name) for name in CHOSEN}):
            raise SpecError(f"VideoLlama3Processor shows the first frame of each of equal parts of a film, but the sampling is {sampling}")
        if layout != VIDEOLLAMA3_7B.layout.replace(**{name: getattr(layout, name) for name in STATED}):
            raise SpecError(f"VideoLlama3Processor writes 'Time 0.0s:' before frames and commas between them, but the layout is {layout}")
        if layout.drop_unchanged not in (None, UNCHANGED):
            raise SpecError(f"VideoLlama3Processor leaves out what changed by {UNCHANGED} or less, not by {layout.drop_unchanged}")
        common = {
            "patch_size": encoder.patch,
            **stated_normalisation(encoder),
            "resample": resample_number(policy),
        }
        size = {"shortest_edge": policy.min_pixels, "longest_edge": policy.max_pixels}
        made = VideoLlama3Processor(
            image_processor=VideoLlama3ImageProcessor(size=size, merge_size=connector.merge, **common),
            video_processor=VideoLlama3VideoProcessor(
                size={"shortest_edge": clip.min_pixels, "longest_edge": clip.max_pixels},
                merge_size=connector.merge_clips,
                use_token_compression=layout.drop_unchanged is not None,
                **({"fps": sampling.fps} if sampling.frames is None else {"num_frames": sampling.frames}),
                min_frames=sampling.min_frames,
                max_frames=sampling.max_frames,
                **common,
            ),
            tokenizer=processor.tokenizer,
            chat_template=source_of(processor),
        )
        if (made.image_token, made.video_token) != (layout.placeholder, layout.video_placeholder):
            raise SpecError(
                f"VideoLlama3Processor has the placeholders {made.image_token!r} and {made.video_token!r} with this tokenizer, but the "
                f"layout has {layout.placeholder!r} and {layout.video_placeholder!r}"
            )
        return made


def policy_of(images: Any, videos: Any) -> SmartResize:
    """The policy of a published image processor and of the video processor beside it."""
    cut = ("patch_size", "temporal_patch_size", "merge_size", "size")
    refuse_others(images, cut, ("min_pixels", "max_pixels", "do_pad", "pad_size", "crop_size"))
    chosen = ("fps", "num_frames", "min_frames", "max_frames", "do_sample_frames", "use_token_compression")
    refuse_others(videos, (*cut, *chosen), ("min_pixels", "max_pixels", "do_pad", "crop_size"))
    refuse_other_pixels(videos, images)
    bounds = edges_of(videos, "shortest_edge", "longest_edge")
    with named(videos, "size"):
        clip = shared_pixels(videos.patch_size * videos.merge_size, *bounds)
    shortest, longest = edges_of(images, "shortest_edge", "longest_edge")
    with named(images, "size"):
        return SmartResize(
            factor=images.patch_size * images.merge_size, min_pixels=shortest, max_pixels=longest, resample=resample_of(images), clip=clip
        )


def sampling_of(videos: Any) -> Sampling:
    """Which frames a published video processor shows when it is told to choose; one a second, as the model's authors do, where it does
    not say how many."""
    if videos.fps is not None and videos.num_frames is not None:
        raise SpecError(f"{field(videos, 'fps', 'num_frames')}: expected one of them")
    with named(videos, "fps", "num_frames", "min_frames", "max_frames"):
        return STARTS.replace(
            fps=float(videos.fps or STARTS.fps), frames=videos.num_frames, min_frames=videos.min_frames, max_frames=videos.max_frames
        )


FAMILY = VideoLlama3()
