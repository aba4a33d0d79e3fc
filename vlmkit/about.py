"""Questions about the same images: these are encoded once, and what stands before a question is computed once.

The rows of a batch are laid out as the processor always does, padded on the left. What is kept of the shared beginning, keys and values
with positions in them already, is put behind the padding of each row; so every row is what it would be alone, under sliding windows as
well, and a row that is padded by k tokens computes the last k tokens of the beginning again.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vlmkit.batch.sample import PreparedSample
from vlmkit.cache_name import CACHE
from vlmkit.conversation import Conversation, Message, read_conversation
from vlmkit.features import Features
from vlmkit.views import BESIDE_VISUAL, is_pixels

if TYPE_CHECKING:
    from vlmkit.model import VLM
    from vlmkit.processor import VLMProcessor


class About:
    """What `model.about(processor, image)` gives: ask it questions, each of which stands for itself.

        asked = model.about(processor, "photo.jpg")
        asked.ask("What does the sign say?")
        asked.ask(["What colour is it?", "How many are there?"])    # one batch

    The answers are those of `model.chat`. Weights that change afterwards do not change what is kept: make it anew.
    """

    def __init__(self, model: VLM, processor: VLMProcessor, images: Sequence[Any], before: Sequence[Message]) -> None:
        self.model, self.processor = model, processor
        self._shown = [{"type": "image", "image": image} for image in images]
        self._before = list(before)
        _, media = read_conversation(self._conversation("?"))
        self._images = tuple(processor.render(medium) for medium in media)
        self.visual: Features | None = None
        """The visual tokens of all images."""
        self._ids: list[int] = []
        self._cache: Any = None
        self._begin()

    @property
    def shared_tokens(self) -> int:
        """How many tokens before a question are computed once: none where the language model's side cannot share them (a prefix that sees
        itself in both directions, layers that carry a state), and then the visual tokens are all that is shared."""
        return len(self._ids)

    def ask(self, question: str | Sequence[str], **generate: Any) -> Any:
        """The answer to a question, or a list of answers to several, which are generated in one batch.

        `generate` takes transformers' arguments, as `VLM.chat` does.
        """
        questions = [question] if isinstance(question, str) else list(question)
        if not questions:
            return []
        shares = generate.get("use_cache") is not False and generate.get("cache_implementation") is None
        answers: list[str] = self.model.answers(self.processor, self.inputs(questions, share=shares), **generate)
        return answers[0] if isinstance(question, str) else answers

    @torch.no_grad()
    def inputs(self, questions: Sequence[str], *, share: bool = True) -> dict[str, Any]:
        """What `model.generate(**inputs)` takes, one row a question: the ids of whole prompts, and a cache that begins them. Generation
        adds to that cache, so the inputs are for one call. share: whether there is a cache; the visual tokens are there either way.
        """
        layouts = tuple(self._lay_out(question) for question in questions)
        batch = dict(self.processor.collate([PreparedSample(self._images, layouts)], padding_side="left").to(self.model.device))
        unused = [name for name in batch if name in ("labels", "supervised") or name.startswith("pixel_values")]
        for name in unused:
            del batch[name]
        if self.visual is not None:
            batch["visual"] = self.visual
        rows = batch["input_ids"].shape[1]
        pads = [rows - len(layout.ids) for layout in layouts]
        begun = min((pad + _agree(self._ids, layout.ids) for pad, layout in zip(pads, layouts, strict=True)), default=0)
        begun = min(begun, rows - 1)
        if share and self._cache is not None and begun > 0:
            batch[CACHE] = self._cache_of([min(pad, begun) for pad in pads], begun)
        return batch

    def _conversation(self, question: str) -> Conversation:
        return [*self._before, {"role": "user", "content": [*self._shown, {"type": "text", "text": question}]}]

    def _lay_out(self, question: str) -> Any:
        return self.processor.lay_out(self._conversation(question), self._images, add_generation_prompt=True)

    @torch.no_grad()
    def _begin(self) -> None:
        """Encode the images, and compute what stands before any question."""
        model, layouts = self.model, [self._lay_out(probe) for probe in PROBES]
        batch = dict(self.processor.collate([PreparedSample(self._images, (layouts[0],))]).to(model.device))
        pixels = {name: batch[name] for name in batch if is_pixels(name)}
        if pixels:
            self.visual = model.get_image_features(**pixels)
            self._images = tuple(image.without_pixels() for image in self._images)
        shared = min(_agree(layouts[0].ids, layouts[1].ids), len(layouts[0].ids) - 1)
        if not shared or model.spec.fusion.needs_prefix or not has_plain_cache(model):
            return
        begun = {
            name: value[..., :shared] if value.dim() == 3 and name == "position_ids" else value[:, :shared]
            for name, value in batch.items()
            if name in ROWS
        }
        if self.visual is not None:
            begun |= {"visual": self.visual} | {name: pixels[name] for name in BESIDE_VISUAL if name in pixels}
        from transformers import DynamicCache

        # Made without a config, a cache keeps all keys of layers with a sliding window too, and masks say what is seen of them.
        cache = DynamicCache()
        model(**begun, **{CACHE: cache}, logits_to_keep=1)
        self._ids, self._cache = list(layouts[0].ids[:shared]), cache

    def _cache_of(self, pads: Sequence[int], begun: int) -> Any:
        """A cache of `begun` columns, in which the beginning stands behind the padding of each row."""
        cache = copy.copy(self._cache)  # what a fusion keeps beside it, once for all rows, goes along
        cache.layers = [copy.copy(layer) for layer in cache.layers]
        for layer in cache.layers:
            layer.keys, layer.values = placed(layer.keys, pads, begun), placed(layer.values, pads, begun)
        return cache


ROWS = ("input_ids", "attention_mask", "position_ids", "visual_index", "learned_index", "visible", "token_type_ids")
"""Entries of a batch that are cut where the beginning ends."""
PROBES = ("What is it?", "1")
"""Two questions that have nothing in common: what their prompts have in common is what stands before any question."""


def placed(kept: Tensor, pads: Sequence[int], columns: int) -> Tensor:
    """(1, heads, P, D) -> (rows, heads, columns, D): in each row behind its padding, and cut where the columns end. Without padding a
    view: a cache grows by what is put together anew, and copies it then."""
    if not any(pads):
        return kept[:, :, :columns].expand(len(pads), -1, -1, -1)
    rows = kept.new_zeros(len(pads), kept.shape[1], columns, kept.shape[3])
    for row, pad in enumerate(pads):
        rows[row, :, pad:] = kept[0, :, : columns - pad]
    return rows


def has_plain_cache(model: VLM) -> bool:
    """Whether all that a language model keeps of its tokens are keys and values, token by token: no state, no index."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    if not model.language_model._supports_default_dynamic_cache():
        return False
    layers = DynamicCache(config=model.language_model.config).layers
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


def _agree(first: Sequence[int], second: Sequence[int]) -> int:
    """How many ids from the first on are the same."""
    for place, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return place
    return min(len(first), len(second))
