"""Weights of a plain model for one with adapters, and the other way round: by name and run, so that no process holds the model whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vlmkit.training.adapters import NAME, adapted_layers, drawn, is_adapter, merged_weight, plain_name, row_lengths
from vlmkit.training.four_bits import FourBits, dequantized, load_kernels, quantized_rows
from vlmkit.training.states import SavedState, StateWeights
from vlmkit.weight_source import WeightSource, values_of

MAGNITUDE = "lora_magnitude_vector"


class NewAdapters:
    """A plain model's weights under the names of the model with adapters, and these as they are before the first update. Of weights in four
    bits each process makes the rows that it reads."""

    def __init__(self, plain: WeightSource, model: nn.Module, seed: int, device: torch.device) -> None:
        """model: with adapters; it says names and shapes alone. device: on which four bits are made."""
        self._plain, self._seed, self._device = plain, seed, device
        self._drawn = {name: _shape(value) for name, value in model.named_parameters() if is_adapter(name)}
        self._layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, FourBits)}
        known = set(plain.names())
        self._packed = {
            f"{name}.{kind}": _shape(getattr(layer, kind)) for name, layer in self._layers.items() for kind in ("packed", "absmax")
        }
        of_model = [*(name for name, _ in model.named_parameters(remove_duplicate=False)), *(name for name, _ in model.named_buffers())]
        self._base = {name: plain_name(name) for name in of_model if plain_name(name) in known}

    def names(self) -> tuple[str, ...]:
        return (*self._base, *self._drawn, *self._packed)

    def shape(self, name: str) -> tuple[int, ...]:
        own = self._packed.get(name) or self._drawn.get(name)
        return self._plain.shape(self._base[name]) if own is None else own

    def read(self, name: str, start: int, length: int) -> Tensor:
        if name in self._base:
            return self._plain.read(self._base[name], start, length)
        if name in self._packed:
            width = self._packed[name][1]
            first, behind = start // width, -(-(start + length) // width)
            packed, absmax = self._quantized(name.rpartition(".")[0], first, behind - first)
            rows = packed if name.endswith(".packed") else absmax
            return rows.reshape(-1)[start - first * width :][:length]
        if MAGNITUDE in name.split("."):
            return row_lengths(self._rows(name.split(f".{MAGNITUDE}.")[0], start, length))
        return drawn(name, self._drawn[name], self._seed).reshape(-1)[start : start + length]

    def _rows(self, layer: str, first: int, rows: int) -> Tensor:
        """Of the weight below an adapter, as the layer has it."""
        base = f"{layer}.base_layer"
        if base in self._layers:
            return dequantized(*self._quantized(base, first, rows), self._layers[base].in_features, self._layers[base].dtype)
        columns = self._plain.shape(f"{layer}.weight")[1]
        return self._plain.read(f"{layer}.weight", first * columns, rows * columns).view(rows, columns)

    def _quantized(self, base: str, first: int, rows: int) -> tuple[Tensor, Tensor]:
        columns, dtype = self._layers[base].in_features, self._layers[base].dtype
        read = self._plain.read(plain_name(f"{base}.weight"), first * columns, rows * columns)
        return quantized_rows(read.view(rows, columns).to(self._device, dtype))


class Merged:
    """The weights of a model with adapters as those of the plain model."""

    def __init__(self, adapted: WeightSource, scales: Mapping[str, float]) -> None:
        """scales: alpha / rank of each layer that has an adapter, by its name."""
        self._adapted, self._scales = adapted, dict(scales)
        stored = [name for name in adapted.names() if not is_adapter(name)]
        self._packed = {f"{layer}.weight" for layer in scales if f"{layer}.base_layer.packed" in stored}
        """Names of weights that lie in four bits."""
        if self._packed:
            load_kernels()
        kept = {plain_name(name): name for name in stored if not name.endswith((".base_layer.packed", ".base_layer.absmax"))}
        self._names = kept | dict.fromkeys(self._packed, "")

    def names(self) -> tuple[str, ...]:
        return tuple(self._names)

    def shape(self, name: str) -> tuple[int, ...]:
        if name in self._packed:
            layer = name.removesuffix(".weight")
            a, b = (self._adapted.shape(f"{layer}.{of}.{NAME}.weight") for of in ("lora_A", "lora_B"))
            return b[0], a[1]
        return self._adapted.shape(self._names[name])

    def _base_rows(self, name: str, first: int, rows: int, columns: int) -> Tensor:
        if name not in self._packed:
            return self._adapted.read(self._names[name], first * columns, rows * columns).view(rows, columns)
        base = f"{name.removesuffix('.weight')}.base_layer"
        packed, absmax = (
            self._adapted.read(of, first * (width := self._adapted.shape(of)[1]), rows * width).view(rows, width)
            for of in (f"{base}.packed", f"{base}.absmax")
        )
        return dequantized(packed, absmax, columns, torch.float32)

    def read(self, name: str, start: int, length: int) -> Tensor:
        layer, _, kind = name.rpartition(".")
        if kind != "weight" or layer not in self._scales or not length:
            return self._adapted.read(self._names[name], start, length)
        columns = self.shape(name)[-1]
        if len(self.shape(name)) == 3:
            return self._of_experts(name, start, length)
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

    def _of_experts(self, name: str, start: int, length: int) -> Tensor:
        """Of a weight (E, out, in): whole experts are merged, one after the other."""
        layer = name.removesuffix(".weight")
        count, height, width = self.shape(name)
        a, b = (values_of(self._adapted, f"{layer}.{of}.{NAME}.weight") for of in ("lora_A", "lora_B"))
        each = height * width
        pieces = []
        for number in range(start // each, -(-(start + length) // each)):
            begin, end = max(0, start - number * each), min(each, start + length - number * each)
            first, behind = begin // width, -(-end // width)
            read = self._adapted.read(self._names[name], number * each + first * width, (behind - first) * width).view(-1, width)
            own_a, own_b = a.view(count, -1, width)[number], b.view(height, -1, count)[first:behind, :, number]
            merged = merged_weight(read, own_a, own_b, self._scales[layer])
            pieces.append(merged.reshape(-1)[begin - first * width : end - first * width])
        return torch.cat(pieces)


def weights_of(state: SavedState, *, averaged: bool = False) -> WeightSource:
    """The weights of a state's plain model, whatever adapters it has. averaged: moving averages where there are some."""
    found = StateWeights(state, averaged=averaged)
    scales = state.position.get("adapters")
    return Merged(found, scales) if scales else found


def scales_of(model: nn.Module) -> dict[str, float]:
    """alpha / rank of each layer that has an adapter."""
    return {name: float(layer.scaling[NAME]) for name, layer in adapted_layers(model).items()}


def _shape(parameter: Any) -> tuple[int, ...]:
    return tuple(getattr(parameter, "ds_shape", parameter.shape))
