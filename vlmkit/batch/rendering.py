"""Images and films -> patches for each tower, as policies and encoders say. Nothing here needs a tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vlmkit.architecture import Architecture, VisionTower
from vlmkit.batch.sample import Pixels, RenderedImage
from vlmkit.conversation import Film, Medium
from vlmkit.layout.pieces import ImageTokens
from vlmkit.preprocess.changes import changed_tokens
from vlmkit.preprocess.geometry import ImagePlan, Size
from vlmkit.preprocess.images import decode
from vlmkit.preprocess.pixels import render, render_clip
from vlmkit.preprocess.sampling import Sampling
from vlmkit.preprocess.video import open_video


class Renders:
    """A processor's side of the images."""

    spec: Architecture

    def plan_image(self, size: Size) -> ImageTokens:
        """What an image of this size becomes: its views and visual tokens. Raises ImageSizeError."""
        return self.spec.image_tokens(self.spec.policy.plan(size))

    def room(self, planned: Sequence[ImageTokens]) -> list[tuple[Tensor, ...]]:
        """For the patches of each image, (N, 3*t*p*p) for every set of pixels, those of one set one behind the other in memory: a batch
        of what is rendered there is put together without a copy."""
        cuts = [self.spec.cuts(image.plan) for image in planned]
        sets = []
        for number, tower in enumerate(self.spec.cutters):
            counts = [sum(grid.tokens for grid in self.spec.cut(cut[number][1], tower)) for cut in cuts]
            sets.append(torch.split(torch.empty(sum(counts), tower.encoder.values, dtype=torch.uint8), counts))
        return list(zip(*sets, strict=True)) if planned else []

    def render_image(self, image: Any, planned: ImageTokens | None = None, out: Sequence[Tensor] | None = None) -> RenderedImage:
        """Open, plan and render one image, each set of pixels into its place of `out` where that is given. Raises ImageError,
        ImageSizeError, and ValueError where the image is not of the size that it was planned for."""
        picture = decode(image)
        tokens = planned or self.plan_image(Size(*picture.shape[:2]))
        cuts = self.spec.cuts(tokens.plan)
        places = [None] * len(cuts) if out is None else out
        first, *beside = [_cut(picture, *cut, place) for cut, place in zip(cuts, places, strict=True)]
        return RenderedImage(*first, tokens, tuple(beside))

    def render_film(self, film: Film) -> RenderedImage:
        """Open, sample, plan and render one film, which is read once for each set of pixels. Raises VideoError, ImageSizeError."""
        spec, video = self.spec, open_video(film.source, fps=film.fps)
        times = video.shown(film.sampling or spec.sampling or Sampling())
        plan = spec.policy.plan_clip(video.size, times)
        tokens = spec.image_tokens(plan)
        first, *beside = [_cut_film(video.at(times), *cut, spec.connector.least_frames) for cut in spec.cuts(plan)]
        threshold = spec.layout.unchanged
        if threshold is not None:
            grids = spec.cut(plan, spec.towers[0])
            kept = changed_tokens(first.pixel_values, grids, tokens.grids, len(plan.views), spec.encoder.std, threshold)
            tokens = replace(tokens, kept=kept)
        return RenderedImage(*first, tokens, tuple(beside))

    def render(self, medium: Medium) -> RenderedImage:
        """What a conversation shows, as encoders take it."""
        return self.render_film(medium) if isinstance(medium, Film) else self.render_image(medium.source)


def _cut(picture: Any, tower: VisionTower, plan: ImagePlan, out: Tensor | None = None) -> Pixels:
    """What a tower sees of a picture (H, W, 3)."""
    policy = tower.policy
    cut = render(
        picture,
        plan,
        patch=tower.encoder.patch_size,
        patch_frames=tower.encoder.patch_frames,
        resample=policy.resample,
        antialias=policy.antialias,
        out=out,
    )
    return Pixels(*cut)


def _cut_film(frames: Iterable[Any], tower: VisionTower, plan: ImagePlan, least_frames: int) -> Pixels:
    """What a tower sees of the frames (H, W, 3) of a film."""
    encoder, policy = tower.encoder, tower.policy
    return Pixels(
        *render_clip(
            frames,
            plan,
            patch=encoder.patch_size,
            patch_frames=encoder.patch_frames,
            clips=encoder.clips,
            least_frames=least_frames,
            resample=policy.resample,
            antialias=policy.antialias,
        )
    )
