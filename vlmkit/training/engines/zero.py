"""DeepSpeed's ZeRO: stage 2 spreads gradients and optimizer states, stage 3 the weights too.

The files and the clipping of gradients are not DeepSpeed's: its own checkpoints are pickles, lose frozen parameters where the number of
processes changes, and a gradient that is no number moves its weights (deepspeed 0.19, read in source).
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vlmkit.training.blueprint import Blueprint
from vlmkit.training.engines.base import Batch, Engine, Loss, Optimizers, Reads, Share, compile_blocks, fill
from vlmkit.training.processes import Processes, join_alone
from vlmkit.training.run import RunError
from vlmkit.training.stage import Stage
from vlmkit.weight_source import WeightSource

BUCKET = 50_000_000
"""Values that are reduced or fetched ahead at once: 200 MB in float32."""
PERSISTENT = 10_000
"""Parameters of fewer values stay whole under stage 3: a collective for each would cost more than it saves."""


class _Zero(Engine):
    spread = True
    level: int

    def __init__(self, processes: Processes, dtype: torch.dtype = torch.float32, **zero_optimization: Any) -> None:
        """zero_optimization: entries of that section of DeepSpeed's configuration, beside or instead of those of `configuration`.

        Raises RunError where DeepSpeed is not installed.
        """
        if importlib.util.find_spec("deepspeed") is None:
            raise RunError(f'engine {self.name!r} needs DeepSpeed: pip install "vlmkit[train]", or choose fsdp2, which needs nothing')
        super().__init__(processes, dtype)
        self._more = zero_optimization
        self._engine: Any = None
        self._weights: WeightSource | None = None

    def configuration(self, micro_batch: int = 1) -> dict[str, Any]:
        section: dict[str, Any] = {
            "stage": self.level,
            "overlap_comm": self.processes.device.type == "cuda",
            "contiguous_gradients": True,
            "reduce_bucket_size": BUCKET,
        }
        if self.level == 3:
            section |= {"stage3_prefetch_bucket_size": BUCKET, "stage3_param_persistence_threshold": PERSISTENT}
        return {
            "train_micro_batch_size_per_gpu": micro_batch,
            "bf16": {"enabled": self.dtype == torch.bfloat16},
            "zero_optimization": section | self._more,
            "zero_allow_untested_optimizer": True,
        }

    def place(self, blueprint: Blueprint, weights: Reads, prepare: Callable[[nn.Module], None]) -> nn.Module:
        _start(self.processes.device)
        model = blueprint.skeleton()
        prepare(model)
        read = weights(model)
        self._spread(model)
        self.shares = [self._low_share(name, parameter) for name, parameter in model.named_parameters()]
        fill(model, self.shares, read)
        self._weights = read
        return model

    def begin(self, stage: Stage, model: nn.Module, optimizers: Optimizers, head: nn.Module | None = None) -> None:
        import deepspeed

        if stage.compile:
            compile_blocks(model)
        (optimizer,) = optimizers()
        for group in optimizer.param_groups:
            group["lr"] = 0.0  # until the first step: DeepSpeed makes one of its own with no gradient, which would decay the weights
        with _quiet():
            self._engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=self.configuration(stage.batch_size))
        self.shares = [self._share(name, parameter) for name, parameter in model.named_parameters() if self._holds(parameter)]
        optimizer.state.clear()
        weights, self._weights = self._weights, None
        assert weights is not None, "place() comes before begin()"
        # What learns is kept in float32, which DeepSpeed made from the rounded weights that compute.
        with torch.no_grad():
            for share in self.shares:
                if share.optimizer is not None:
                    share.values.copy_(weights.read(share.name, share.start, len(share.values)))

    @property
    def rated(self) -> list[Any]:
        return [self._engine.optimizer]

    def backward(self, loss: Loss, batch: Batch, *, part: float, last: bool) -> Tensor:
        self._engine.set_gradient_accumulation_boundary(last)
        value = loss(self._engine, batch) * part
        self._engine.backward(value)
        return value.detach()

    def norm(self, clip: float) -> float:
        squares = sum(float(gradient.float().square().sum(dtype=torch.float64)) for gradient in self._gradients())
        norm = self.processes.sum([squares])[0] ** 0.5
        if norm > clip:
            # As torch.nn.utils.clip_grad_norm_ has it; DeepSpeed is told no norm to clip to.
            for gradient in self._gradients():
                gradient.mul_(clip / (norm + 1e-6))
        return float(norm)

    def step(self) -> None:
        self._engine.step()

    def forget(self) -> None:
        optimizer = self._engine.optimizer
        optimizer.zero_grad()
        for group in list(optimizer.averaged_gradients):
            optimizer.averaged_gradients[group] = None

    def end(self) -> None:
        if self._engine is not None:
            self._engine.destroy()
        self._engine = None
        self.shares = []

    def _spread(self, model: nn.Module) -> None:
        """Give the parameters of a skeleton their memory, as this stage of ZeRO spreads them."""
        raise NotImplementedError

    def _low_share(self, name: str, parameter: Any) -> Share:
        """Of the weights that compute."""
        raise NotImplementedError

    def _share(self, name: str, parameter: Any) -> Share:
        """Of a weight that learns in float32, with the optimizer's states; of a frozen one as it is."""
        raise NotImplementedError

    def _holds(self, parameter: Any) -> bool:
        return True

    def _gradients(self) -> list[Tensor]:
        """What this process is to step by, each value on one process."""
        raise NotImplementedError


def _materialized(parameter: nn.Parameter, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.empty(parameter.shape, dtype=dtype if parameter.is_floating_point() else parameter.dtype, device=device)


class Zero2(_Zero):
    name = "zero2"
    level = 2

    def _spread(self, model: nn.Module) -> None:
        made: dict[int, tuple[nn.Parameter, nn.Parameter]] = {}
        for module in model.modules():
            for name, parameter in module._parameters.items():
                if parameter is None:
                    continue
                if id(parameter) not in made:
                    whole = _materialized(parameter, self.dtype, self.processes.device)
                    made[id(parameter)] = parameter, nn.Parameter(whole, parameter.requires_grad)
                module._parameters[name] = made[id(parameter)][1]
        _move_buffers(model, self.processes.device)

    def _low_share(self, name: str, parameter: Any) -> Share:
        return Share(name, tuple(parameter.shape), 0, parameter.detach().view(-1))

    def _holds(self, parameter: Any) -> bool:
        return not parameter.requires_grad or getattr(parameter, "_hp_mapping", None) is not None

    def _share(self, name: str, parameter: Any) -> Share:
        if not parameter.requires_grad:
            return self._low_share(name, parameter)
        mapping, optimizer = parameter._hp_mapping, self._engine.optimizer
        group = next(number for number, of in enumerate(optimizer.bit16_groups) if any(parameter is one for one in of))
        return Share(
            name,
            tuple(parameter.shape),
            mapping.lp_fragment_address.start,
            mapping.hp_fragment,
            optimizer.optimizer,
            optimizer.single_partition_of_fp32_groups[group],
            mapping.hp_fragment_address.start,
        )

    def _writes(self, share: Share) -> bool:
        return share.optimizer is not None or self.processes.main

    def _gradients(self) -> list[Tensor]:
        groups = [of for of in self._engine.optimizer.averaged_gradients.values() if of is not None]
        return [gradient for of in groups for gradient in of if gradient is not None]


class Zero3(_Zero):
    name = "zero3"
    level = 3

    def _spread(self, model: nn.Module) -> None:
        from deepspeed.runtime.zero.partition_parameters import Init, is_zero_param

        _move_buffers(model, self.processes.device)
        with _quiet():
            init = Init(config_dict_or_path=self.configuration(), dtype=self.dtype)
        made: dict[int, tuple[nn.Parameter, nn.Parameter]] = {}
        for module in model.modules():
            for name, parameter in module._parameters.items():
                if parameter is None:
                    continue
                if id(parameter) not in made:
                    whole: Any = nn.Parameter(_materialized(parameter, self.dtype, self.processes.device), parameter.requires_grad)
                    # What zero.Init does with a parameter, but for sending its values around: they are read afterwards.
                    init._convert_to_deepspeed_param(whole)
                    whole.partition()
                    assert is_zero_param(whole)
                    made[id(parameter)] = parameter, whole
                module._parameters[name] = made[id(parameter)][1]

    def _run(self, parameter: Any) -> tuple[int, int]:
        """Where this process's values begin in the parameter, and how many they are: shares are equal, and the last is filled up."""
        each = parameter.ds_tensor.ds_numel
        start = min(each * self.processes.rank, parameter.ds_numel)
        return start, min(each, parameter.ds_numel - start)

    def _low_share(self, name: str, parameter: Any) -> Share:
        start, length = self._run(parameter)
        return Share(name, tuple(parameter.ds_shape), start, parameter.ds_tensor.detach()[:length])

    def _share(self, name: str, parameter: Any) -> Share:
        if not parameter.requires_grad:
            return self._low_share(name, parameter)
        start, length = self._run(parameter)
        optimizer = self._engine.optimizer
        group, offset, _ = optimizer.grad_position[optimizer.get_param_id(parameter)]
        flat = optimizer.fp32_partitioned_groups_flat[group]
        values = flat.detach()[offset : offset + length]
        return Share(name, tuple(parameter.ds_shape), start, values, optimizer.optimizer, flat, offset)

    def _gradients(self) -> list[Tensor]:
        return [gradient for of in self._engine.optimizer.averaged_gradients.values() if of is not None for gradient in of]


def _move_buffers(model: nn.Module, device: torch.device) -> None:
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.to(device)


def _start(device: torch.device) -> None:
    # DeepSpeed asks the environment, also where nothing was launched.
    os.environ.setdefault("LOCAL_RANK", str(device.index or 0))
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    join_alone(device)
    with _quiet():
        import deepspeed
        from transformers.integrations import unset_hf_deepspeed_config

        # A configuration that another library set would make transformers spread what it builds.
        unset_hf_deepspeed_config()
        deepspeed.init_distributed(dist_backend="nccl" if device.type == "cuda" else "gloo", verbose=False)


class _quiet:  # noqa: N801
    """DeepSpeed tells much at its lowest level; warnings stay."""

    def __enter__(self) -> None:
        import logging

        self._before = logging.getLogger("DeepSpeed").level
        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)

    def __exit__(self, *error: object) -> None:
        import logging

        logging.getLogger("DeepSpeed").setLevel(self._before)
