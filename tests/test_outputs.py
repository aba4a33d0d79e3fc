"""Outputs that are made without transformers' constructors are what those make."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from transformers.modeling_outputs import CausalLMOutputWithPast

from tests.tiny import architecture, model
from vlmkit.outputs import output
from vlmkit.speaking import VLMOutput

LOGITS, LOSS = torch.randn(2, 3, 5), torch.tensor(1.0)
GIVEN: list[dict[str, Any]] = [{}, {"logits": LOGITS}, {"hidden_states": (LOGITS,), "loss": LOSS}, {"loss": None, "logits": LOGITS}]


@pytest.mark.parametrize("kind", [VLMOutput, CausalLMOutputWithPast])
@pytest.mark.parametrize(
    "given", [{}, {"logits": LOGITS}, {"hidden_states": (LOGITS,), "loss": LOSS}, {"loss": None, "logits": LOGITS}], ids=len
)
def test_an_output_is_what_its_class_makes(kind: type[Any], given: dict[str, Any]) -> None:
    made, theirs = output(kind, **given), kind(**given)
    assert type(made) is type(theirs)
    assert list(made.keys()) == list(theirs.keys())
    assert vars(made).keys() == vars(theirs).keys()
    assert all(vars(made)[name] is vars(theirs)[name] for name in vars(theirs))
    assert all(made[name] is theirs[name] and getattr(made, name) is theirs[name] for name in theirs)
    assert len(made.to_tuple()) == len(theirs.to_tuple())
    made.attentions = (LOGITS,)
    assert made["attentions"] is made.attentions
    again = pickle.loads(pickle.dumps(made))
    assert list(again) == list(made)
    assert all(torch.equal(one, two) for one, two in zip(*map(torch.utils._pytree.tree_leaves, (made, again)), strict=True))


def test_what_every_step_asks_for_follows_the_parts() -> None:
    """The embeddings and the device, whose places are remembered."""
    built = model(architecture())
    assert built.get_input_embeddings() is built.language_model.get_input_embeddings()
    built.resize_token_embeddings(600)
    assert built.get_input_embeddings() is built.language_model.get_input_embeddings()
    assert built.get_input_embeddings().weight.shape[0] == 600
    assert built.device == next(built.parameters()).device
    built.to("meta")
    assert built.device.type == "meta"
    wrapped = torch.nn.Module()
    wrapped.get_input_embeddings = built.language_model.get_input_embeddings
    first, built.encoder = built.encoder, torch.nn.Sequential(built.encoder)
    assert built.device == next(first.parameters()).device
    built.language_model = wrapped
    assert built.get_input_embeddings() is wrapped.get_input_embeddings()
