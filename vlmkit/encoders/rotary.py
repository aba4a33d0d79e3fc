"""Rotary positions by row and column: each pair of a head's channels turns with one of the two (RoPE, Su et al. 2021,
arXiv:2104.09864, along two axes). Which frequencies turn with which axis differs; Pixtral's tower has its own, the frequencies here are
those of Qwen2-VL's tower and VideoLLaMA 3's."""

from __future__ import annotations

from typing import Any, Self

from vlmkit.encoders.hf import TransformersEncoder
from vlmkit.spec import SpecError


class RotaryEncoder(TransformersEncoder):
    """Numbers of a transformers vision config whose positions rotate queries and keys and are no table. `theta` is a field of each
    subclass, so that fields stay in the order in which they were first written down."""

    theta: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width // self.heads % 4:
            raise SpecError(f"{self.kind}.heads: {self.width // self.heads} channels a head, expected a multiple of 4: two axes of pairs")

    def numbers(self) -> dict[str, Any]:
        return super().numbers() | {"rope_parameters": {"rope_type": "axial", "rope_theta": self.theta}}

    @classmethod
    def from_config(cls, config: Any, **fields: Any) -> Self:
        """The spec of a transformers vision config. Raises SpecError for other rotations than those along two axes over whole heads."""
        turned = {name: value for name, value in config.rope_parameters.items() if name != "rope_theta"}
        if turned != {"rope_type": "axial"}:
            raise SpecError(
                f"rope_parameters: encoder {cls.kind!r} rotates by row and column ('axial') with nothing but a rope_theta, but the config "
                f"says {config.rope_parameters}"
            )
        return super().from_config(config, **({"theta": float(config.rope_parameters["rope_theta"])} | fields))
