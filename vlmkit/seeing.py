"""The model's side of the images: patches and views of each tower -> visual tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from vlmkit.architecture import Architecture
from vlmkit.arrival import check_places
from vlmkit.features import Features, View
from vlmkit.fusion.incoming import FusionError
from vlmkit.sharding import is_sharded
from vlmkit.views import views_of

Views = tuple[View, ...]


class Sees(PreTrainedModel):  # type: ignore[misc]
    """Part of VLM: towers and connector are called, once for all images of a batch."""

    spec: Architecture
    encoder: nn.Module
    connector: nn.Module

    @staticmethod
    def one_or_several(towers: list[nn.Module]) -> nn.Module:
        """What `encoder` is: the tower itself where there is one, as its weights have been named since there was no other."""
        return towers[0] if len(towers) == 1 else nn.ModuleList(towers)

    @property
    def towers(self) -> tuple[nn.Module, ...]:
        return tuple(self.encoder) if isinstance(self.encoder, nn.ModuleList) else (self.encoder,)

    def get_image_features(self, pixel_values: Tensor, grids: Tensor, places: Tensor | None = None, **further: Any) -> Features:
        """Patches (N, 3*t*p*p) and grids (V, 3) -> visual tokens (T, D_lm) with the grid of each view."""
        return self.see(*self.read_pixels({"pixel_values": pixel_values, "grids": grids, "places": places} | further))

    def read_pixels(self, batch: dict[str, Any]) -> tuple[tuple[Tensor, ...], tuple[Views, ...]]:
        """Patches and views for each tower. Whole numbers that lie on a device come back here, once."""
        patches, views = [], []
        for number in self.spec.pixel_sets:
            behind = f"_{number}" if number else ""
            pixels, grids = batch.get(f"pixel_values{behind}"), batch.get(f"grids{behind}")
            if pixels is None or grids is None:
                raise FusionError(f"pixel_values{behind} and grids{behind} come together: pass the processor's whole batch")
            patches.append(pixels)
            views.append(views_of(grids, batch.get("places")))
        return tuple(patches), tuple(views)

    def see(self, patches: tuple[Tensor, ...], views: tuple[Views, ...]) -> Features:
        """Patches (N, 3*t*p*p) and views of each tower -> visual tokens (T, D_lm)."""
        seen = [tower(pixels, of) for tower, pixels, of in zip(self.towers, patches, views, strict=True)]
        seen = [
            # A tower without weights has none to follow: its features are float32.
            one if next(tower.parameters(), None) is not None else one._replace(tokens=one.tokens.to(self.dtype))
            for one, tower in zip(seen, self.towers, strict=True)
        ]
        features: Features = self.connector(*seen)
        return features

    def see_nothing(self) -> Features:
        """What one blank view gives, for a batch without images: so each rank of a sharded model, and each process that averages
        gradients, calls the same modules whatever its batch holds. No token refers to it."""
        blank = self.spec.blank_views
        patches = tuple(torch.zeros(grid.tokens, values, dtype=torch.uint8, device=self.device) for grid, values in blank)
        return self.see(patches, tuple((View(grid),) for grid, _ in blank))

    def embed_tags(self, pixels: dict[str, Any], features: Features | None) -> tuple[Tensor, Tensor] | None:
        """Embeddings (V, L, D_lm) of the text of each view, and which of them are there (V, L). For a blank view, and for visual tokens
        of which no views are stated, one that is not there, so that each rank calls the same modules."""
        tags = pixels.get("tags")
        if features is None or (tags is None and pixels["grids"] is not None):
            return None
        device = features.tokens.device
        tags = torch.full((1, 1), -1, device=device) if tags is None else tags.to(device, non_blocking=True)
        return self.get_input_embeddings()(tags.clamp(min=0)), tags >= 0

    def look(
        self,
        pixels: dict[str, Any],
        visual_index: Tensor | None,
        visible: Tensor | None,
        kept: Features | Tensor | None,
        made_here: bool,
        cached: bool,
    ) -> tuple[Features | None, Views]:
        """The visual tokens (T, D_lm) of a batch, those that were `kept` from an earlier step, or nothing; and the views that the batch
        states. Raises FusionError."""
        if pixels["pixel_values"] is not None:
            if pixels["grids"] is None or (visual_index is None and visible is None):
                raise FusionError("pixel_values need grids and visual_index beside them: pass the processor's whole batch")
            patches, views = self.read_pixels(pixels)
            if not made_here and visual_index is not None:
                grids = self.spec.grids_out(*([view.grid for view in of] for of in views))
                check_places(grids, visual_index, whole=not self.spec.layout.partial)
            return self.see(patches, views), views[0]
        if isinstance(kept, Features):
            return kept, () if pixels["grids"] is None else views_of(pixels["grids"], pixels["places"])
        if kept is not None:
            return Features(kept, ()), ()
        if visual_index is not None and (not made_here or visual_index.device.type == "cpu") and bool((visual_index != -1).any()):
            raise FusionError("visual_index refers to images, but the batch has no pixel_values")
        return self.see_nothing() if not cached and (self.training or is_sharded(self)) else None, ()
