"""What a mixture of experts adds to the loss, beside transformers' own classes for the same embeddings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

import vlmkit
from tests.tiny import CONVERSATIONS, DECODER, apart, architecture, draw, picture, user
from vlmkit.language_model import LanguageModel
from vlmkit.layout.laid_out import IGNORE
from vlmkit.model import VLM
from vlmkit.processor import VLMProcessor
from vlmkit.spec import Settings

COMMON: dict[str, Any] = {
    **DECODER,
    "num_experts_per_tok": 2,
    "output_router_logits": True,
    "router_aux_loss_coef": 10.0,
}
EXPERTS: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 4, "sliding_window": None},
    "olmoe": {"num_experts": 4},
    "qwen2_moe": {"num_experts": 4, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 32, "decoder_sparse_step": 1},
}
every_mixture = pytest.mark.parametrize("name", EXPERTS)


def made(name: str, **changes: Any) -> tuple[VLM, VLMProcessor]:
    arch = architecture(language=LanguageModel(model_type=name, tokenizer="bytes", config=Settings(COMMON | EXPERTS[name] | changes)))
    built = vlmkit.build(arch, seed=0)
    draw(built)
    return built.eval(), vlmkit.build_processor(arch)


def received(built: VLM, batch: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """What the model gives for a batch, and the arguments that its language model was called with."""
    seen: dict[str, Any] = {}
    hook = built.language_model.register_forward_pre_hook(lambda module, args, kwargs: seen.update(kwargs), with_kwargs=True)
    output = built(**batch)
    hook.remove()
    return output, seen


def longer(batch: dict[str, Any], more: int) -> dict[str, Any]:
    """The batch with so many columns of padding behind."""
    fill = {
        "input_ids": 256,
        "attention_mask": 0,
        "labels": IGNORE,
        "visual_index": -1,
        "learned_index": -1,
        "segments": -1,
        "position_ids": 0,
    }
    return {name: pad(value, (0, more), value=fill[name]) if name in fill else value for name, value in batch.items()}


@every_mixture
@pytest.mark.parametrize("training", [False, True])
def test_the_loss_is_that_of_transformers_own_class(name: str, training: bool) -> None:
    """Measured 0 of losses of 26 to 28, of which the router's is 20 and more."""
    built, processor = made(name)
    batch = processor(CONVERSATIONS)
    output, given = received(built.train(training), batch)
    theirs = type(built.language_model)(built.language_model.config).train(training)
    theirs.load_state_dict(built.language_model.state_dict())
    expected = theirs(inputs_embeds=given["inputs_embeds"], attention_mask=batch["attention_mask"], labels=batch["labels"])
    assert output.losses.keys() == {"language_model", "router"}
    torch.testing.assert_close(output.losses["router"], 10 * expected.aux_loss, rtol=1e-5, atol=0)
    torch.testing.assert_close(output.loss, output.losses["language_model"] + output.losses["router"], rtol=1e-6, atol=0)
    torch.testing.assert_close(output.loss, expected.loss, rtol=1e-5, atol=0)
    assert output.losses["router"] > 10


@every_mixture
def test_the_router_learns_by_it(name: str) -> None:
    built, processor = made(name)
    batch = processor(CONVERSATIONS)
    gate = next(parameter for path, parameter in built.named_parameters() if "gate.weight" in path)

    def gradient(losses: dict[str, Tensor], which: str) -> Tensor:
        (found,) = torch.autograd.grad(losses[which], [gate], retain_graph=True)
        return found

    losses = built.train()(**batch).losses
    assert float(gradient(losses, "router").abs().max()) > 1e-3
    assert apart(gradient(losses, "router"), gradient(losses, "language_model")) > 1e-3


@every_mixture
@pytest.mark.parametrize("pack", [False, True])
def test_padding_does_not_change_it(name: str, pack: bool) -> None:
    built, processor = made(name)
    batch = dict(processor(CONVERSATIONS, pack=pack))
    losses, padded = built(**batch).losses, built(**longer(batch, 40)).losses
    assert losses.keys() == padded.keys() == {"language_model", "router"}
    for which in losses:
        torch.testing.assert_close(padded[which], losses[which], rtol=1e-5, atol=0)


@every_mixture
def test_packed_rows_hold_the_same_tokens_and_give_the_same_losses(name: str) -> None:
    built, processor = made(name)
    packed, apart_ = processor(CONVERSATIONS, pack=True), processor(CONVERSATIONS)
    losses, expected = built(**packed).losses, built(**apart_).losses
    for which in expected:
        torch.testing.assert_close(losses[which], expected[which], rtol=1e-5, atol=0)
    built.train()(**packed).loss.backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in built.parameters())


@every_mixture
def test_answers_do_not_depend_on_it(name: str) -> None:
    """transformers' own classes fail here: over a cache they count the mask of all tokens against the routing of the last ones."""
    prompts = [[user(picture(seed=1), "What is it?")], [user("Only words, and more of them than there are beside the picture?")]]
    answers = []
    for asked in (True, False):
        built, processor = made(name, output_router_logits=asked)
        batch = processor(prompts, add_generation_prompt=True)
        answers.append(built.generate(**batch, max_new_tokens=4, min_new_tokens=4, do_sample=False))
    assert torch.equal(*answers)


@every_mixture
def test_none_is_added_unless_the_config_asks(name: str) -> None:
    built, processor = made(name, output_router_logits=False)
    assert built(**processor(CONVERSATIONS)).losses.keys() == {"language_model"}


@pytest.mark.parametrize("name", EXPERTS)
def test_generation_asks_no_router_for_its_loss(name: str) -> None:
    """A step of generation looks for the setting among the config's own values, where transformers keeps it."""
    built, processor = made(name)
    assert built.language_model.config.output_router_logits
    batch = {key: value for key, value in processor(CONVERSATIONS[:1]).items() if key != "labels"}
    asked: list[Any] = []
    built.language_model.register_forward_pre_hook(lambda _, args, given: asked.append(given.get("output_router_logits")), with_kwargs=True)
    built(**batch)
    assert asked == [False]
