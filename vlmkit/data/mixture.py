"""Batches by number: sample i of a mix of sources, shuffled and repeated, is the same in every run and every process.

grain computes the order without keeping one in memory, so any batch can be asked for at once: a run continues at batch
n without reading the n before it, and one process of many takes every so-manieth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from vlmkit.conversation import Conversation
from vlmkit.processor import PreparedSample

if TYPE_CHECKING:
    from vlmkit.processor import VLMProcessor


class Conversations(Protocol):
    """Conversations by number."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Conversation: ...


class ChatBatches(Dataset[dict[str, Tensor]]):
    """Batch number n holds samples n * batch_size and on of the mix. It never ends: a source that is used up begins anew
    in another order."""

    def __init__(
        self,
        sources: Sequence[tuple[Conversations, float]],
        processor: VLMProcessor,
        *,
        batch_size: int,
        seed: int,
        pack: bool = False,
        max_length: int | None = None,
    ) -> None:
        """sources: conversations that end with the assistant's words, and the weight of each source in the mix."""
        import grain

        shuffled = [grain.MapDataset.source(source).seed(seed + number).shuffle().repeat() for number, (source, _) in enumerate(sources)]
        self.mix = grain.MapDataset.mix(shuffled, weights=[weight for _, weight in sources])
        self.processor = processor
        self.batch_size = batch_size
        self.pack = pack
        self.max_length = max_length
        self.blank = processor.render_image(np.zeros((64, 64, 3), np.uint8))

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        samples = [self._sample(self.mix[number * self.batch_size + place]) for place in range(self.batch_size)]
        batch: dict[str, Tensor] = dict(self.processor.pack(samples) if self.pack else self.processor.collate(samples))
        # An image that no token refers to: under ZeRO-3 every process has to run the tower in every step, or all wait
        # for one another for ever. Its gradient is zero.
        return batch if "pixel_values" in batch else batch | {"pixel_values": self.blank.pixel_values, "grids": self.blank.grids}

    def _sample(self, conversation: Any) -> PreparedSample:
        sample = self.processor.sample(conversation)
        if self.max_length is None:
            return sample
        layouts = tuple(layout.truncated(self.max_length) for layout in sample.layouts)
        shown = max((span.image + 1 for layout in layouts for span in layout.spans), default=0)
        return PreparedSample(sample.images[:shown], layouts)
