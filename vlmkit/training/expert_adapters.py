"""What is different in low-rank adapters of experts: the matrices of all experts of a layer are one weight (E, out, in).

PEFT adapts such a weight as a parameter (`target_parameters`, its ParamWrapper): in a forward pass W_e + alpha / rank * B_e A_e stands in
the weight's place. A (rank * E, in) has the rows of one expert after those of another, B (out, rank * E) the columns of all experts side by
side, rank by rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from vlmkit.experts_module import GroupedLinear
from vlmkit.spec import SpecError
from vlmkit.training.adapter import Adapter


def refuse_on_experts(experts: list[str], chosen: Mapping[str, Adapter]) -> None:
    """Raise SpecError for what PEFT cannot put on a parameter. experts: names of layers of experts among those chosen."""
    for name, adapter in chosen.items() if experts else ():
        for word, said in {"dora": adapter.dora, "dropout": adapter.dropout, "quantize": adapter.quantize}.items():
            if said and (name in experts or word == "dropout"):
                beside = ", nor have those beside them" if word == "dropout" else ""
                raise SpecError(
                    f"adapter.{word}: {said!r} of {name}, but {experts[0]} has the matrices of experts in one weight, and PEFT's adapters "
                    f"of such have none{beside}; leave {word} out, or name linear layers by `modules`"
                )


def of_experts(weight: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """B A of each expert (E, out, in), spread over processes as the weight is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    first, second = (value.full_tensor() if isinstance(value, DTensor) else value for value in (first, second))
    count = weight.shape[0]
    product = second.view(len(second), -1, count).permute(2, 0, 1) @ first.view(count, -1, first.shape[1])
    if not isinstance(weight, DTensor):
        return product
    spread: Tensor = distribute_tensor(product, weight.device_mesh, weight.placements, src_data_rank=None)
    return spread


def refuse_other_parameters(config: Any, model: nn.Module, where: str) -> None:
    """Raise SpecError for a PEFT config that adapts parameters other than the weights of experts. model: with PEFT's layers or before."""
    modules = {name: getattr(module, "base_layer", module) for name, module in model.named_modules()}
    known = {f"{name}.weight" for name, module in modules.items() if isinstance(module, GroupedLinear)}
    if strange := sorted(set(config.target_parameters or ()) - known):
        raise SpecError(f"{where} has adapters with target_parameters ({strange[0]}); PEFT's own PeftModel saves and loads those")


def is_other_parameter(layer: Any) -> bool:
    """Whether a layer of PEFT adapts a parameter that is no weight of experts."""
    parameter = getattr(layer, "parameter_name", None)
    return parameter is not None and (parameter != "weight" or not isinstance(layer.base_layer, GroupedLinear))
