"""What a processor does with images alone, under the name by which transformers and TRL look for it."""

from __future__ import annotations

from typing import Any

import torch

from vlmkit.batch.batch import Batch
from vlmkit.batch.collate import joined
from vlmkit.batch.portable import image_rows
from vlmkit.batch.rendering import Renders


class ImageProcessor:
    """Images -> `pixel_values` (N, 3*t*p*p) and `image_grid_thw` (V, 3), without any text."""

    padding_value = 0
    """What pipelines would fill pixels up with; nothing is."""
    padding_side: str | None = None

    def __init__(self, of: Renders) -> None:
        self._of = of

    def __call__(self, images: Any, return_tensors: str = "pt", **unused: Any) -> Batch:
        """One image, a list of them, or a list of lists."""
        flat: list[Any] = []
        for item in images if isinstance(images, list | tuple) else [images]:
            flat += item if isinstance(item, list | tuple) else [item]
        rendered = [self._of.render_image(image) for image in flat]
        entries = {"pixel_values": joined([image.pixel_values for image in rendered])}
        entries["image_grid_thw"] = torch.cat([image_rows(image.grids, self._of.spec) for image in rendered])
        return Batch(entries)

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """It is saved with its processor."""
