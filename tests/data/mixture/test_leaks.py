"""No sample sees another: logits in packed rows, and of several conversations about one image, are those of each alone."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
import torch._inductor.exc
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface

import vlmkit
from tests.tiny import CONVERSATIONS, LANGUAGE_MODELS, apart, architecture, assistant, draw, encoded_views, model, picture, user
from vlmkit.batch.sample import PreparedSample
from vlmkit.data.mixture.prepare import Preparer
from vlmkit.fusion.incoming import FusionError
from vlmkit.layout.laid_out import IGNORE
from vlmkit.model import VLM
from vlmkit.preprocess.geometry import Size
from vlmkit.processor import VLMProcessor

TOLERANCE = 1e-5
"""Measured 1e-6 in float32 on a CPU."""
CPU = ("eager", "sdpa", pytest.param("flex_attention", marks=pytest.mark.slow))
"""Flex attention is compiled for each model, in minutes."""
LENGTH = 160


def several(processor: VLMProcessor) -> PreparedSample:
    """One image and three conversations about it, as a data set has them."""
    asked: list[Any] = [
        [{"role": "user", "content": [{"type": "image", "image": 0}, {"type": "text", "text": question}]}, assistant(answer)]
        for question, answer in (("What is it?", "A cat."), ("Which colour has the cat that sits there?", "Grey."), ("How many?", "1"))
    ]
    (piece,) = Preparer(processor).plan(asked, [Size(56, 84)]).pieces
    return PreparedSample((processor.render_image(picture(56, 84, 9), *piece.planned),), piece.layouts)


def packed_rows(processor: VLMProcessor) -> list[list[PreparedSample]]:
    """Rows of several samples, of one, and a sample between others that has several conversations."""
    one, text, two, turns = (processor.sample(conversation) for conversation in CONVERSATIONS)
    return [[one, several(processor), text], [turns], [two, one, text, one]]


def alone(built: VLM, processor: VLMProcessor, sample: PreparedSample) -> list[Tensor]:
    """Logits of each conversation of a sample in a batch of its own."""
    batches = [processor.collate([PreparedSample(sample.images, (layout,))]) for layout in sample.layouts]
    return [built(**{name: value.to(built.device) for name, value in batch.items()}).logits[0] for batch in batches]


def worst_leak(built: VLM, processor: VLMProcessor) -> float:
    rows = packed_rows(processor)
    length = max(sum(len(layout.ids) for sample in row for layout in sample.layouts) for row in rows) + 3
    batch = processor.pack_rows(rows, length)
    assert "attention_mask" not in batch
    worst = 0.0
    with torch.no_grad():
        logits = built(**{name: value.to(built.device) for name, value in batch.items()}).logits
        assert logits.shape[:2] == (len(rows), length)
        for row, found in zip(rows, logits, strict=True):
            wanted = torch.cat([one for sample in row for one in alone(built, processor, sample)])
            worst = max(worst, apart(found[: len(wanted)], wanted))
    return worst


def implemented(built: VLM, implementation: str) -> VLM:
    try:
        built.language_model.set_attn_implementation(implementation)
    except (ValueError, ImportError) as error:
        pytest.skip(str(error).splitlines()[0])
    return built.eval()


@pytest.mark.parametrize("implementation", CPU)
@pytest.mark.parametrize("language", LANGUAGE_MODELS)
def test_samples_of_a_packed_row_do_not_see_each_other(language: str, implementation: str) -> None:
    arch = architecture(language=language)
    built = implemented(model(arch), implementation)
    try:
        leak = worst_leak(built, vlmkit.build_processor(arch))
    except torch._inductor.exc.InductorError as error:
        pytest.skip(f"torch cannot compile {implementation} of {language} here: {str(error).splitlines()[0]}")
    assert leak <= TOLERANCE


def by_boundaries(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, *, cu_seq_lens_q: Tensor, scaling: float, **options: Any
) -> tuple[Tensor, None]:
    """Attention of variable length as flash attention is asked for it: no mask, one row, sequences by where they begin."""
    assert mask is None
    assert len(query) == 1
    window, found = options.get("sliding_window"), []
    for start, stop in pairwise(cu_seq_lens_q.tolist()):
        back = torch.arange(stop - start)[:, None] - torch.arange(stop - start)
        seen = (back >= 0) if window is None else (back >= 0) & (back < window)
        q, k, v = (part[:, :, start:stop] for part in (query, key, value))
        found.append(functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scaling, enable_gqa=True))
    return torch.cat(found, dim=2).transpose(1, 2).contiguous(), None


@pytest.mark.parametrize("language", LANGUAGE_MODELS)
def test_rows_put_one_behind_the_other_are_the_same_rows(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What flash attention is given, computed by an attention that reads it; loss and logits."""
    arch = architecture(language=language)
    built, processor = implemented(model(arch), "sdpa"), vlmkit.build_processor(arch)
    batch = processor.pack_rows(packed_rows(processor), 400)
    AttentionInterface.register("by_boundaries", by_boundaries)
    AttentionMaskInterface.register("by_boundaries", lambda *args, **kwargs: None)
    with torch.no_grad():
        apart_rows = built(**batch)
        built.language_model.set_attn_implementation("by_boundaries")
        monkeypatch.setattr("vlmkit.speaking.varies", lambda language_model: True)
        assert worst_leak(built, processor) <= TOLERANCE
        together = built(**batch)
        assert apart(together.loss, apart_rows.loss) <= TOLERANCE
        assert apart(built.train()(**batch).loss, apart_rows.loss) <= TOLERANCE


@pytest.mark.parametrize("name", [name for name in vlmkit.list_models() if name.endswith("-tiny")])
def test_every_small_model_keeps_packed_samples_apart_or_refuses_them(name: str) -> None:
    built, processor = vlmkit.build(name, seed=0), vlmkit.build_processor(name)
    draw(built)
    try:
        leak = worst_leak(built.eval(), processor)
    except FusionError as refused:
        assert "pack" in str(refused)
        return
    assert leak <= TOLERANCE * max(1, built.config.spec.language_model.dim / 64)


@pytest.mark.gpu
@pytest.mark.parametrize("implementation", ["flash_attention_2", "flash_attention_3", "sdpa", "flex_attention"])
@pytest.mark.parametrize("language", LANGUAGE_MODELS)
def test_nor_do_they_in_half_precision_on_a_gpu(language: str, implementation: str) -> None:
    """Half precision rounds by itself: a leak moves logits by tenths, rounding by hundredths."""
    arch = architecture(language=language)
    built = implemented(model(arch).to("cuda", torch.bfloat16), implementation)
    assert worst_leak(built, vlmkit.build_processor(arch)) <= 0.05


def test_conversations_about_one_image_do_not_see_each_other_and_it_is_encoded_once() -> None:
    arch = architecture()
    built, processor = model(arch).eval(), vlmkit.build_processor(arch)
    sample = several(processor)
    with torch.no_grad():
        wanted = alone(built, processor, sample)
        seen = encoded_views(built)
        batch = processor.collate([sample])
        logits = built(**batch).logits
        packed = built(**processor.pack_rows([[sample]], LENGTH * 3)).logits[0]
    assert seen == [1, 1]
    for row, mask, one in zip(logits, batch["attention_mask"].bool(), wanted, strict=True):
        assert apart(row[mask], one) <= TOLERANCE
    assert apart(packed[: sum(map(len, wanted))], torch.cat(wanted)) <= TOLERANCE


def test_what_fills_a_row_up_is_nobodys_target_and_starts_again() -> None:
    arch = architecture()
    processor = vlmkit.build_processor(arch)
    sample = processor.sample(CONVERSATIONS[0])
    size = len(sample.layouts[0].ids)
    batch = processor.pack_rows([[sample], [sample, sample]], 2 * size + 5)
    assert batch["position_ids"][0].tolist() == [*range(size), *range(size + 5)]
    assert batch["position_ids"][1].tolist() == [*range(size), *range(size), *range(5)]
    assert (batch["labels"][0, size:] == IGNORE).all()
    assert (batch["visual_index"][0, size:] == -1).all()
    assert (batch["labels"][1, [0, size]] == IGNORE).all()


def test_the_first_picture_matters_to_its_own_sample_only() -> None:
    """The laws above would hold for a model that looks at nothing."""
    arch = architecture()
    built, processor = model(arch).eval(), vlmkit.build_processor(arch)
    others = [[user(picture(seed=seed), "What is it?"), assistant("A cat.")] for seed in (1, 2)]
    first, second = (processor.sample(conversation) for conversation in others)
    size = len(first.layouts[0].ids)
    with torch.no_grad():
        one, other = (built(**processor.pack_rows([[sample, second]], 2 * size)).logits[0] for sample in (first, second))
    assert apart(one[:size], other[:size]) > 1e-2
    assert apart(one[size:], other[size:]) <= TOLERANCE
