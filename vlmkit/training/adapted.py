"""Weights of a plain model for one with adapters, and the other way round: by name and run, so that no process holds the model whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from vlmkit.training.adapters import NAME, adapted_layers, drawn, is_adapter, merged_weight, plain_name, row_lengths
from vlmkit.training.states import SavedState, StateWeights
from vlmkit.weight_source import WeightSource, values_of

MAGNITUDE = "lora_magnitude_vector"


class NewAdapters:
    """A plain model's weights under the names of the model with adapters, and these as they are before the first update."""

    def __init__(self, plain: WeightSource, model: nn.Module, seed: int) -> None:
        """model: with adapters; it says names and shapes alone."""
        self._plain, self._seed = plain, seed
        self._drawn = {name: _shape(value) for name, value in model.named_parameters() if is_adapter(name)}
        # Weights of four bits were made where the model is whole, and are what they have become.
        self._held = {name: value.detach() for name, value in model.named_parameters() if not (value.is_floating_point() or value.is_meta)}
        known = set(plain.names())
        of_model = [*(name for name, _ in model.named_parameters(remove_duplicate=False)), *(name for name, _ in model.named_buffers())]
        self._base = {name: plain_name(name) for name in of_model if plain_name(name) in known and name not in self._held}

    def names(self) -> tuple[str, ...]:
        return (*self._base, *self._drawn, *self._held)

    def shape(self, name: str) -> tuple[int, ...]:
        if name in self._held:
            return tuple(self._held[name].shape)
        return self._drawn[name] if name in self._drawn else self._plain.shape(self._base[name])

    def read(self, name: str, start: int, length: int) -> Tensor:
        if name in self._held:
            return self._held[name].reshape(-1)[start : start + length]
        if name in self._base:
            return self._plain.read(self._base[name], start, length)
        if MAGNITUDE in name.split("."):
            layer = name.split(f".{MAGNITUDE}.")[0]
            columns = self._plain.shape(f"{layer}.weight")[1]
            return row_lengths(self._plain.read(f"{layer}.weight", start * columns, length * columns).view(length, columns))
        return drawn(name, self._drawn[name], self._seed).reshape(-1)[start : start + length]


class Merged:
    """The weights of a model with adapters as those of the plain model."""

    def __init__(self, adapted: WeightSource, scales: Mapping[str, float]) -> None:
        """scales: alpha / rank of each layer that has an adapter, by its name."""
        self._adapted, self._scales = adapted, dict(scales)
        names = adapted.names()
        self._names = {plain_name(name): name for name in names if not is_adapter(name) and not _is_beside_a_weight(name)}
        self._dense: tuple[str, Tensor] | None = None
        """The last weight of four bits that was asked for."""

    def names(self) -> tuple[str, ...]:
        return tuple(self._names)

    def shape(self, name: str) -> tuple[int, ...]:
        layer, _, kind = name.rpartition(".")
        if kind == "weight" and layer in self._scales:
            a, b = (self._adapted.shape(f"{layer}.{of}.{NAME}.weight") for of in ("lora_A", "lora_B"))
            return b[0], a[1]
        return self._adapted.shape(self._names[name])

    def _base_rows(self, name: str, first: int, rows: int, columns: int) -> Tensor:
        stored = self._names[name]
        if self._adapted.shape(stored) == self.shape(name):
            return self._adapted.read(stored, first * columns, rows * columns).view(rows, columns)
        if self._dense is None or self._dense[0] != name:
            from vlmkit.training.four_bits import dequantized

            held = {
                of.removeprefix(f"{stored}."): values_of(self._adapted, of) for of in self._adapted.names() if of.startswith(f"{stored}.")
            }
            self._dense = name, dequantized(values_of(self._adapted, stored), held)
        return self._dense[1][first : first + rows]

    def read(self, name: str, start: int, length: int) -> Tensor:
        layer, _, kind = name.rpartition(".")
        if kind != "weight" or layer not in self._scales or not length:
            return self._adapted.read(self._names[name], start, length)
        columns = self.shape(name)[1]
        first, behind = start // columns, -(-(start + length) // columns)
        rows = behind - first

        def some_rows(of: str, width: int) -> Tensor:
            return self._adapted.read(of, first * width, rows * width).view(rows, width)

        of = {kind: f"{layer}.{kind}.{NAME}.weight" for kind in ("lora_A", "lora_B", MAGNITUDE)}
        a = values_of(self._adapted, of["lora_A"])
        magnitude = some_rows(of[MAGNITUDE], 1)[:, 0] if of[MAGNITUDE] in self._adapted.names() else None
        merged = merged_weight(
            self._base_rows(name, first, rows, columns), a, some_rows(of["lora_B"], len(a)), self._scales[layer], magnitude
        )
        begin = start - first * columns
        return merged.reshape(-1)[begin : begin + length]


def weights_of(state: SavedState, *, averaged: bool = False) -> WeightSource:
    """The weights of a state's plain model, whatever adapters it has. averaged: moving averages where there are some."""
    found = StateWeights(state, averaged=averaged)
    scales = state.position.get("adapters")
    return Merged(found, scales) if scales else found


def scales_of(model: nn.Module) -> dict[str, float]:
    """alpha / rank of each layer that has an adapter."""
    return {name: float(layer.scaling[NAME]) for name, layer in adapted_layers(model).items()}


def _is_beside_a_weight(name: str) -> bool:
    """Scales and tables of four bits are called as the weight with more behind it."""
    return ".base_layer.weight." in name


def _shape(parameter: Any) -> tuple[int, ...]:
    return tuple(getattr(parameter, "ds_shape", parameter.shape))
