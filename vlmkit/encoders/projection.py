"""Patches become tokens: a convolution whose stride is its kernel, over patches that are cut already."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def project(convolution: Any, patches: Tensor) -> Tensor:
    """Patches (N, 3*p*p) or (N, 3*t*p*p) through the Conv2d or Conv3d of a library, called as the module that it is -> (N, D).

    They are laid side by side into one long picture a patch high, of which the convolution makes, bit for bit, what it makes of the images
    that the patches were cut from. Over patches as images of their own it takes three times as long.
    """
    *above, side = convolution.kernel_size
    cells = patches.view(len(patches), 3, *above, side).movedim(0, -2)
    out: Tensor = convolution(cells.flatten(-2)[None])
    return out[0].flatten(1).T
