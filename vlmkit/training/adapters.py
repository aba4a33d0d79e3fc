"""Low-rank adapters on the linear layers of a model, by PEFT: added, drawn, merged. The model stays a VLM whose forward is the same.

A linear layer `x` of the model becomes PEFT's layer of the same name, with what it was below it:

    x.weight  ->  x.base_layer.weight, x.lora_A.default.weight (rank, in), x.lora_B.default.weight (out, rank)

and of DoRA x.lora_magnitude_vector.default.weight (out,). Experts of `vlmkit.experts` hold a matrix each in one weight (E, out, in), which
PEFT adapts as a parameter (`target_parameters`): A (rank * E, in) has the rows of one expert after those of another, B (out, rank * E) the
columns of all experts side by side, rank by rank. Other weights that are no linear layer take none: open_clip's fused `in_proj_weight`,
Aria's experts, embeddings. The LM head takes none by decision: it is often the embeddings themselves.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vlmkit.encoders.unused import freeze_unused
from vlmkit.experts_module import GroupedLinear
from vlmkit.sharding import is_sharded
from vlmkit.spec import SpecError
from vlmkit.training.adapter import Adapter
from vlmkit.training.expert_adapters import is_other_parameter, of_experts, refuse_on_experts
from vlmkit.training.four_bits import FourBits, plain, quantize
from vlmkit.wrapped import is_wrapper

if TYPE_CHECKING:
    from vlmkit.model import VLM

NAME = "default"
"""What PEFT knows the adapters by, all of them together."""
_KINDS = ("lora_A", "lora_B", "lora_magnitude_vector")


def is_adapter(name: str) -> bool:
    """Whether a parameter of that name is an adapter's."""
    return any(piece in _KINDS for piece in name.split("."))


def plain_name(name: str) -> str:
    """What a parameter is called in the model without adapters: 'connector.mlp.0.base_layer.weight' -> 'connector.mlp.0.weight'."""
    return name.replace(".base_layer.", ".")


def has_adapters(model: nn.Module) -> bool:
    return any(is_adapter(name) for name, _ in model.named_modules())


def adapted_layers(model: nn.Module) -> dict[str, Any]:
    """PEFT's layers by their names, in the order of the model."""
    return {name: module for name, module in model.named_modules() if hasattr(module, "base_layer") and hasattr(module, "lora_A")}


def add_adapters(model: VLM, adapters: Mapping[str, Adapter], seed: int = 0) -> VLM:
    """Put adapters on the linear layers of each path, in place, and freeze everything else; returns the model.

    A path is a module's name ("connector", "encoder.0"), or a part and what stands somewhere below it ("language_model.layers.3"). Where
    one path lies within another, the longer one says what its layers get. The values of B are 0 and those of A are drawn, so outputs stay
    as they are: bit for bit of LoRA. Adapters are float32 whatever the weights are. On the meta device nothing is drawn; call
    `draw_adapters` once there are weights.

    Raises SpecError where a path holds no linear layer, and where there are adapters already.
    """
    from peft import LoraConfig, inject_adapter_in_model

    if has_adapters(model):
        raise SpecError("the model has adapters already; merge_adapters makes them part of its weights, then it takes others")
    chosen = layers_of(model, adapters)
    if len({adapter.dora for adapter in chosen.values()}) > 1:
        paths = {word: [path for path, one in adapters.items() if one.dora is word] for word in (True, False)}
        raise SpecError(f"adapter.dora is one word for a model: true for {paths[True]}, false for {paths[False]}; say the same for all")
    experts = [name for name in chosen if isinstance(model.get_submodule(name), GroupedLinear)]
    refuse_on_experts(experts, chosen)
    quantized = [name for name, adapter in chosen.items() if adapter.quantize is not None]
    if quantized:
        # All of them first: where one is refused, the model stays as it was.
        for name, layer in [(name, quantize(model.get_submodule(name), name)) for name in quantized]:
            _put(model, name, layer)
    usual = next(iter(chosen.values()))
    theirs = {name: f"{name}.weight" if name in experts else name for name in chosen}
    config = LoraConfig(
        r=usual.rank,
        lora_alpha=usual.alpha,
        lora_dropout=usual.dropout,
        use_dora=usual.dora,
        target_modules=[name for name in chosen if name not in experts],
        target_parameters=[theirs[name] for name in experts] or None,
        rank_pattern={theirs[name]: adapter.rank for name, adapter in chosen.items() if adapter.rank != usual.rank},
        alpha_pattern={theirs[name]: adapter.alpha for name, adapter in chosen.items() if adapter.alpha != usual.alpha},
    )
    inject(inject_adapter_in_model, config, model)
    layers = adapted_layers(model)
    assert layers.keys() == chosen.keys(), sorted(layers.keys() ^ chosen.keys())
    for name, adapter in chosen.items():
        layers[name].lora_dropout[NAME] = nn.Dropout(adapter.dropout) if adapter.dropout else nn.Identity()
    model.adapters = dict(adapters)
    if not any(parameter.is_meta for parameter in model.parameters()):
        draw_adapters(model, seed)
    return model


def inject(peft_inject: Any, config: Any, model: VLM) -> None:
    """Let PEFT put its layers in. The caller's random numbers stay where they are, and adapters become float32."""
    with torch.random.fork_rng():
        peft_inject(config, model, NAME)
    for name, module in model.named_modules():
        if is_adapter(name):
            module.float()


def layers_of(model: VLM, adapters: Mapping[str, Adapter]) -> dict[str, Adapter]:
    """The linear layers that get an adapter, by name. Raises SpecError for a path that has none."""
    if not adapters:
        raise SpecError("adapters: no path is named; give at least one, such as {'language_model': Adapter()}")
    if wrong := [path for path, adapter in adapters.items() if not isinstance(adapter, Adapter)]:
        raise SpecError(f"adapters[{wrong[0]!r}]: expected an Adapter, got {adapters[wrong[0]]!r}")
    layers = list(_linear_layers(model))
    modules = {name for name, _ in model.named_modules()}
    below: dict[str, dict[str, str]] = {path: {} for path in adapters}
    for path in adapters:
        for name in layers:
            if (rest := _rest(name, path, path in modules)) is not None:
                below[path][name] = rest
        if not below[path]:
            counts = Counter(name.split(".")[0] for name in layers)
            has = ", ".join(f"{part} ({count})" for part, count in counts.items())
            raise SpecError(f"adapters: {path!r} holds no linear layer that takes an adapter; of these there are: {has}")
    chosen: dict[str, Adapter] = {}
    for name in layers:
        if paths := [path for path in adapters if name in below[path]]:
            path = max(paths, key=lambda path: path.count("."))
            if adapters[path].takes(below[path][name]):
                chosen[name] = adapters[path]
    for path, adapter in adapters.items():
        if not any(chosen.get(name) is adapter for name in below[path]):
            endings = ", ".join(dict.fromkeys(name.split(".")[-1] for name in below[path]))
            raise SpecError(
                f"adapters[{path!r}].modules: {adapter.modules!r} names no linear layer there that it decides on; it has {endings}"
            )
    return chosen


def _linear_layers(model: VLM) -> Iterator[str]:
    """Names of the linear layers that a forward pass reaches, those of experts among them, the LM head aside."""
    unused = {id(inner) for module in model.modules() for kept in _unused(module) for inner in kept.modules()}
    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | GroupedLinear) and module is not head and id(module) not in unused:
            yield name


def _unused(module: nn.Module) -> Iterator[nn.Module]:
    unused = getattr(module, "unused", None)
    if callable(unused):
        yield from unused()


def _rest(name: str, path: str, is_module: bool) -> str | None:
    """What of a layer's name stands below the path; the last of it where the path is the layer itself. None where it is not within."""
    pieces, of_path = name.split("."), path.split(".")
    if is_module:
        end = len(of_path) if pieces[: len(of_path)] == of_path else None
    else:
        part, *inner = of_path
        starts = range(1, len(pieces) - len(inner) + 1) if inner and pieces[0] == part else ()
        end = next((start + len(inner) for start in starts if pieces[start : start + len(inner)] == inner), None)
    return None if end is None else ".".join(pieces[end:]) or pieces[-1]


def drawn(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """Values of the parameter `name` of A or B before the first update, float32, by its name, shape and seed alone: each process may draw
    those that it holds. A is uniform within 1 / sqrt(in), as PEFT and nn.Linear have it; B is 0."""
    if "lora_A" not in name.split("."):
        return torch.zeros(shape)
    generator = torch.Generator().manual_seed(int.from_bytes(sha256(f"{seed} {name}".encode()).digest()[:8], "big") >> 1)
    return torch.empty(shape).uniform_(-1, 1, generator=generator) / math.sqrt(shape[1])


def row_lengths(weight: Tensor) -> Tensor:
    """DoRA's magnitudes before the first update: the length of each row of the weight (out, in) -> (out,), float32."""
    lengths: Tensor = torch.linalg.vector_norm(weight.detach().float(), dim=1)
    return lengths


@torch.no_grad()
def draw_adapters(model: nn.Module, seed: int = 0) -> None:
    """Fill the adapters as they are before the first update. Sharded weights (FSDP2, ZeRO-3) get what whole ones would; every process
    calls it.

    Raises SpecError where weights are on the meta device still.
    """
    for layer_name, layer in adapted_layers(model).items():
        inner = {f"{layer_name}.{kind}.{NAME}.weight": getattr(layer, kind)[NAME].weight for kind in _KINDS if NAME in getattr(layer, kind)}
        base = layer.get_base_layer()
        if any(value.is_meta for value in (*inner.values(), *base.parameters())):
            raise SpecError(f"{layer_name}: its weights are on the meta device; draw its adapter once they are there")
        with gathered([*inner.values(), *base.parameters()]):
            for name, parameter in inner.items():
                if "lora_magnitude_vector" in name:
                    parameter.copy_(row_lengths(base.weight))
                else:
                    _fill(parameter, drawn(name, tuple(parameter.shape), seed))


def _fill(parameter: Tensor, value: Tensor) -> None:
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(parameter, DTensor):
        # Every process has drawn the whole: nothing has to be sent.
        whole = value.to(parameter.device)
        parameter.copy_(distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None))
    else:
        parameter.copy_(value)


def gathered(parameters: list[Any]) -> AbstractContextManager[Any]:
    """Weights that ZeRO-3 holds in pieces are whole in here, and what the first process changes stays. Others are as they are."""
    if not any(hasattr(parameter, "ds_id") for parameter in parameters):
        return nullcontext()
    import deepspeed

    context: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters(parameters, modifier_rank=0)
    return context


def merged_weight(weight: Tensor, first: Tensor, second: Tensor, scale: float, magnitude: Tensor | None = None) -> Tensor:
    """Weight (out, in) with A (rank, in), B (out, rank) and DoRA's magnitude (out,) in it, float32 or finer: W + scale * B A, each row of
    DoRA brought to its length. Or the weight of experts (E, out, in), with A (rank * E, in) and B (out, rank * E)."""
    fine = torch.promote_types(weight.dtype, torch.float32)
    first, second = first.to(fine), second.to(fine)
    if weight.ndim == 3:
        return weight.to(fine) + scale * of_experts(weight, first, second)
    merged = weight.to(fine) + scale * (second @ first)
    if magnitude is None:
        return merged
    lengths = torch.linalg.vector_norm(merged, dim=1)
    out: Tensor = merged * (magnitude.to(fine) / lengths)[:, None]
    return out


@torch.no_grad()
def merge_adapters(model: VLM) -> VLM:
    """Make the adapters part of the weights, in place, and take PEFT's layers away; returns the plain model, of which all may learn but
    what a tower leaves unused.

    Layers of four bits become ordinary ones in the dtype that they were packed from. Without adapters nothing is done. Raises SpecError
    for layers of four bits that are spread over processes, and for PEFT's wrappers that are no low-rank adapters of `add_adapters`
    (modules_to_save, several adapters): `merge_and_unload` of the PEFT model knows those.
    """
    layers = adapted_layers(model)
    wrapped = [name for name, module in model.named_modules() if is_wrapper(module)]
    if strange := [
        name for name in wrapped if name not in layers or list(layers[name].lora_A) != [NAME] or is_other_parameter(layers[name])
    ]:
        raise SpecError(f"{strange[0]}: not an adapter of add_adapters; merge with merge_and_unload of the PEFT model that it belongs to")
    if spread := [name for name, layer in layers.items() if isinstance(base := layer.get_base_layer(), FourBits) and is_sharded(base)]:
        raise SpecError(f"{spread[0]}: its four bits are spread over processes; vlmkit consolidate merges them from the state of the run")
    for name, layer in layers.items():
        base = layer.get_base_layer()
        first, second = layer.lora_A[NAME].weight, layer.lora_B[NAME].weight
        magnitude = layer.lora_magnitude_vector[NAME].weight if NAME in layer.lora_magnitude_vector else None
        with gathered([*base.parameters(), first, second, *([] if magnitude is None else [magnitude])]):
            weight = merged_weight(base.weight, first, second, layer.scaling[NAME], magnitude)
            if isinstance(base, FourBits):
                base = plain(base, weight)
            else:
                base.weight.copy_(weight)
        base.train(layer.training)
        _put(model, name, base)
    if layers:
        model.requires_grad_(True)
        freeze_unused(model)
        del model.peft_config
        if hasattr(model, "adapters"):
            del model.adapters
    return model


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
