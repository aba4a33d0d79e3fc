"""A model without its head gives what the head takes, whatever fusion and layout."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.batch.test_batch import MIXED, TINY, named
from tests.counted import TINY_MODELS
from tests.tiny import CONVERSATIONS, apart, shared
from vlmkit.body import BodyOutput


@pytest.mark.parametrize("name", TINY)
def test_the_head_makes_logits_of_what_the_body_gives(name: str) -> None:
    built, processor = named(name)
    text: Any = built.config.get_text_config()
    for portable in (False, True):
        batch = processor(MIXED, portable_form=portable)
        with torch.no_grad():
            body, logits = built.base_model(**batch), built(**batch).logits
            found = built.get_output_embeddings()(body.last_hidden_state) * (getattr(text, "logit_scale", None) or 1)
        cap = getattr(text, "final_logit_softcapping", None)
        found = found if cap is None else torch.tanh(found / cap) * cap
        assert isinstance(body, BodyOutput)
        assert apart(found[..., : logits.shape[-1]], logits) < 1e-5
        assert body.visual is not None


def test_so_many_models_have_a_body() -> None:
    assert len(TINY) == TINY_MODELS


def test_gradients_go_through_it_and_packed_rows_keep_their_shape() -> None:
    built, processor = shared()
    batch = processor(CONVERSATIONS, pack=True)
    given = {name: value for name, value in batch.items() if name not in ("labels", "supervised")}
    found = built.base_model(**given, output_hidden_states=True)
    assert found.last_hidden_state.shape[:2] == batch["input_ids"].shape
    assert found.hidden_states[0].shape == found.last_hidden_state.shape
    (gradient,) = torch.autograd.grad(found.last_hidden_state.sum(), next(built.connector.parameters()))
    assert gradient.abs().max() > 0
