"""A model without its head gives what the head takes, whatever fusion and layout."""
from tests.counted import TINY_MODELS

from tests.counted import TINY_MODELS
from __future__ import annotations
from tests.counted import TINY_MODELS

from tests.counted import TINY_MODELS
from typing import Any
from tests.counted import TINY_MODELS

from tests.counted import TINY_MODELS
import pytest
from tests.counted import TINY_MODELS
import torch
from tests.counted import TINY_MODELS

from tests.counted import TINY_MODELS
from tests.batch.test_batch import MIXED, TINY, named
from tests.counted import TINY_MODELS
from tests.tiny import CONVERSATIONS, apart, shared
from tests.counted import TINY_MODELS
from vlmkit.body import BodyOutput
from tests.counted import TINY_MODELS

from tests.counted import TINY_MODELS

from tests.counted import TINY_MODELS
@pytest.mark.parametrize("name", TINY)
from tests.counted import TINY_MODELS
def test_the_head_makes_logits_of_what_the_body_gives(name: str) -> None:
from tests.counted import TINY_MODELS
    built, processor = named(name)
from tests.counted import TINY_MODELS
    text: Any = built.config.get_text_config()
from tests.counted import TINY_MODELS
    for portable in (False, True):
from tests.counted import TINY_MODELS
        batch = processor(MIXED, portable_form=portable)
from tests.counted import TINY_MODELS
        with torch.no_grad():
from tests.counted import TINY_MODELS
            body, logits = built.base_model(**batch), built(**batch).logits
from tests.counted import TINY_MODELS
            found = built.get_output_embeddings()(body.last_hidden_state) * (getattr(text, "logit_scale", None) or 1)
from tests.counted import TINY_MODELS
        cap = getattr(text, "final_logit_softcapping", None)
from tests.counted import TINY_MODELS
        found = found if cap is None else torch.tanh(found / cap) * cap
from tests.counted import TINY_MODELS
        assert isinstance(body, BodyOutput)
from tests.counted import TINY_MODELS
        assert apart(found[..., : logits.shape[-1]], logits) < 1e-5
from tests.counted import TINY_MODELS
        assert body.visual is not None
from tests.counted import TINY_MODELS

from tests.counted import TINY_MODELS

from tests.counted import TINY_MODELS
def test_so_many_models_have_a_body() -> None:
from tests.counted import TINY_MODELS
    assert len(TINY) == TINY_MODELS
from tests.counted import TINY_MODELS

from tests.counted import TINY_MODELS

from tests.counted import TINY_MODELS
def test_gradients_go_through_it_and_packed_rows_keep_their_shape() -> None:
from tests.counted import TINY_MODELS
    built, processor = shared()
from tests.counted import TINY_MODELS
    batch = processor(CONVERSATIONS, pack=True)
from tests.counted import TINY_MODELS
    given = {name: value for name, value in batch.items() if name not in ("labels", "supervised")}
from tests.counted import TINY_MODELS
    found = built.base_model(**given, output_hidden_states=True)
from tests.counted import TINY_MODELS
    assert found.last_hidden_state.shape[:2] == batch["input_ids"].shape
from tests.counted import TINY_MODELS
    assert found.hidden_states[0].shape == found.last_hidden_state.shape
from tests.counted import TINY_MODELS
    (gradient,) = torch.autograd.grad(found.last_hidden_state.sum(), next(built.connector.parameters()))
from tests.counted import TINY_MODELS
    assert gradient.abs().max() > 0
from tests.counted import TINY_MODELS
