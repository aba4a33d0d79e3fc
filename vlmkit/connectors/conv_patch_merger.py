"""Convolutional patch merger: a strided convolution halves the grid, then LayerNorm, a 2-layer MLP and 2D positions.

The merger of Olmo-3.1-UNIVA-VL, as its model card describes it: Conv2d(kernel 2, stride 2) -> flatten -> LayerNorm ->
Linear -> GELU -> Linear to the language model's width -> plus 2D sine and cosine positions (MAE, arXiv:2111.06377).
Grid (F, H, W) -> (F, H/2, W/2). From 1280 to 5120 channels it has 39,335,680 parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vlmkit.activations import Activation
from vlmkit.connectors import connectors
from vlmkit.connectors.base import Connector
from vlmkit.connectors.block_connector import merged_grid
from vlmkit.features import Grid
from vlmkit.spec import SpecError


@connectors.register("conv_patch_merger")
@dataclass(frozen=True, kw_only=True)
class ConvPatchMerger(Connector):
    """Conv2d -> LayerNorm -> Linear -> activation -> Linear, plus positions."""

    kernel: int = 2
    """Patches merged along each side: kernel and stride of the convolution."""
    norm_eps: float = 1e-5
    """Epsilon of the LayerNorm between the convolution and the MLP."""
    activation: Activation = "gelu"
    """Between the two linear layers."""
    positions: Literal["sincos2d", "none"] = "sincos2d"
    """Added to the tokens after the MLP, at the language model's width; computed for each view's merged grid, not learned."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel < 1:
            raise SpecError(f"conv_patch_merger.kernel: expected 1 or more, got {self.kernel}")
        if self.norm_eps <= 0:
            raise SpecError(f"conv_patch_merger.norm_eps: expected more than 0, got {self.norm_eps}")

    @property
    def merge(self) -> int:
        return self.kernel

    def grid_out(self, grid: Grid) -> Grid:
        return merged_grid(self.kind, grid, self.kernel)

    def problems(self, dim_in: int, dim_out: int) -> list[str]:
        if self.positions == "none" or dim_out % 4 == 0:
            return []
        return [
            f"connector 'conv_patch_merger' adds sine and cosine of row and column, which takes a width that is a multiple of 4, "
            f"but the language model is {dim_out} wide. Use positions='none'."
        ]
