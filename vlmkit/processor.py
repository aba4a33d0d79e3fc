"""The processor: conversations with images in, the batch of tensors that the model takes out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoProcessor, BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from vlmkit.architecture import Architecture
from vlmkit.config import VLMConfig
from vlmkit.conversation import Conversation, read_conversation
from vlmkit.layout.laid_out import IGNORE, Layout, LayoutError
from vlmkit.layout.pieces import ImageTokens
from vlmkit.preprocess.geometry import Size
from vlmkit.preprocess.images import decode
from vlmkit.preprocess.pixels import render
from vlmkit.spec import SpecError
from vlmkit.tokenizer import PlainTokenizer, check_specials


@dataclass(frozen=True, slots=True)
class RenderedImage:
    """An image as the encoder takes it: uint8 patches (N, 3*p*p), grids (V, 3), and what the layout needs to know."""

    pixel_values: Tensor
    grids: Tensor
    tokens: ImageTokens


@dataclass(frozen=True, slots=True)
class PreparedSample:
    """Images, and one or several laid-out conversations about them. Each conversation becomes a row of its own; the
    images are encoded once. A span's `image` is the number of one of these images."""

    images: tuple[RenderedImage, ...]
    layouts: tuple[Layout, ...]


class VLMProcessor(ProcessorMixin):  # type: ignore[misc]
    """Images and conversations -> tensors, as the architecture's policy, encoder, connector and layout say."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, architecture: dict[str, Any] | None = None) -> None:
        if architecture is None:
            raise SpecError("a processor needs its architecture: VLMProcessor(tokenizer, architecture=arch.to_dict())")
        super().__init__(tokenizer)
        self.architecture = architecture
        self.spec = Architecture.from_dict(architecture)
        required = self.spec.layout.required_specials()
        self.plain_tokenizer = PlainTokenizer(tokenizer, required)
        check_specials(self.plain_tokenizer, required, self.spec.language_model.vocabulary)

    @property
    def pad_token_id(self) -> int:
        """Id that fills rows up; it is masked, so any will do where the tokenizer has none."""
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else self.plain_tokenizer.specials[self.spec.layout.placeholder])

    @property
    def stop_token_ids(self) -> list[int]:
        """Ids of the special tokens that end an assistant's turn."""
        pieces = self.plain_tokenizer.specials.split(self.spec.layout.template.assistant[1])
        return [piece for piece in pieces if isinstance(piece, int)][:1]

    def plan_image(self, size: Size) -> ImageTokens:
        """What an image of this size becomes: its views and visual tokens. Raises ImageSizeError."""
        return self.spec.image_tokens(self.spec.policy.plan(size))

    def room(self, planned: Sequence[ImageTokens]) -> list[Tensor]:
        """For the patches of each image (N, 3*p*p), one behind the other in memory: a batch of what is rendered there is put
        together without a copy."""
        patch = self.spec.encoder.patch_size
        counts = [sum(grid.tokens for grid in image.plan.grids(patch)) for image in planned]
        return list(torch.split(torch.empty(sum(counts), 3 * patch * patch, dtype=torch.uint8), counts))

    def render_image(self, image: Any, planned: ImageTokens | None = None, out: Tensor | None = None) -> RenderedImage:
        """Open, plan and render one image, its patches into `out` where that is given. Raises ImageError, ImageSizeError, and
        ValueError where the image is not of the size that it was planned for."""
        spec = self.spec
        policy, patch = spec.policy, spec.encoder.patch_size
        picture = decode(image)
        tokens = planned or self.plan_image(Size(*picture.shape[:2]))
        patches, grids = render(picture, tokens.plan, patch=patch, resample=policy.resample, antialias=policy.antialias, out=out)
        return RenderedImage(patches, grids, tokens)

    def lay_out(self, conversation: Conversation, images: Sequence[RenderedImage], *, add_generation_prompt: bool = False) -> Layout:
        """Token ids, labels and spans of a conversation whose images are rendered already."""
        turns, _ = read_conversation(conversation)
        tokens = [image.tokens for image in images]
        return self.spec.layout.lay_out(turns, tokens, self.plain_tokenizer, add_generation_prompt=add_generation_prompt)

    def sample(self, conversation: Conversation, *, add_generation_prompt: bool = False) -> PreparedSample:
        """Render and lay out one conversation."""
        _, sources = read_conversation(conversation)
        images = tuple(self.render_image(source) for source in sources)
        return PreparedSample(images, (self.lay_out(conversation, images, add_generation_prompt=add_generation_prompt),))

    def __call__(
        self,
        conversations: Any = None,
        *,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        add_generation_prompt: bool | None = None,
        max_length: int | None = None,
        truncation: bool = False,
        pack: bool = False,
        padding: bool | str = True,
        padding_side: str | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Tensors for `model(**batch)` or `model.generate(**batch)`.

        conversations: one conversation or a list of them; or `images` and `text`, one question a row. Where the last
        message is the user's (the default of `add_generation_prompt`) the rows end where the answer begins and are
        padded on the left; otherwise they carry labels and are padded on the right. `pack` puts all conversations into
        one row with positions that start again. `max_length`: with `truncation` the end is dropped, images only whole;
        without, or where an answer is to be generated at the end, a longer conversation raises LayoutError. `padding`: True or
        'longest', or 'max_length'; False where rows are equally long by themselves.
        """
        if return_tensors != "pt":
            raise ValueError(f"return_tensors={return_tensors!r}: the batch is made of PyTorch tensors, use 'pt'")
        if padding_side not in (None, "left", "right"):
            raise ValueError(f"padding_side={padding_side!r}: expected 'left' or 'right'")
        if padding not in (True, False, "longest", "max_length") or (padding == "max_length" and max_length is None):
            raise ValueError(f"padding={padding!r}: expected True, False, 'longest', or 'max_length' beside max_length=")
        if (conversations is None) == (text is None) or (conversations is not None and images is not None):
            raise LayoutError("pass either conversations, which hold their images, or text with or without images")
        rows = _as_conversations(conversations) if text is None else _from_text(text, images)
        generate = all(_ends_with_user(row) for row in rows) if add_generation_prompt is None else add_generation_prompt
        samples = [self.sample(row, add_generation_prompt=generate) for row in rows]
        if max_length is not None:
            samples = [_limit(sample, number, max_length, truncation and not generate) for number, sample in enumerate(samples)]
        side = padding_side or ("left" if generate else "right")
        lengths = {len(layout.ids) for sample in samples for layout in sample.layouts}
        if not (padding or pack) and len(lengths) > 1:
            raise ValueError(
                f"padding=False: rows of {min(lengths)} to {max(lengths)} tokens make no tensor; leave it out, or pass pack=True"
            )
        length = max_length if padding == "max_length" else None
        batch = self.pack_rows([samples], length) if pack else self.collate(samples, padding_side=side, length=length)
        if generate:
            del batch["labels"]
        return batch

    def collate(self, samples: Sequence[PreparedSample], *, padding_side: str = "right", length: int | None = None) -> BatchFeature:
        """One row a conversation, padded to `length`, or to the longest. Raises LayoutError where a row is longer."""
        rows = list(_rows(samples))
        longest = max(len(row.layout.ids) for row in rows)
        length = longest if length is None else length
        if longest > length:
            raise LayoutError(f"a conversation has {longest} tokens, more than its row's length of {length}")
        batch = self._blank(len(rows), length)
        mask = np.zeros((len(rows), length), np.int64)
        for number, row in enumerate(rows):
            start = length - len(row.layout.ids) if padding_side == "left" else 0
            mask[number, row.write(batch, number, start)] = 1
        return _batch(batch | {"attention_mask": mask}, samples)

    def pack(self, samples: Sequence[PreparedSample]) -> BatchFeature:
        """All conversations in one row, one after the other, positions starting again; there is no attention mask:
        the restarts tell the language model where samples end. The first token of a sample is nobody's target."""
        return self.pack_rows([samples])

    def pack_rows(self, rows: Sequence[Sequence[PreparedSample]], length: int | None = None) -> BatchFeature:
        """Rows of packed samples, each filled up to `length` (the longest row's, if none is given) with tokens whose
        positions start again too, so that no sample sees them. Raises LayoutError where a row holds more."""
        samples = [sample for row in rows for sample in row]
        found = _rows(samples)
        packed = [[next(found) for sample in row for _ in sample.layouts] for row in rows]
        used = [sum(len(conversation.layout.ids) for conversation in row) for row in packed]
        length = max(used) if length is None else length
        if max(used) > length:
            raise LayoutError(f"row {used.index(max(used))} holds {max(used)} tokens, more than its length of {length}")
        batch = self._blank(len(rows), length)
        for number, row in enumerate(packed):
            start = 0
            for conversation in row:
                place = conversation.write(batch, number, start)
                batch["labels"][number, start] = IGNORE
                start = place.stop
            batch["position_ids"][number, start:] = np.arange(length - start)
        return _batch(batch, samples)

    def _blank(self, rows: int, length: int) -> dict[str, NDArray[np.int64]]:
        """Rows in which no conversation stands yet."""
        filled = {"input_ids": self.pad_token_id, "position_ids": 0, "labels": IGNORE, "visual_index": -1}
        if self.spec.fusion.needs_prefix:
            filled["token_type_ids"] = 0
        return {name: np.full((rows, length), value, np.int64) for name, value in filled.items()}

    def apply_chat_template(
        self,
        conversation: Any,
        *,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool = False,
        tokenize: bool = True,
        return_dict: bool = True,
        return_tensors: str = "pt",
        processor_kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """The habit of transformers users and of its pipelines: the same as calling the processor with conversations."""
        if not tokenize or not return_dict:
            raise ValueError("vlmkit assembles ids, not strings: call apply_chat_template with tokenize=True, return_dict=True")
        if continue_final_message:
            raise ValueError(
                "continue_final_message=True: an answer begins behind a question; end the conversation with the user's message"
            )
        options |= processor_kwargs or {}
        return self(conversation, add_generation_prompt=add_generation_prompt, return_tensors=return_tensors, **options)

    @property
    def model_input_names(self) -> list[str]:
        types = ["token_type_ids"] if self.spec.fusion.needs_prefix else []
        return ["input_ids", "attention_mask", "position_ids", "visual_index", *types, "pixel_values", "grids"]


@dataclass(frozen=True, slots=True)
class _Row:
    layout: Layout
    firsts: tuple[int, ...]
    """Row of the first visual token of each image of the conversation."""

    def write(self, batch: dict[str, NDArray[np.int64]], number: int, start: int) -> slice:
        """Put the conversation into a row of a batch, from `start` on; where it stands there."""
        layout = self.layout
        place = slice(start, start + len(layout.ids))
        ids, labels, index = batch["input_ids"][number, place], batch["labels"][number, place], batch["visual_index"][number, place]
        ids[:] = layout.ids
        batch["position_ids"][number, place] = np.arange(len(ids))
        for begin, end in layout.supervised:
            labels[begin:end] = ids[begin:end]
        for span in layout.spans:
            first = self.firsts[span.image] + span.offset
            index[span.start : span.start + span.length] = np.arange(first, first + span.length)
        for learned, which in layout.learned:
            index[learned] = -2 - which
        if "token_type_ids" in batch:
            # 0 in the prefix, 1 behind it.
            batch["token_type_ids"][number, start + layout.prefix : place.stop] = 1
        return place


def _rows(samples: Sequence[PreparedSample]) -> Iterator[_Row]:
    if not samples:
        raise LayoutError("an empty batch: pass at least one conversation")
    total = 0
    for sample in samples:
        firsts = []
        for image in sample.images:
            firsts.append(total)
            total += image.tokens.count
        for layout in sample.layouts:
            yield _Row(layout, tuple(firsts))


def _batch(rows: dict[str, NDArray[np.int64]], samples: Sequence[PreparedSample]) -> BatchFeature:
    batch = {name: torch.from_numpy(value) for name, value in rows.items()}
    images = [image for sample in samples for image in sample.images]
    if images:
        batch["pixel_values"] = _joined([image.pixel_values for image in images])
        batch["grids"] = torch.cat([image.grids for image in images])
    return BatchFeature(batch)


def _joined(patches: Sequence[Tensor]) -> Tensor:
    """One behind the other; without a copy where they stand like that in memory already, as those of `room` do."""
    first, end = patches[0], patches[0].data_ptr()
    for part in patches:
        if part.data_ptr() != end or not part.is_contiguous():
            return torch.cat(list(patches))
        end += part.nbytes
    storage = first.untyped_storage()
    if end > storage.data_ptr() + storage.nbytes():
        return torch.cat(list(patches))
    return first.as_strided((sum(map(len, patches)), *first.shape[1:]), first.stride(), first.storage_offset())


def _limit(sample: PreparedSample, number: int, max_length: int, truncation: bool) -> PreparedSample:
    """The sample in at most `max_length` tokens. Images that no conversation shows any more are not encoded either."""
    longest = max(len(layout.ids) for layout in sample.layouts)
    if longest <= max_length:
        return sample
    layouts = tuple(layout.truncated(max_length) for layout in sample.layouts)
    if not truncation or not all(layout.ids for layout in layouts):
        raise LayoutError(
            f"conversation {number} has {longest} tokens, more than max_length={max_length}; raise it, or pass truncation=True "
            "where no answer is to be generated at the end that would be cut off"
        )
    shown = max((span.image + 1 for layout in layouts for span in layout.spans), default=0)
    return PreparedSample(sample.images[:shown], layouts)


def _ends_with_user(conversation: Conversation) -> bool:
    turns, _ = read_conversation(conversation)
    return turns[-1].role == "user"


def _as_conversations(conversations: Any) -> list[Conversation]:
    """A single conversation is a list of messages; a batch is a list of those."""
    if not isinstance(conversations, Sequence) or isinstance(conversations, str | bytes):
        raise LayoutError(f"conversations are lists of messages, got {type(conversations).__name__}")
    if conversations and isinstance(conversations[0], Mapping):
        return [conversations]
    return list(conversations)


def _from_text(text: str | Sequence[str], images: Any) -> list[Conversation]:
    """One user message a text; images one a text, or a list of lists, or any number for a single text."""
    texts = [text] if isinstance(text, str) else list(text)
    if images is None:
        groups: list[list[Any]] = [[] for _ in texts]
    elif not isinstance(images, list | tuple):
        groups = [[images]]
    elif len(texts) == 1 and not (images and isinstance(images[0], list | tuple)):
        groups = [list(images)]
    else:
        groups = [list(group) if isinstance(group, list | tuple) else [group] for group in images]
    if len(groups) != len(texts):
        raise LayoutError(f"{len(texts)} text(s), but images for {len(groups)}; give one image, or a list of images, for each text")
    return [
        [{"role": "user", "content": [*({"type": "image", "image": image} for image in group), {"type": "text", "text": words}]}]
        for words, group in zip(texts, groups, strict=True)
    ]


AutoProcessor.register(VLMConfig, VLMProcessor)
