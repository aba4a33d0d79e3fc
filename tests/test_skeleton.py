"""A model without its weights: everything else is what build makes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor, nn

import vlmkit
from tests.counted import TINY_MODELS
from tests.tiny import DECODER, architecture, part
from vlmkit.connectors.base import Connector
from vlmkit.skeleton import skeleton, without_weights
from vlmkit.spec import SpecError

TINY = [name for name in vlmkit.list_models() if name.endswith("-tiny")]


def test_there_are_this_many_tiny_models() -> None:
    assert len(TINY) == TINY_MODELS


def same_but_for_weights(found: vlmkit.VLM, built: vlmkit.VLM) -> None:
    assert [*found.state_dict()] == [*built.state_dict()]
    ours, theirs = dict(found.named_parameters()), dict(built.named_parameters())  # tied ones have one name here
    assert all(value.is_meta for value in ours.values())
    said = [[(name, value.shape, value.dtype, value.requires_grad) for name, value in each.items()] for each in (ours, theirs)]
    assert said[0] == said[1]
    buffers, expected = dict(found.named_buffers()), dict(built.named_buffers())
    assert buffers.keys() == expected.keys()
    for name, value in expected.items():
        assert buffers[name].dtype == value.dtype
        assert torch.equal(buffers[name], value), name
    kinds = [[(path, type(module), module.training) for path, module in each.named_modules()] for each in (found, built)]
    assert kinds[0] == kinds[1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", TINY)
def test_all_but_the_parameters_is_what_build_makes(name: str, dtype: str) -> None:
    before = torch.get_rng_state()
    found = skeleton(name, dtype=dtype)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_default_dtype() == torch.float32
    same_but_for_weights(found, vlmkit.build(name, seed=0, dtype=dtype))


DECODERS: dict[str, dict[str, Any]] = {
    "gemma3_text": {"head_dim": 8},
    "gpt2": {},
    "gptj": {"rotary_dim": 8},
    "gpt_neox": {},
    "mixtral": {"num_local_experts": 4},
    "phi3": {},
    "falcon": {},
    "deepseek_v3": {"n_routed_experts": 4, "n_group": 2, "topk_group": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1},
    "llama4_text": {"num_local_experts": 2, "intermediate_size_mlp": 32},
}
"""Those with buffers of other kinds: masks, persistent biases of a router, frequencies for each type of layer, scales."""


@pytest.mark.parametrize("model_type", DECODERS)
def test_buffers_of_many_decoders_have_their_values(model_type: str) -> None:
    described = vlmkit.LanguageModel(model_type=model_type, tokenizer="bytes", config=vlmkit.Settings(DECODER | DECODERS[model_type]))
    arch = architecture(encoder=part(vlmkit.encoders, "patches"), language=described)
    same_but_for_weights(skeleton(arch, dtype="float32"), vlmkit.build(arch, seed=0))


def test_buffers_of_a_tower_of_another_library_have_their_values() -> None:
    """Rotary frequencies of timm's EVA are made by torch.empty, and written after they are registered."""
    arch = architecture(encoder=vlmkit.encoders["timm"].named("eva02_tiny_patch14_224", layer=1))
    found = skeleton(arch, dtype="float32")
    assert any(name.startswith("encoder.") for name, _ in found.named_buffers())
    same_but_for_weights(found, vlmkit.build(arch, seed=0))


def test_a_model_of_33_billion_parameters_takes_no_memory() -> None:
    """Measured: 0.3 s, 6 MB; its weights are 66 GB."""
    process = psutil.Process()
    skeleton("univa-vl-tiny", dtype="bfloat16")  # what is imported counts for nobody
    before = process.memory_info().rss
    found = skeleton("univa-vl", dtype="bfloat16")
    assert process.memory_info().rss - before < 200 * 2**20
    assert sum(parameter.numel() for parameter in found.parameters()) == 32_904_229_376
    assert next(found.parameters()).dtype == torch.bfloat16


def test_a_default_device_changes_nothing() -> None:
    with torch.device("meta"):
        found = skeleton("univa-vl-tiny", dtype="float32")
    assert not any(value.is_meta for value in found.buffers())
    assert all(value.is_meta for value in found.parameters())


def test_modules_of_another_thread_keep_their_weights() -> None:
    made: list[nn.Module] = []
    with without_weights():
        thread = threading.Thread(target=lambda: made.append(nn.BatchNorm1d(3)))
        thread.start()
        thread.join()
        assert nn.Linear(3, 3).weight.is_meta
    assert not any(value.is_meta for value in made[0].state_dict().values())
    assert not nn.Linear(3, 3).weight.is_meta


def test_a_parameter_that_two_modules_are_given_stays_one() -> None:
    with without_weights():
        shared = nn.Parameter(torch.ones(3))
        one, other = nn.Module(), nn.Module()
        one.weight = other.weight = shared
    assert one.weight is other.weight
    assert one.weight.is_meta


def computed(width: int) -> Iterator[tuple[str, Tensor]]:
    """Buffers that are made of what has no values."""
    yield "of a weight", nn.Linear(1, width).weight[:, 0].detach().clone()
    yield "written before it is registered", torch.empty(width).fill_(3.0)


@pytest.mark.parametrize("what", [0, 1])
def test_a_buffer_whose_values_would_be_lost_is_named(what: int) -> None:
    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("lost", [*computed(4)][what][1], persistent=False)

        def forward(self, features: Any) -> Any:
            return features

    @vlmkit.connectors.register(f"losing_{what}")
    @dataclass(frozen=True, kw_only=True)
    class Losing(Connector):
        def build(self, dim_in: Any, dim_out: int) -> nn.Module:
            return Module()

    arch = vlmkit.architecture("univa-vl-tiny").replace(connector=Losing())
    with pytest.raises(SpecError, match=r"cannot be made without its weights: buffer connector\.lost has no values"):
        skeleton(arch, dtype="float32")
    assert vlmkit.build(arch, seed=0).connector.lost.shape == (4,)
