"""Operations reckoned from the architecture beside those that torch counts in a training step of the same model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import MixtralConfig, MixtralForCausalLM

import vlmkit
from tests.tiny import DECODER, assistant, picture, user
from tests.tiny import architecture as tiny
from tests.training.conftest import small
from vlmkit.architecture import PARTS
from vlmkit.training.flops import ModelFlops, learning_shares, matrices

LONG = "a question of some length, so that attention counts beside what stands at each token, "


def wide(window: int = 4096) -> vlmkit.Architecture:
    """As `small`, with a window that holds the conversations: torch counts what a mask covers as well."""
    language_model = small().language_model
    return small().replace(language_model=language_model.replace(config=language_model.config | {"sliding_window": window}))


def batch_of(
    architecture: vlmkit.Architecture, text: str = LONG * 4, sizes: tuple[tuple[int, int], ...] = ((112, 112), (112, 112))
) -> dict[str, Tensor]:
    """Conversations of one length, of which every token is supervised."""
    rows = []
    for size in sizes:
        content = [{"type": "image", "image": np.zeros((*size, 3), np.uint8)}, {"type": "text", "text": text}]
        rows.append([{"role": "user", "content": content}, {"role": "assistant", "content": "yes"}])
    batch = dict(vlmkit.build_processor(architecture)(rows))
    batch["labels"] = batch["input_ids"].clone()
    del batch["supervised"]
    return batch


def counted(model: nn.Module, batch: dict[str, Tensor]) -> float:
    """A training step's, with attention that the counter sees: it has no formula for the CPU's own kernel (torch 2.14)."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        loss = model.train()(**batch).loss
        loss.backward()
    return float(counter.get_total_flops())


def learn(model: nn.Module, *parts: str) -> dict[str, float]:
    for part in PARTS:
        getattr(model, part).requires_grad_(part in parts)
    return learning_shares({part: getattr(model, part) for part in PARTS})


@pytest.mark.parametrize(
    "parts",
    [("connector",), ("language_model",), ("encoder",), ("encoder", "connector"), ("encoder", "connector", "language_model")],
    ids="+".join,
)
def test_operations_of_a_stage_are_those_that_torch_counts(parts):
    architecture = wide()
    model, batch = vlmkit.build(architecture, seed=0), batch_of(architecture)
    assert batch["attention_mask"].all()
    reckoned = ModelFlops(architecture, learn(model, *parts))(batch)
    assert reckoned == pytest.approx(counted(model, batch), rel=0.02)


def test_packed_samples_attend_to_themselves_alone_and_the_head_serves_supervised_tokens():
    architecture = wide()
    processor = vlmkit.build_processor(architecture)
    samples = [
        processor.sample([user(picture(56, 56, number), LONG * number), assistant("yes" * (4 - number))], add_generation_prompt=False)
        for number in (1, 2, 3)
    ]
    flops = ModelFlops(architecture, dict.fromkeys(PARTS, 1.0))
    apart = sum(flops(processor.collate([sample])) for sample in samples)
    assert flops(processor.collate(samples)) == pytest.approx(apart, rel=1e-9)
    assert flops(processor.pack_rows([samples[:2], samples[2:]])) == pytest.approx(apart, rel=1e-9)


def test_adapters_cost_no_gradient_of_the_weights_they_adapt():
    from peft import LoraConfig, get_peft_model

    architecture = wide()
    batch = batch_of(architecture)
    model = vlmkit.build(architecture, seed=0)
    adapted = get_peft_model(model, LoraConfig(r=1, target_modules=r"language_model\..*(q|v)_proj"))
    model.connector.requires_grad_(True)
    shares = learning_shares({part: getattr(model, part) for part in PARTS})
    assert 0 < shares["language_model"] < 0.02
    assert (shares["encoder"], shares["connector"]) == (0, 1)
    assert ModelFlops(architecture, shares)(batch) == pytest.approx(counted(adapted, batch), rel=0.03)


def test_a_window_bounds_what_a_token_looks_back_at():
    batch = batch_of(wide())
    length, rows = batch["input_ids"].shape[1], len(batch["input_ids"])
    whole, narrow = (ModelFlops(wide(window), {"language_model": 1.0}) for window in (4096, 64))
    sliding = sum(window == 64 for window in narrow.windows)
    assert 0 < sliding < len(narrow.windows)
    assert length > 64
    assert whole(batch) - narrow(batch) == pytest.approx(12 * sliding * 32 * rows * length * (length - 64))


AROUND = {
    "mllama": {"policy": "canvas_tiles", "connector": "linear"},
    "cross_attention": {"layout": "seen"},
    "hybrid": {"layout": "seen_tiles_beside"},
}
PARTS_OF_ALL_KINDS = [
    *(("encoder", kind) for kind in vlmkit.list_encoders()),
    *(("connector", kind) for kind in vlmkit.list_connectors()),
    *(("fusion", kind) for kind in vlmkit.list_fusions()),
]


@pytest.mark.parametrize(("family", "kind"), PARTS_OF_ALL_KINDS)
def test_parts_of_every_kind_are_reckoned(family, kind):
    """Within 1 % of what torch counts (measured: exact but for mllama, whose tiles are padded, and what cross-attention makes of
    text before an image)."""
    around = AROUND.get(kind, {})
    spec = tiny(**{family: kind, "language": "llama"} | around)
    model = vlmkit.build(spec, seed=0)
    batch = dict(vlmkit.build_processor(spec)([[user(picture(56, 56, 1), LONG), assistant("1")]]))
    batch["labels"] = batch["input_ids"].clone()
    del batch["supervised"]
    for learning in (("connector",), PARTS):
        model.zero_grad()
        reckoned = ModelFlops(spec, learn(model, *learning))(batch)
        assert reckoned == pytest.approx(counted(model, batch), rel=0.01 if not around else 0.03), learning


def test_every_kind_of_part_was_met():
    assert len(PARTS_OF_ALL_KINDS) >= 24


def test_figures_of_a_published_model():
    """UNIVA-VL: 31.2 billion parameters of the language model that a token meets, embeddings apart, and the tower's 0.63 billion."""
    flops = ModelFlops(vlmkit.architecture("univa-vl"), {})
    a, b, c = flops.towers[0]
    assert a + b * 1024 + c * 1024**2 == pytest.approx(1.46e12, rel=0.01)  # 2 x 0.63e9 x 1024, and 32 layers' attention
    assert flops.per_token == pytest.approx(2 * 31.2e9, rel=0.01)
    assert len(flops.windows) == 64


def test_a_mixture_of_experts_costs_the_experts_that_a_token_meets():
    def per_token(experts: int, met: int) -> float:
        config = MixtralConfig(
            **{**DECODER, "hidden_size": 32, "num_local_experts": experts, "num_experts_per_tok": met, "num_hidden_layers": 2}
        )
        with torch.device("meta"):
            model = MixtralForCausalLM(config)
        return matrices(model, without=model.get_output_embeddings().weight)

    one = 2 * 3 * 32 * 64  # layers, matrices of an expert
    assert per_token(4, 2) - per_token(4, 1) == one
    assert per_token(8, 2) - per_token(4, 2) == 2 * 4 * 32  # the router's
