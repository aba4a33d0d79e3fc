"""FFNs turned into experts: at first the model that there was, then a mixture that learns, is saved and spreads its tokens."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM

import vlmkit
from tests.test_router_loss import longer
from tests.tiny import CONVERSATIONS, DECODER, apart, architecture, draw, language_model
from vlmkit.checkpoints import export
from vlmkit.experts import Experts
from vlmkit.experts_module import GroupedLinear, Mixture, put_experts, spread
from vlmkit.experts_weights import Copied
from vlmkit.grouped import grouped_rows
from vlmkit.language_model import LanguageModel
from vlmkit.model import VLM
from vlmkit.recompute import recompute
from vlmkit.sliced import PublishedWeights
from vlmkit.spec import Settings, SpecError
from vlmkit.weight_source import HeldWeights, values_of

FOUR = Experts(count=4, top=2, layers="all", balance=0.5)
DECODERS: dict[str, dict[str, Any]] = {
    "cohere": {},
    "gemma": {"head_dim": 8},
    "glm": {"head_dim": 8, "pad_token_id": 256},
    "gpt_neox": {"num_key_value_heads": None},
    "llama": {"mlp_bias": True},
    "mistral": {"sliding_window": None},
    "olmo3": {"num_hidden_layers": 4},
    "phi": {},
    "phi3": {},
    "qwen3": {"head_dim": 8},
    "stablelm": {"use_parallel_residual": True},
    "starcoder2": {},
}
"""Gates and without, biases and without, beside attention or behind it, gate and up in one matrix."""


def made(experts: Experts = FOUR, **config: Any) -> tuple[VLM, dict[str, Tensor]]:
    """A small Llama with experts whose weights are all drawn, and a batch."""
    words = language_model("llama", **config).replace(experts=experts)
    arch = architecture(language=words)
    built = vlmkit.build(arch, seed=0)
    draw(built)
    return built.eval(), dict(vlmkit.build_processor(arch)(CONVERSATIONS))


@pytest.mark.parametrize("name", DECODERS)
def test_a_model_begins_as_the_one_without_experts(name: str) -> None:
    """Measured 1.4e-6 at most, of logits up to 6."""
    settings = {key: value for key, value in (DECODER | DECODERS[name]).items() if value is not None}
    dense = LanguageModel(model_type=name, config=Settings(settings))
    config = dense.transformers_config()
    plain = dense.build(config).eval()
    draw(plain)
    mixed = put_experts(copy.deepcopy(plain), FOUR)
    mixtures = [module for module in mixed.modules() if isinstance(module, Mixture)]
    assert len(mixtures) == config.num_hidden_layers
    ids = torch.randint(0, 256, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, other = plain(input_ids=ids).logits, mixed(input_ids=ids).logits
    assert apart(one, other) < 1e-5
    assert float(one.abs().max()) > 0.1
    ffn = sum(parameter.numel() for mixture in mixtures for parameter in mixture.experts.parameters())
    more = 3 * ffn // 4 + sum(mixture.gate.weight.numel() for mixture in mixtures)
    assert count(mixed) == count(plain) + more


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def by_hand(mixture: Mixture, rows: Tensor) -> Tensor:
    """The equations, token by token."""
    out = []
    for row in rows:
        probabilities = torch.softmax(mixture.gate.weight @ row, 0)
        best = sorted(range(mixture.count), key=lambda number: -float(probabilities[number]))[: mixture.top]
        answers = []
        for number in best:
            gate, up, down = (getattr(mixture.experts, name).weight[number] for name in ("gate_proj", "up_proj", "down_proj"))
            answers.append(probabilities[number] * (down @ (functional.silu(gate @ row) * (up @ row))))
        out.append(torch.stack(answers).sum(0) / sum(float(probabilities[number]) for number in best))
    return torch.stack(out)


@pytest.mark.parametrize(("number", "top"), [(2, 2), (4, 2), (5, 3)])
def test_a_token_gets_the_weighted_answers_of_its_best_experts(number: int, top: int) -> None:
    built, _ = made(Experts(count=number, top=top, layers=(1,)))
    (mixture,) = (module for module in built.modules() if isinstance(module, Mixture))
    rows = torch.randn(7, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(mixture(rows[None])[0], by_hand(mixture, rows), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("widths", [(16, 24), (5, 7)])
def test_products_by_group_and_their_gradients_are_those_of_a_loop(widths: tuple[int, int]) -> None:
    """Also where a group has no rows, and where torch's kernels take no such widths."""
    generator = torch.Generator().manual_seed(0)
    read, out = widths
    rows = torch.randn(10, read, generator=generator, requires_grad=True)
    weights = torch.randn(4, out, read, generator=generator, requires_grad=True)
    lengths = [3, 0, 5, 2]
    ends = torch.tensor(lengths).cumsum(0).to(torch.int32)
    found = grouped_rows(rows, weights, ends)
    wanted = torch.cat([piece @ weight.T for piece, weight in zip(rows.split(lengths), weights, strict=True)])
    torch.testing.assert_close(found, wanted)
    ours = torch.autograd.grad(found.sum(), [rows, weights])  # a gradient that is one number seen many times
    theirs = torch.autograd.grad(wanted.sum(), [rows, weights])
    torch.testing.assert_close(ours, theirs)
    torch.library.opcheck(grouped_rows, (rows, weights, ends))


def test_padding_and_packing_change_neither_loss() -> None:
    built, batch = made()
    losses, padded = built(**batch).losses, built(**longer(batch, 40)).losses
    packed = built(**vlmkit.build_processor(built.config.spec)(CONVERSATIONS, pack=True)).losses
    assert losses.keys() == {"language_model", "router"}
    for which in losses:
        torch.testing.assert_close(padded[which], losses[which], rtol=1e-5, atol=0)
        torch.testing.assert_close(packed[which], losses[which], rtol=1e-5, atol=0)


def test_the_balancing_loss_is_the_papers_and_reaches_the_router_alone_by_itself() -> None:
    built, batch = made()
    seen: list[tuple[Tensor, Tensor]] = []
    hooks = [
        module.gate.register_forward_hook(lambda gate, _, logits: seen.append(logits))
        for module in built.modules()
        if isinstance(module, Mixture)
    ]
    losses = built(**batch).losses
    for hook in hooks:
        hook.remove()
    held = batch["attention_mask"].bool().flatten()
    wanted = 0.0
    for logits in seen:
        probabilities = logits[held].softmax(-1)
        first = functional.one_hot(probabilities.argmax(-1), 4).float().mean(0)
        wanted += float(4 * (first * probabilities.mean(0)).sum().detach())
    assert len(seen) == 2
    assert float(losses["router"]) == pytest.approx(0.5 * wanted, rel=1e-5)
    gate = next(parameter for name, parameter in built.named_parameters() if name.endswith("gate.weight"))
    assert torch.autograd.grad(losses["router"], [gate], retain_graph=True)[0].abs().max() > 1e-4
    assert torch.autograd.grad(losses["language_model"], [gate])[0].abs().max() > 1e-6


def test_without_a_factor_there_is_no_balancing_loss() -> None:
    built, batch = made(FOUR.replace(balance=0.0))
    assert built(**batch).losses.keys() == {"language_model"}


@pytest.mark.parametrize("capacity", [None, 0.6])
def test_recomputed_layers_give_the_same_gradients(capacity: float | None) -> None:
    """Also where tokens are dropped: the same ones are, padding takes no room again. Measured 0."""
    gradients = []
    for recomputes in (False, True):
        built, batch = made(FOUR.replace(capacity=capacity))
        built.train()
        if recomputes:
            recompute(built)
        built(**longer(batch, 5)).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in built.named_parameters() if parameter.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert sum(".mlp.experts." in name or ".mlp.gate." in name for name in gradients[0]) == 8
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=0, atol=1e-7)


def test_an_expert_takes_no_more_than_its_room_and_only_in_training() -> None:
    built, batch = made(FOUR.replace(capacity=0.5))
    with torch.no_grad():
        bounded, free = built.train()(**batch).loss, built.eval()(**batch).loss
        for mixture in built.language_model.mixtures.layers.values():
            mixture.capacity = None
        unbounded = built.train()(**batch).loss
    assert float((bounded - free).abs()) > 1e-3
    assert float((unbounded - free).abs()) < 1e-5


def test_padding_takes_no_room() -> None:
    built, batch = made(FOUR.replace(capacity=0.5))
    with torch.no_grad():
        torch.testing.assert_close(built.train()(**batch).loss, built(**longer(batch, 40)).loss, rtol=1e-5, atol=0)


def test_a_saved_model_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    built, batch = made(FOUR.replace(layers="even"))
    built.save_pretrained(tmp_path)
    vlmkit.build_processor(built.config.spec).save_pretrained(tmp_path)
    read, _ = vlmkit.load(tmp_path)
    assert read.config.spec == built.config.spec
    with torch.no_grad():
        assert torch.equal(read(**batch).logits, built(**batch).logits)
    processor = vlmkit.build_processor(built.config.spec)
    with pytest.raises(SpecError, match="has experts in the place of FFNs"):
        export(built, processor, tmp_path / "published")


def test_a_published_checkpoint_becomes_experts_whole_or_in_pieces(tmp_path: Path) -> None:
    words = language_model("llama")
    dense = words.build(words.transformers_config())
    draw(dense)
    dense.save_pretrained(tmp_path / "dense")
    arch = architecture(language=words.replace(checkpoint=str(tmp_path / "dense"), experts=FOUR), encoder="patches", connector="linear")
    arch = arch.replace(policy=vlmkit.policies["squash"](size=56))
    built = vlmkit.build(arch, weights="pretrained", seed=3)
    source, own = PublishedWeights(arch, seed=3), built.state_dict()
    assert set(source.names()) == own.keys()
    for name, value in own.items():
        assert torch.equal(values_of(source, name), value), name
    name = "language_model.model.layers.0.mlp.experts.up_proj.weight"
    copies = own[name]
    assert all(torch.equal(one, dense.state_dict()["model.layers.0.mlp.up_proj.weight"]) for one in copies)
    size = copies[0].numel()
    assert torch.equal(source.read(name, size - 5, size + 9), copies.flatten()[size - 5 : 2 * size + 4])
    with pytest.raises(IndexError, match="were asked for"):
        source.read(name, 4 * size - 1, 2)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "dense").eval()
    ids = torch.arange(12)[None]
    with torch.no_grad():
        assert apart(built.language_model(input_ids=ids).logits, plain(input_ids=ids).logits) < 1e-5


def test_weights_without_experts_are_read_as_they_are() -> None:
    built, _ = made()
    plain = nn.Linear(3, 2)
    source = Copied(HeldWeights(plain.state_dict()), plain, lambda name, shape: torch.zeros(shape))
    assert source.names() == ("weight", "bias")
    assert torch.equal(values_of(source, "weight"), plain.weight)
    assert isinstance(built.language_model.model.layers[0].mlp.experts.up_proj, GroupedLinear)


def test_how_tokens_spread_is_told() -> None:
    built, batch = made()
    before = built.language_model.mixtures.take()
    told = spread(built, batch)
    assert before is None
    assert told.keys() == {0, 1}
    assert all(len(row) == 4 and sum(row) == pytest.approx(1) for row in told.values())
    assert spread(built, longer(batch, 30)) == told, "padding goes nowhere"
    gate = built.language_model.model.layers[1].mlp.gate
    with torch.no_grad():
        gate.weight.zero_()[:2] += 1
        gate.weight[2:] -= 1
    assert built.language_model.mixtures.take() is None, "asking is no training"
    with pytest.raises(SpecError, match="has no experts"):
        spread(vlmkit.build(architecture(), seed=0), batch)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"count": 1}, "a choice needs 2 experts"),
        ({"top": 1}, "expected 2 to 4"),
        ({"top": 5}, "expected 2 to 4"),
        ({"capacity": 0.0}, "expected more than 0"),
        ({"balance": -1.0}, "expected 0 or more"),
        ({"layers": ()}, "numbers of layers from 0 on"),
        ({"layers": (1, 1)}, "each once"),
        ({"layers": "odd"}, "expected"),
    ],
)
def test_what_is_no_mixture_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Experts(**fields)


def test_layers_are_numbered_from_0() -> None:
    assert [Experts(layers=name).numbers(5) for name in ("all", "even", "first_half", "second_half")] == [
        (0, 1, 2, 3, 4),
        (0, 2, 4),
        (0, 1),
        (2, 3, 4),
    ]
    assert Experts(layers=(3, 1)).numbers(4) == (1, 3)
    with pytest.raises(SpecError, match="4 is beyond the 4 layers"):
        Experts(layers=(4,)).numbers(4)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("opt", {"word_embed_proj_dim": 32, "ffn_dim": 64}, "has no FFN by the name of 'mlp'"),
        ("olmoe", {"num_experts": 4}, "has weights beside linear layers"),
        ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4}, "has weights beside linear layers"),
    ],
)
def test_decoders_without_a_plain_ffn_are_refused_by_name(name: str, settings: dict[str, Any], message: str) -> None:
    words = LanguageModel(model_type=name, config=Settings(DECODER | settings), experts=FOUR)
    with pytest.raises(SpecError, match=message):
        words.build(words.transformers_config())
