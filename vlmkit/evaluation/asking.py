"""Asking a model many questions: in batches of prompts of about one length, the next one prepared while the model answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from vlmkit.batch.sample import PreparedSample
from vlmkit.conversation import read_conversation
from vlmkit.preprocess.images import image_size

if TYPE_CHECKING:
    from vlmkit.batch.batch import Batch
    from vlmkit.model import VLM
    from vlmkit.processor import VLMProcessor


@dataclass(frozen=True, order=True)
class Ask:
    """A question by its number, about the image that is shown: its own, or where it is asked blind another's."""

    question: int
    image: int
    blind: bool = False


@torch.no_grad()
def ask(
    model: VLM,
    processor: VLMProcessor,
    images: Sequence[Any],
    prompts: Sequence[str],
    asks: Sequence[Ask],
    *,
    batch_size: int,
    max_new_tokens: int,
) -> Iterator[list[tuple[Ask, str]]]:
    """Greedy answers, a batch at a time, those to the longest prompts first: what does not fit into memory is known at once.

    An image is encoded once in a batch, however many questions are about it. An answer does not depend on the batch that it comes from,
    up to what rounding does where two tokens are equally likely.
    """
    model.eval()
    stops = sorted({*processor.stop_token_ids, *_ids(model.generation_config.eos_token_id)})
    options: dict[str, Any] = {"eos_token_id": stops} if stops else {}
    batches = list(by_length(processor, images, prompts, asks, batch_size))

    def prepare(batch: Sequence[Ask]) -> tuple[list[Ask], Batch]:
        return _prepared(processor, images, prompts, batch)

    with ThreadPoolExecutor(1) as ahead:
        waiting = ahead.submit(prepare, batches[0]) if batches else None
        for number in range(len(batches)):
            assert waiting is not None
            order, batch = waiting.result()
            waiting = ahead.submit(prepare, batches[number + 1]) if number + 1 < len(batches) else None
            batch = batch.to(model.device)
            ids = model.generate(**batch, max_new_tokens=max_new_tokens, do_sample=False, **options)
            said = ids[:, batch["input_ids"].shape[1] :].tolist()
            kept = [row[: next((at for at, token in enumerate(row) if token in stops), len(row))] for row in said]
            texts = processor.tokenizer.batch_decode(kept, skip_special_tokens=True)
            yield [(one, text.strip()) for one, text in zip(order, texts, strict=True)]


def by_length(
    processor: VLMProcessor, images: Sequence[Any], prompts: Sequence[str], asks: Sequence[Ask], size: int
) -> Iterator[list[Ask]]:
    """At most `size` a batch, longest prompts first; questions about one image stand together. Of images only the sizes are read."""
    if size < 1:
        raise ValueError(f"a batch holds one question or more, got batch_size={size}")
    of_image: dict[int, list[tuple[int, Ask]]] = {}
    for one in asks:
        of_image.setdefault(one.image, []).append((0, one))
    for image, found in of_image.items():
        length = _lengths(processor, images[image])
        of_image[image] = sorted(((length(prompts[one.question]), one) for _, one in found), key=lambda pair: (-pair[0], pair[1]))
    # No batch is longer than its first image's longest prompt.
    queue = [one for found in sorted(of_image.values(), key=lambda found: (-found[0][0], found[0][1])) for _, one in found]
    for begin in range(0, len(queue), size):
        yield queue[begin : begin + size]


def _lengths(processor: VLMProcessor, image: Any) -> Callable[[str], int]:
    """Tokens of a prompt about the image."""
    tokens = processor.plan_image(image_size(image))
    layout = processor.spec.layout

    def length(prompt: str) -> int:
        turns, _ = read_conversation(conversation(prompt))
        return len(layout.lay_out(turns, [tokens], processor.plain_tokenizer, add_generation_prompt=True).ids)

    return length


def _prepared(processor: VLMProcessor, images: Sequence[Any], prompts: Sequence[str], asks: Sequence[Ask]) -> tuple[list[Ask], Batch]:
    """The batch, and whose rows they are."""
    of_image: dict[int, list[Ask]] = {}
    for one in asks:
        of_image.setdefault(one.image, []).append(one)
    samples = []
    for image, found in of_image.items():
        shown = processor.render_image(images[image])
        layouts = [processor.lay_out(conversation(prompts[one.question]), (shown,), add_generation_prompt=True) for one in found]
        samples.append(PreparedSample((shown,), tuple(layouts)))
    batch = processor.collate(samples, padding_side="left")
    for name in ("labels", "supervised"):
        batch.pop(name, None)
    return [one for found in of_image.values() for one in found], batch


def conversation(prompt: str) -> list[dict[str, Any]]:
    """A question about one image, which stands before it."""
    return [{"role": "user", "content": [{"type": "image", "image": 0}, {"type": "text", "text": prompt}]}]


def _ids(token: int | list[int] | None) -> list[int]:
    return token if isinstance(token, list) else [] if token is None else [token]
