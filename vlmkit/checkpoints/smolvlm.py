"""Checkpoints of SmolVLMForConditionalGeneration (arXiv:2504.05299), which computes what Idefics3's class does and takes videos.

vlmkit reads and writes what images need. transformers' processor asks for the num2words package, to write the number of a
video's frames in words: `pip install 'vlmkit[smolvlm]'`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlmkit.architecture import Architecture
from vlmkit.checkpoints.idefics3 import Idefics3
from vlmkit.spec import SpecError
from vlmkit.zoo.smolvlm import SMOLVLM_256M

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from vlmkit.processor import VLMProcessor


class SmolVLM(Idefics3):
    whole = "global_image_token"

    def reference(self) -> type[PreTrainedModel]:
        from transformers import SmolVLMForConditionalGeneration

        return SmolVLMForConditionalGeneration  # type: ignore[no-any-return]

    def config(self, architecture: Architecture, processor: VLMProcessor) -> PretrainedConfig:
        if architecture.layout.template != SMOLVLM_256M.layout.template:
            raise SpecError(f"{self.name} is for SmolVLM's turns; Idefics3ForConditionalGeneration computes the same for any others")
        return super().config(architecture, processor)

    def image_processor_class(self) -> Any:
        from transformers import SmolVLMImageProcessor

        return SmolVLMImageProcessor

    def assemble(self, **parts: Any) -> Any:
        from transformers import SmolVLMProcessor, SmolVLMVideoProcessor

        images = parts["image_processor"]
        same = {name: getattr(images, name) for name in ("image_mean", "image_std", "resample")}
        frames = dict(images.max_image_size)
        return SmolVLMProcessor(video_processor=SmolVLMVideoProcessor(size=frames, max_image_size=frames, **same), **parts)


FAMILY = SmolVLM()
