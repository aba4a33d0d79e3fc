"""From a request that was read to a job: its images are fetched, decoded and rendered, its words laid out, its tokens counted."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Sequence
from typing import Any

from vlmkit.batch.sample import PreparedSample
from vlmkit.layout.laid_out import LayoutError
from vlmkit.layout.positions import positions_taken
from vlmkit.preprocess.geometry import ImageSizeError
from vlmkit.preprocess.images import ImageError, decode, image_size
from vlmkit.serving.drawing import Drawing
from vlmkit.serving.errors import RequestError
from vlmkit.serving.job import Job, Said
from vlmkit.serving.limits import Limits
from vlmkit.serving.request import ChatRequest
from vlmkit.serving.sources import image_bytes
from vlmkit.serving.words import Words


class Asking:
    """Everything here may run in any thread."""

    def __init__(self, model: Any, processor: Any, limits: Limits, hosts: Collection[str] = ()) -> None:
        self.processor, self.limits = processor, limits
        self.hosts = frozenset(host.lower() for host in hosts)
        context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self.context: int | None = context if isinstance(context, int) and context > 0 else None

    def fetch(self, request: ChatRequest) -> list[bytes]:
        """The files of its images."""
        return [image_bytes(url, self.hosts, self.limits, _param(number)) for number, url in enumerate(request.images)]

    def job(self, request: ChatRequest, files: Sequence[bytes], tell: Callable[[Said | Exception], None]) -> Job:
        """Raises RequestError."""
        arrays = iter([self._decoded(data, _param(number)) for number, data in enumerate(files)])
        conversation = [message | {"content": _shown(message["content"], arrays)} for message in request.messages]
        try:
            sample: PreparedSample = self.processor.sample(conversation, add_generation_prompt=True)
        except (LayoutError, ImageSizeError, ImageError) as error:
            raise RequestError(f"messages: {error}", param="messages") from None
        drawing = Drawing(
            temperature=request.temperature,
            top_p=request.top_p,
            seed=secrets.randbits(63) if request.seed is None else request.seed,
        )
        words = Words(self.decode, request.stop)
        return Job(sample, drawing, self._room(request, sample), words, tell, request.stream)

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self.processor.decode(tokens, skip_special_tokens=True))

    def _decoded(self, data: bytes, param: str) -> Any:
        """(H, W, 3). A picture that is too large is refused by its header."""
        try:
            size = image_size(data)
            if size.pixels > self.limits.image_pixels:
                message = f"{param}: {size.height}x{size.width} = {size.pixels} pixels, at most {self.limits.image_pixels} are taken"
                raise RequestError(message, status=413, param=param, code="image_too_large")
            return decode(data, max_pixels=self.limits.image_pixels)
        except ImageError as error:
            raise RequestError(f"{param}: {error}", param=param, code="invalid_image") from None

    def _room(self, request: ChatRequest, sample: PreparedSample) -> int:
        """How many tokens the answer may have. Raises RequestError where prompt and answer are too long for the model."""
        layout = sample.layouts[0]
        prompt = positions_taken(layout, [image.tokens for image in sample.images], self.processor.entries.three)
        wanted = self.limits.answer_tokens if request.max_tokens is None else request.max_tokens
        if self.context is None:
            return wanted
        least = 1 if request.max_tokens is None else request.max_tokens
        if prompt + least > self.context:
            at = "" if prompt == len(layout.ids) else f" at {prompt} positions"
            raise RequestError(
                f"messages: the prompt has {len(layout.ids)} tokens{at}, images included, and the answer may have {least} more, but the "
                f"model takes {self.context} together",
                param="messages",
                code="context_length_exceeded",
            )
        return min(wanted, self.context - prompt)


def _param(number: int) -> str:
    return f"image {number}"


def _shown(content: Any, arrays: Any) -> Any:
    """The content with arrays where URLs were."""
    if isinstance(content, str):
        return content
    return [{"type": "image", "image": next(arrays)} if item["type"] == "image" else item for item in content]
