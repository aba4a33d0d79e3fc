"""Llama 3.2-Vision's tower (Dubey et al. 2024, arXiv:2407.21783, section 7) as transformers' MllamaVisionModel computes it: the tiles of an
image are read together.

Each tile is a view of one size, with a class token. A first stack of blocks and a second, gated one attend over all tiles of an image;
learned tables say which tile of which canvas a token is of. Features of six layers stand side by side: the last of the second
stack, then, channel by channel, the selected layers of the first.

The published tower always runs over as many tiles as a canvas may have. Tiles that the image does not fill are zeros after normalising,
and eight-fold padding adds zeros to every tile. Such tokens do not attend to each other, but the image's own attend to them, and
they to the image's, so that features of a small image depend on them. What becomes of blank tiles is given too, image by image, as more
grids behind those of all views: where text attends to everything (fusion/cross_attention.py), these count.

    an image of one tile, t its tokens, b those of blank tiles, 0 padding:    t t t t b b b b b b b b b b b b 0 0 0 0
    t attends to all of it, b and 0 attend to t

A picture of the whole image beside its tiles (row and column -1) is an image of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from vlmkit.activations import TransformersActivation
from vlmkit.encoders import encoders
from vlmkit.encoders.base import CLIP_MEAN, CLIP_STD, Encoder, refuse_frames
from vlmkit.encoders.hf import named_theirs, refuse_colours
from vlmkit.features import Grid, GridError, View, tiles_together
from vlmkit.preprocess.geometry import ImagePlan
from vlmkit.spec import SpecError

if TYPE_CHECKING:
    from torch import nn


NAMES = {
    "heads": "attention_heads",
    "patch": "patch_size",
    "tiles": "max_num_tiles",
    "selected": "intermediate_layers_indices",
    "activation": "hidden_act",
}
"""Fields under transformers' names, those that can be wrong."""


@encoders.register("mllama")
@dataclass(frozen=True, kw_only=True)
class Mllama(Encoder):
    """The defaults are the numbers of meta-llama/Llama-3.2-11B-Vision-Instruct and of 90B alike."""

    width: int = 1280
    layers: int = 32
    """Blocks of the first stack."""
    global_layers: int = 8
    """Blocks of the second one, whose branches are gated."""
    heads: int = 16
    mlp: int = 5120
    patch: int = 14
    image_size: int = 560
    """Side of a tile in pixels."""
    tiles: int = 4
    """Tiles of a canvas at most. Every canvas of rows x columns that has no more is one that the tower knows."""
    selected: tuple[int, ...] = (4, 8, 16, 24, 31)
    """Blocks of the first stack whose output stands beside the last block's of the second: 4 is the output of the fourth."""
    activation: TransformersActivation = "gelu"
    norm_eps: float = 1e-5
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    checkpoint: str | None = None
    """Where `load_pretrained` finds weights: a name on the hub or a local directory."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("width", "layers", "global_layers", "heads", "mlp", "patch", "tiles"):
            if getattr(self, name) < 1:
                raise SpecError(f"mllama.{name}: expected 1 or more, got {getattr(self, name)}")
        if self.width % self.heads:
            raise SpecError(f"mllama.heads: width {self.width} does not divide into {self.heads} heads")
        if not self.selected or not all(1 <= depth <= self.layers for depth in self.selected):
            raise SpecError(f"mllama.selected: expected 1 to {self.layers} (blocks), got {self.selected}")
        if self.image_size < self.patch:
            raise SpecError(f"mllama.image_size: expected {self.patch} pixels (patch) or more, got {self.image_size}")

    @property
    def reads_places(self) -> bool:
        return True

    @property
    def patch_size(self) -> int:
        return self.patch

    @property
    def dim_out(self) -> int:
        return self.width * (1 + len(self.selected))

    @property
    def native_grid(self) -> Grid:
        """The grid of a tile."""
        side = self.image_size // self.patch
        return Grid(1, side, side)

    @property
    def canvases(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of tiles of every canvas, in the order of the tables' entries, before which is one for no image."""
        sides = range(1, self.tiles + 1)
        return tuple((rows, columns) for rows in sides for columns in sides if rows * columns <= self.tiles)

    def grid_out(self, grid: Grid) -> Grid:
        refuse_frames(self.kind, grid)
        if grid != self.native_grid:
            raise GridError(
                f"encoder 'mllama' takes tiles of {self.image_size}x{self.image_size} pixels (a {self.native_grid} grid of "
                f"{self.patch}x{self.patch} patches), but the view is a {grid} grid. Use a policy that cuts tiles of {self.image_size}"
            )
        return replace(grid, prefix=1)

    def smallest(self, multiple: int) -> Grid:
        return self.native_grid

    def canvas(self, tiles: Sequence[View]) -> tuple[int, int]:
        """Rows and columns of the canvas that these tiles fill. Raises GridError for one that the tower does not know."""
        rows, columns = 1 + max(0, tiles[-1].row), 1 + max(0, tiles[-1].column)
        if (rows, columns) not in self.canvases or len(tiles) != rows * columns:
            raise GridError(
                f"encoder 'mllama' reads the tiles of an image together, {self.tiles} at most, but image {tiles[0].image} has {len(tiles)} "
                f"on a canvas of {rows}x{columns}. Use policy 'canvas_tiles' with tiles={self.tiles}"
            )
        return rows, columns

    def check_tiles(self, plan: ImagePlan) -> None:
        if plan.times:
            raise GridError("encoder 'mllama' reads the tiles of one picture together, and takes no films; pass their frames as images")
        views = [View(grid, 0, *place) for grid, place in zip(plan.grids(self.patch), plan.places, strict=True)]
        for tiles in tiles_together(views):
            self.canvas(views[tiles.start : tiles.stop])

    def numbers(self) -> dict[str, Any]:
        """The fields under transformers' names."""
        return {
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_global_layers": self.global_layers,
            "attention_heads": self.heads,
            "intermediate_size": self.mlp,
            "patch_size": self.patch,
            "image_size": self.image_size,
            "max_num_tiles": self.tiles,
            "intermediate_layers_indices": [depth - 1 for depth in self.selected],
            "supported_aspect_ratios": [list(canvas) for canvas in self.canvases],
            "vision_output_dim": self.dim_out,
            "hidden_act": self.activation,
            "norm_eps": self.norm_eps,
        }

    @classmethod
    def from_config(cls, config: Any, **fields: Any) -> Self:
        """The spec of a transformers vision config. Raises SpecError where its tables are in another order than the tower's, its features
        of another width, or its pixels of other than three colours."""
        refuse_colours(cls.kind, config)
        own: dict[str, Any] = dict(
            width=config.hidden_size,
            layers=config.num_hidden_layers,
            global_layers=config.num_global_layers,
            heads=config.attention_heads,
            mlp=config.intermediate_size,
            patch=config.patch_size,
            image_size=config.image_size,
            tiles=config.max_num_tiles,
            selected=tuple(index + 1 for index in config.intermediate_layers_indices),
            activation=config.hidden_act,
            norm_eps=config.norm_eps,
        )
        spec = named_theirs(cls, NAMES, **(own | fields))
        theirs = [list(canvas) for canvas in config.supported_aspect_ratios]
        if theirs != spec.numbers()["supported_aspect_ratios"]:
            raise SpecError(
                f"supported_aspect_ratios: with max_num_tiles={spec.tiles} the canvases are {spec.canvases}, but the config has {theirs}"
            )
        if config.vision_output_dim != spec.dim_out:
            raise SpecError(
                f"vision_output_dim: features of the last layer and {len(spec.selected)} others have {spec.dim_out} channels, "
                f"but the config says {config.vision_output_dim}"
            )
        return spec

    def make(self) -> Any:
        """transformers' model with random weights."""
        from transformers import AttentionInterface, MllamaVisionConfig, MllamaVisionModel

        from vlmkit.encoders.first_alone import ATTENTION, first_alone

        AttentionInterface.register(ATTENTION, first_alone)
        return MllamaVisionModel(MllamaVisionConfig(**self.numbers(), attn_implementation=ATTENTION))

    def load_pretrained(self, tower: nn.Module) -> None:
        from transformers import MllamaVisionModel

        from vlmkit.encoders.loading import fill_from_transformers

        fill_from_transformers(tower, MllamaVisionModel, self.checkpoint, self.numbers(), kind=self.kind)
