"""The contract of a vision encoder: patches of views of any sizes go in, one feature vector a patch comes out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from vlmkit.encoders import encoders
from vlmkit.features import Grid, GridError
from vlmkit.spec import Spec, SpecError

if TYPE_CHECKING:
    from torch import nn

    from vlmkit.preprocess.geometry import ImagePlan

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""OpenAI's CLIP constants, kept by OpenCLIP: Radford et al. 2021 (arXiv:2103.00020)."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of the training images of ImageNet, as torchvision has them: DINOv2 (arXiv:2304.07193), InternViT (arXiv:2404.16821)."""
HALF = (0.5, 0.5, 0.5)
"""Mean and std that take 0..255 to -1..1: SigLIP (arXiv:2303.15343) and many others."""

Positions = Literal["bicubic_antialias", "bicubic", "bilinear_antialias", "bilinear", "bucket", "fixed"]
"""How a learned table of positions serves another grid: encoders/positions.py. `fixed` refuses every other grid."""


@dataclass(frozen=True, kw_only=True)
class Encoder(Spec):
    """Base of encoders. Subclasses say, as fields, which layer is returned, whether the final norm is applied, what
    happens to a class token and how positions are resampled to another grid."""

    registry = encoders

    mean: tuple[float, float, float]
    """RGB mean taken off pixels that were scaled to 0..1."""
    std: tuple[float, float, float]
    """RGB standard deviation they are then divided by."""

    @property
    def patch_size(self) -> int:
        """Side of a patch, p pixels."""
        raise NotImplementedError

    @property
    def dim_out(self) -> int:
        """Width of the features, D_v."""
        raise NotImplementedError

    patch_frames: ClassVar[int] = 1
    """Frames of a patch, t."""
    clips: ClassVar[bool] = False
    """Whether one view may have several frames; elsewhere each frame of a film is a view."""

    @property
    def reads_places(self) -> bool:
        """Whether it has to be told which tile of which image a view is, or what of it is padding."""
        return False

    @property
    def values(self) -> int:
        """Numbers that a patch holds: 3 * t * p * p."""
        return 3 * self.patch_frames * self.patch_size**2

    def smallest(self, multiple: int) -> Grid:
        """The grid of the smallest view that it takes whose sides are multiples of so many patches."""
        return Grid(1, multiple, multiple)

    def grid_out(self, grid: Grid) -> Grid:
        """The grid of one view's features, given its grid of patches. Raises GridError for a grid that the tower cannot
        take: a tower of fixed size refuses every other one unless position resampling is asked for."""
        return grid

    def check_tiles(self, plan: ImagePlan) -> None:
        """Raise GridError for tiles of an image that the tower cannot read together."""

    def build(self) -> nn.Module:
        """The tower (encoders/tower.py) with random weights, on the current default device (meta included).

        vlmkit's own stand beside their descriptions, in encoders/<kind>_tower.py.
        """
        tower: nn.Module = encoders.built(self, "tower")
        return tower

    def load_pretrained(self, tower: nn.Module) -> None:
        """Fill the tower from its published checkpoint. Raises SpecError where the spec names none, or where the
        checkpoint does not fit."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class BlockEncoder(Encoder):
    """What the specs of vision transformers share (Dosovitskiy et al. 2021, arXiv:2010.11929): square patches, blocks of one
    width, and the choice of the block that the features come from.

    Blocks above the last selected one, projections and pooling heads are neither computed nor kept.
    """

    width: int
    """Channels of every block."""
    layers: int
    """Blocks of the published model, those above `layer` included."""
    patch: int
    """Side of a patch in pixels."""
    layer: int | tuple[int, ...] = -1
    """Which block's output is the feature, counted as transformers' `hidden_states` does: -1 is the last block, -2 the one
    before, 1 the first, 0 (or -1 less the number of blocks) what goes into it. Several are joined along the channels in the order
    given (Molmo: (-2, -9))."""
    checkpoint: str | None = None
    """Where `load_pretrained` finds weights: a name that the library knows, or a local path."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("width", "layers", "patch"):
            if getattr(self, name) < 1:
                raise SpecError(f"{self.kind}.{name}: expected 1 or more, got {getattr(self, name)}")
        chosen = self.layer if isinstance(self.layer, tuple) else (self.layer,)
        if not chosen:
            raise SpecError(f"{self.kind}.layer: at least one layer is needed")
        for layer in chosen:
            if not -self.layers - 1 <= layer <= self.layers:
                raise SpecError(
                    f"{self.kind}.layer: expected 0 to {self.layers} (blocks run before), or -{self.layers + 1} to -1, got {layer}"
                )

    @property
    def patch_size(self) -> int:
        return self.patch

    @property
    def depths(self) -> tuple[int, ...]:
        """Blocks run before each selected layer: (31,) for layer -2 of 32."""
        chosen = self.layer if isinstance(self.layer, tuple) else (self.layer,)
        return tuple(layer if layer >= 0 else self.layers + 1 + layer for layer in chosen)

    @property
    def dim_out(self) -> int:
        return self.width * len(self.depths)

    def grid_out(self, grid: Grid) -> Grid:
        if not self.clips:
            refuse_frames(self.kind, grid)
        elif grid.prefix:
            raise GridError(f"encoder {self.kind!r} sees patches alone, but the grid is {grid}")
        return grid


@dataclass(frozen=True, kw_only=True)
class ViT(BlockEncoder):
    """A plain vision transformer: a learned table of positions, a norm after the last block. An unused norm is not kept."""

    image_size: int
    """Side in pixels of the images that the table of positions was made for; its grid is image_size // patch squared."""
    final_norm: bool
    """Whether the norm after the last block is applied (to every selected layer)."""
    positions: Positions
    """How the table of positions serves another grid than its own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_size < self.patch:
            raise SpecError(f"{self.kind}.image_size: {self.image_size} pixels hold no patch of {self.patch}")

    @property
    def native_grid(self) -> Grid:
        """The grid that the table of positions was made for: 27x27 for 378 pixels and patches of 14."""
        side = self.image_size // self.patch
        return Grid(1, side, side)

    def smallest(self, multiple: int) -> Grid:
        return self.native_grid if self.positions == "fixed" else super().smallest(multiple)

    @property
    def prefix_kept(self) -> int:
        """Tokens of each view's features that stand before the patches: 1 with a kept class token."""
        return 0

    def grid_out(self, grid: Grid) -> Grid:
        grid = super().grid_out(grid)
        native = self.native_grid
        if self.positions == "fixed" and grid != native:
            side = native.rows * self.patch
            raise GridError(
                f"encoder {self.kind!r} with positions='fixed' takes {side}x{side} pixels (a {native} grid of {self.patch}x{self.patch} "
                f"patches), but the view is a {grid} grid. Use positions='bicubic_antialias', or an image policy of {side}x{side}."
            )
        return replace(grid, prefix=self.prefix_kept)


def refuse_frames(kind: str, grid: Grid) -> None:
    """Raise GridError for what is not one still view."""
    if grid.frames != 1 or grid.prefix:
        raise GridError(f"encoder {kind!r} sees one still view at a time, but the grid is {grid}; give each frame as a view")
