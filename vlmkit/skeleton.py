"""A model without its weights: the real tree of modules, parameters on the meta device, buffers with their values.

For whoever fills parameters piece by piece because the whole fits on no host (vlmkit/sliced.py has the pieces). Buffers that are in no
checkpoint (rotary frequencies, tables of positions) are computed while modules are made, and on the meta device their values would be
lost: so modules are made on the CPU, and only what becomes a parameter is never allocated.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_buffer_registration_hook, register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from vlmkit.architecture import Architecture
from vlmkit.build import building, resolve
from vlmkit.spec import SpecError

if TYPE_CHECKING:
    from vlmkit.model import VLM


def skeleton(architecture: str | Architecture, *, dtype: str | torch.dtype) -> VLM:
    """The model of a name or an Architecture in evaluation mode: parameters on the meta device, tied ones still tied, and buffers on the
    CPU with the values that `vlmkit.build` gives them. dtype: of the parameters, as build takes it.

    Persistent buffers have the values of a fresh model; those of a checkpoint come from its `WeightSource`. The caller's random state
    is left alone. Raises ArchitectureError where parts do not fit, SpecError for a part whose buffers need the values of its parameters.
    """
    from vlmkit.config import VLMConfig
    from vlmkit.model import VLM

    spec = resolve(architecture).validate()
    with torch.random.fork_rng(devices=[]), building(dtype) as chosen, torch.device("cpu"), without_weights() as unwritten:
        model = VLM(VLMConfig(architecture=spec.to_dict(), dtype=chosen))
    refuse_lost(model, unwritten)
    evaluating: VLM = model.eval()
    return evaluating


@contextmanager
def without_weights() -> Iterator[MutableMapping[Tensor, int]]:
    """Modules that this thread makes inside have parameters on the meta device and buffers on the CPU.

    Gives the buffers that came without values, with the version that each had then: one that is written afterwards has a higher one.
    """
    here = threading.get_ident()
    moved: Any = WeakIdKeyDictionary()
    unwritten: Any = WeakIdKeyDictionary()

    def parameter(module: nn.Module, name: str, value: nn.Parameter) -> nn.Parameter | None:
        if value is None or value.is_meta or threading.get_ident() != here:
            return None
        if value not in moved:  # one that is given to several modules stays one
            moved[value] = on_meta(value)
        known: nn.Parameter = moved[value]
        return known

    def buffer(module: nn.Module, name: str, value: Tensor | None) -> Tensor | None:
        if value is None or not value.is_meta or threading.get_ident() != here:
            return None
        empty = torch.empty_like(value, device="cpu")
        unwritten[empty] = empty._version
        return empty

    # torch takes what a hook returns in place of what is registered; its annotation says that hooks return nothing.
    instead: tuple[Callable[..., Any], Callable[..., Any]] = parameter, buffer
    hooks = register_module_parameter_registration_hook(instead[0]), register_module_buffer_registration_hook(instead[1])
    try:
        with EmptyOnMeta():
            yield unwritten
    finally:
        for hook in hooks:
            hook.remove()


class EmptyOnMeta(TorchFunctionMode):
    """`torch.empty`, which modules make weights of before they draw them, gives tensors of the meta device: drawing those costs nothing.
    Tensors that are made with values (arange, ones, randn) stay what they are."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func in (torch.empty, torch.empty_strided) and given.get("device") is None:
            given = given | {"device": "meta"}
        return func(*args, **given)


def on_meta(value: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(value.detach().to("meta"), requires_grad=value.requires_grad)


def refuse_lost(model: VLM, unwritten: Mapping[Tensor, int]) -> None:
    """Raise SpecError naming what is on the wrong side: a parameter with values, a buffer or another tensor without."""
    persistent = model.state_dict().keys()
    wrong = [f"parameter {name} has values" for name, value in model.named_parameters() if not value.is_meta]
    for name, value in model.named_buffers():
        # A persistent one that nobody wrote comes from the checkpoint, as a parameter does.
        if value.is_meta or (unwritten.get(value) == value._version and name not in persistent):
            wrong.append(f"buffer {name} has no values")
    for path, module in model.named_modules():
        kept = (name for name, value in vars(module).items() if isinstance(value, Tensor) and value.is_meta)
        wrong += [f"{path}.{name} ({type(module).__name__}) has no values" for name in kept]
    if wrong:
        raise SpecError(
            f"{model.spec.name} cannot be made without its weights: {'; '.join(wrong[:10])}. What a module computes of its weights, or of "
            "torch.empty, before it registers it, is lost there; make it of numbers, or build the whole model"
        )
