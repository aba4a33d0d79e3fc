"""Grey textures in 0..1 to stand behind words and shapes: soft noise, stripes, checks, slopes."""

from functools import cache

import numpy as np

SIDE = 256
COUNT = 96


@cache
def textures() -> np.ndarray:
    """(COUNT, SIDE, SIDE) float32 in 0..1. The same ones in every process: cut pieces of them, do not write to them."""
    rng = np.random.default_rng(2025)
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    bank = []
    for i in range(COUNT):
        angle, period = rng.uniform(0, np.pi), rng.uniform(12, 60)
        along = x * np.cos(angle) + y * np.sin(angle)
        across = y * np.cos(angle) - x * np.sin(angle)
        if i % 4 < 2:
            texture = _noise(rng, octaves=int(rng.integers(1, 6)))
        elif i % 4 == 2:
            texture = 0.5 + 0.5 * np.sin(2 * np.pi * along / period) + 0.3 * _noise(rng, octaves=4)
        else:
            squares = (np.floor(along / period) + np.floor(across / period)) % 2
            texture = rng.uniform(0.2, 0.8) * squares + along / SIDE + 0.3 * _noise(rng, octaves=5)
        low, high = texture.min(), texture.max()
        bank.append((texture - low) / (high - low))
    return np.stack(bank).astype(np.float32)


def _noise(rng: np.random.Generator, octaves: int) -> np.ndarray:
    """Sum of random grids, each twice as fine and two thirds as strong as the one before, smoothly enlarged."""
    total = np.zeros((SIDE, SIDE), np.float32)
    for octave in range(octaves):
        cells = 4 * 2**octave
        total += (2 / 3) ** octave * _enlarge(rng.standard_normal((cells + 1, cells + 1)))
    return total


def _enlarge(grid: np.ndarray) -> np.ndarray:
    at = np.linspace(0, len(grid) - 1, SIDE, endpoint=False)
    low = at.astype(int)
    t = at - low
    t = t * t * (3 - 2 * t)
    rows = grid[low] * (1 - t)[:, None] + grid[low + 1] * t[:, None]
    smooth: np.ndarray = rows[:, low] * (1 - t) + rows[:, low + 1] * t
    return smooth
