"""Cross-attention over every decoder: who looks at what, alone, in batches, in packed rows, from a cache, and in training."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

import vlmkit
from tests.fusion.laws import (
    TOLERANCE,
    a_second_turn_goes_on,
    batched_is_single,
    beams_share,
    cached_is_uncached,
    logits_of,
    packed_is_alone,
)
from tests.tiny import CONVERSATIONS, LANGUAGE_MODELS, PROMPTS, apart, architecture, assistant, draw, encoded_views, model, picture, user
from vlmkit.architecture import Architecture
from vlmkit.cache_name import CACHE
from vlmkit.fusion.cross_attention import CrossAttention
from vlmkit.fusion.incoming import FusionError
from vlmkit.model import VLM
from vlmkit.processor import VLMProcessor
from vlmkit.recompute import recompute
from vlmkit.spec import SpecError

FORMS: dict[str, CrossAttention] = {
    "idefics": CrossAttention(before=2, gate="vector"),
    "llama": CrossAttention(before=(1,), looks_at_none="everything", feeds="seeing"),
    "every layer": CrossAttention(before=1, heads=2, kv_heads=1, head_dim=4, hidden=24, qk_norm=False, feeds="seeing", activation="gelu"),
}
every_language = pytest.mark.parametrize("language", LANGUAGE_MODELS)
every_form = pytest.mark.parametrize("form", FORMS)


def arch(language: str = "llama", form: str = "idefics", **parts: Any) -> Architecture:
    """Tiles read together behind the form that attends to everything, a plain tower behind the others."""
    if FORMS[form].looks_at_none == "everything":
        parts = {"policy": "canvas_tiles", "encoder": "mllama", "connector": "linear", **parts}
    return architecture(**{"layout": "seen", "fusion": FORMS[form], "language": language, **parts})


def made(language: str = "llama", form: str = "idefics", **parts: Any) -> tuple[VLM, VLMProcessor]:
    chosen = arch(language, form, **parts)
    return model(chosen), vlmkit.build_processor(chosen)


@every_language
@every_form
def test_batched_is_single(language: str, form: str) -> None:
    batched_is_single(*made(language, form))


@every_language
@every_form
def test_packed_is_alone(language: str, form: str) -> None:
    packed_is_alone(*made(language, form))


@every_language
@every_form
def test_cached_is_uncached_and_images_are_encoded_once(language: str, form: str) -> None:
    cached_is_uncached(*made(language, form))


@every_form
@pytest.mark.parametrize("first", [5, -2], ids=["images come later", "images come first"])
def test_a_cache_that_is_handed_on_by_hand_keeps_what_is_looked_at(form: str, first: int) -> None:
    """Images are given with the first part, also where none of its words looks at one yet."""
    built, processor = made(form=form)
    prompt = processor(PROMPTS[0])
    rows = ("input_ids", "position_ids", "visual_index", "visible")
    pixels = {name: prompt[name] for name in ("pixel_values", "grids", "places") if name in prompt}
    length = prompt["input_ids"].shape[1]
    with torch.no_grad():
        whole = built(**prompt).logits
        begun = built(**{name: prompt[name][:, :first] for name in rows}, **pixels)
        assert apart(begun.logits, whole[:, :first]) < TOLERANCE
        for place in (first % length, length - 1):
            step = slice(place, length - 1 if place < length - 1 else None)
            begun = built(**{name: prompt[name][:, step] for name in rows}, **{CACHE: begun[CACHE]})
            assert apart(begun.logits, whole[:, step]) < TOLERANCE


@every_form
@pytest.mark.parametrize("options", [{"num_beams": 3}, {"num_beams": 3, "num_return_sequences": 2}])
def test_beams_share_what_they_look_at(form: str, options: dict[str, int]) -> None:
    beams_share(*made(form=form), **options)


@pytest.mark.parametrize("layout", ["seen", "seen_fenced"])
def test_a_second_turn_that_adds_an_image_goes_on_from_the_cache_of_the_first(layout: str) -> None:
    a_second_turn_goes_on(*made(layout=layout))


def test_a_second_turn_without_a_new_image_encodes_nothing_again() -> None:
    built, processor = made()
    first = [user(picture(seed=1), "What is it?")]
    options: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    kept = built.generate(**processor([first]), **options)[CACHE]
    kept.crop(-3)
    whole = processor([[*first, assistant("A cat."), user("Why?")]])
    anew = built.generate(**whole, **options)
    seen = encoded_views(built)
    goes_on = built.generate(**whole, **options, **{CACHE: kept})
    assert seen == []
    assert torch.equal(goes_on.sequences, anew.sequences)
    for one, other in zip(goes_on.logits, anew.logits, strict=True):
        assert apart(one, other) < TOLERANCE


@every_form
def test_visual_tokens_serve_in_place_of_pixels(form: str) -> None:
    built, processor = made(form=form)
    batch = processor(PROMPTS)
    options: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False}
    expected = built.generate(**batch, **options)
    given = {name: batch.pop(name) for name in ("pixel_values", "grids", "places") if name in batch}
    visual = built.get_image_features(**given)
    del given["pixel_values"]
    seen = encoded_views(built)
    for use_cache in (True, False):
        assert torch.equal(built.generate(**batch, **given, visual=visual, **options, use_cache=use_cache), expected)
    assert seen == []


@every_language
def test_with_gates_at_zero_the_language_model_is_what_it_was(language: str) -> None:
    built, processor = made(language)
    batch = processor([CONVERSATIONS[2]])
    with torch.no_grad():
        bare = built.language_model(input_ids=batch["input_ids"]).logits
        assert apart(built(**batch).logits, bare) > 0.1
        for layer in built.fusion.layers:
            layer.gate_attention.zero_()
            layer.gate_mlp.zero_()
        assert apart(built(**batch).logits, bare) < TOLERANCE


@every_form
def test_a_row_without_images_beside_others_passes_as_its_form_says(form: str) -> None:
    built, processor = made(form=form)
    row = CONVERSATIONS[1]
    plain = processor([row])
    with torch.no_grad():
        bare = built.language_model(input_ids=plain["input_ids"]).logits[0]
    for batch, number in ((plain, 0), (processor(CONVERSATIONS), 1)):
        found = logits_of(built, batch)[number]
        if FORMS[form].feeds == "seeing":
            assert apart(found, bare) < TOLERANCE
        else:
            assert apart(found, bare) > 0.1


@every_form
@pytest.mark.parametrize("layout", ["seen", "seen_fenced"])
def test_words_see_the_image_before_them_and_where_the_layout_says_so_its_neighbours(form: str, layout: str) -> None:
    """Logits at the end move with the images that are looked at there, and not with others: the language model has one layer, before
    which cross-attention stands."""
    from tests.tiny import language_model

    fusion = FORMS[form].replace(before=(0,))
    built, processor = made(form=form, layout=layout, fusion=fusion, language=language_model("llama", num_hidden_layers=1))

    def last(*pictures: int, words: bool) -> Tensor:
        shown = [picture(seed=seed) for seed in pictures]
        content = [shown[0], "and", *shown[1:]] if words else shown
        with torch.no_grad():
            hidden: list[Tensor] = []
            handle = built.fusion.layers[0].register_forward_hook(lambda module, given, out: hidden.append(out[0][0, -1]))
            built(**processor([[user(*content, "?")]]))
            handle.remove()
        return hidden[0]

    before = apart(last(1, 2, words=True), last(9, 2, words=True))
    assert before < TOLERANCE
    assert apart(last(1, 2, words=True), last(1, 9, words=True)) > 0.01
    neighbour = apart(last(1, 2, words=False), last(9, 2, words=False))
    assert (neighbour > 0.01) == (layout == "seen")


def test_what_looks_at_nothing_attends_to_nothing_or_to_everything() -> None:
    for form, moved in (("idefics", False), ("llama", True)):
        built, processor = made(form=form)
        rows = [[[user("first", picture(seed=seed), "?")]] for seed in (1, 2)]
        first, second = (logits_of(built, processor(row))[0][:10] for row in rows)
        assert (apart(first, second) > 1e-3) == moved


@every_form
@every_language
def test_each_layer_is_called_once_whatever_the_batch_holds(language: str, form: str) -> None:
    built, processor = made(language, form)
    calls = [0] * len(built.fusion.layers)

    def count(number: int) -> Any:
        def hook(*unused: Any) -> None:
            calls[number] += 1

        return hook

    for number, layer in enumerate(built.fusion.layers):
        layer.register_forward_hook(count(number))
    built.train()
    for rows in (CONVERSATIONS, CONVERSATIONS[1:2]):
        calls[:] = [0] * len(calls)
        built.zero_grad()
        built(**processor(rows)).loss.backward()
        assert calls == [1] * len(calls)
        for name, parameter in built.fusion.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
        moved = {name for name, parameter in built.fusion.named_parameters() if bool(parameter.grad.abs().max() > 0)}
        if rows is CONVERSATIONS:
            assert len(moved) == len(list(built.fusion.parameters()))
        elif FORMS[form].feeds == "seeing":
            assert not moved
        assert all(parameter.grad is not None for parameter in (*built.encoder.parameters(), *built.connector.parameters()))


@every_form
def test_recomputing_gives_the_same_gradients(form: str) -> None:
    built, processor = made(form=form)
    batch = processor(CONVERSATIONS)
    built.train()
    found = []
    for recomputes in (False, True):
        if recomputes:
            recompute(built)
            assert all(layer.gradient_checkpointing for layer in built.fusion.layers)
        built.zero_grad()
        built(**batch).loss.backward()
        found.append({name: parameter.grad.clone() for name, parameter in built.named_parameters()})
    assert all(apart(found[0][name], found[1][name]) < 1e-5 for name in found[0])


def test_a_copy_of_a_model_has_layers_of_its_own() -> None:
    built, processor = made()
    batch = processor(CONVERSATIONS)
    other = copy.deepcopy(built)
    draw(built.fusion, seed=7)
    assert apart(logits_of(built, batch)[0], logits_of(other, batch)[0]) > 0.1
    assert apart(logits_of(made()[0], batch)[0], logits_of(other, batch)[0]) == 0


def test_an_adapter_that_trains_a_copy_of_the_fusion_trains_what_runs() -> None:
    peft = pytest.importorskip("peft")
    built, processor = made()
    batch = processor(CONVERSATIONS)
    before = logits_of(built, batch)
    options: dict[str, Any] = {"target_modules": r"language_model.*v_proj", "modules_to_save": ["fusion"]}
    adapted = peft.get_peft_model(built, peft.LoraConfig(r=2, **options)).train()
    trained = [parameter for name, parameter in adapted.named_parameters() if parameter.requires_grad and "fusion" in name]
    assert len(trained) == len(list(made()[0].fusion.parameters()))
    adapted(**batch).loss.backward()
    assert all(bool(parameter.grad.abs().max() > 0) for parameter in trained)
    torch.optim.SGD(trained, lr=0.1).step()
    assert apart(logits_of(adapted.eval(), batch)[0], before[0]) > 1e-3


def test_layers_are_counted_once_and_saved_once(tmp_path: Any) -> None:
    built, processor = made()
    own = sum(parameter.numel() for parameter in built.fusion.layers.parameters())
    assert built.config.spec.parameters().fusion == own > 0
    assert sum("fusion.layers.0.attention.q_proj" in name for name in built.state_dict()) == 1
    assert not any("fusion" in name for name in built.language_model.state_dict())
    built.save_pretrained(tmp_path)
    again = VLM.from_pretrained(tmp_path)
    batch = processor(CONVERSATIONS)
    assert apart(logits_of(built, batch)[0], logits_of(again, batch)[0]) == 0


@every_language
def test_half_precision_answers(language: str) -> None:
    built, processor = made(language)
    built = built.to(torch.bfloat16)
    ids = built.generate(**processor(PROMPTS), max_new_tokens=2, min_new_tokens=2, do_sample=False)
    assert ids.shape[1] == processor(PROMPTS)["input_ids"].shape[1] + 2


def test_a_batch_that_does_not_say_who_looks_is_refused() -> None:
    built, processor = made()
    batch = processor(CONVERSATIONS)
    del batch["visible"]
    with pytest.raises(FusionError, match="needs visible"):
        built(**batch)


def test_a_decoder_that_hands_no_arguments_to_its_layers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: Any, hidden_states: Tensor, attention_mask: Any = None, position_ids: Any = None, cache: Any = None) -> Tensor:
        return hidden_states

    monkeypatch.setattr(LlamaDecoderLayer, "forward", forward)
    with pytest.raises(
        SpecError, match=r"'llama' hands no further arguments to its layers \(LlamaDecoderLayer\.forward takes no \*\*kwargs\)"
    ):
        vlmkit.build(arch())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"before": 0}, "cross_attention.before: expected a number from 1 up"),
        ({"before": ()}, "cross_attention.before: expected a number"),
        ({"before": (2, 1)}, "rising numbers of layers from 0, got"),
        ({"heads": 3, "kv_heads": 2}, "3 heads do not share 2 heads"),
        ({"hidden": 0}, "cross_attention.hidden: expected 1 or more, got 0"),
        ({"norm_eps": 0.0}, "cross_attention.norm_eps: expected more than 0"),
        ({"gate_spread": -1.0}, "cross_attention.gate_spread: expected 0 or more"),
    ],
)
def test_sizes_that_make_no_layer_are_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        CrossAttention(**changes)


def test_what_does_not_fit_the_language_model_is_refused() -> None:
    with pytest.raises(SpecError, match="layer 5 of a language model that has 2"):
        vlmkit.build(arch(fusion=CrossAttention(before=(5,))))
    with pytest.raises(SpecError, match="4 heads do not share 3 heads"):
        vlmkit.build(arch(fusion=CrossAttention(kv_heads=3)))


def test_layouts_and_fusions_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(
        vlmkit.ArchitectureError, match=r"layout 'run' .* but fusion 'cross_attention' looks at visual tokens .* such as 'seen'"
    ):
        arch(layout="run").validate()
    with pytest.raises(vlmkit.ArchitectureError, match=r"layout 'seen' gives visual tokens 0 places.* but fusion 'splice'"):
        arch(fusion="splice").validate()


def test_gates_begin_as_the_spec_says() -> None:
    for fusion, size in ((CrossAttention(gate="vector", gate_start=1.0), 32), (CrossAttention(gate_start=1.0), 1)):
        built = vlmkit.build(arch(fusion=fusion))
        assert torch.equal(built.fusion.layers[0].gate_attention, torch.ones(size))
    built = vlmkit.build(arch(fusion=CrossAttention(gate="vector", gate_spread=0.5)))
    assert 0.3 < float(built.fusion.layers[0].gate_mlp.std()) < 0.7
