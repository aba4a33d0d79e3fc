"""Text models that transformers has without a head: with one they are the text halves of its vision-language models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from tests.tiny import apart, draw
from vlmkit.cache_name import CACHE
from vlmkit.causal_head import CausalHead, text_model_class
from vlmkit.language_model import LanguageModel
from vlmkit.recompute import recompute
from vlmkit.spec import Settings

ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
NUMBERS: dict[str, Any] = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
IDS = torch.tensor([[5, 6, 7, 8, 9], [9, 8, 7, 6, 5]])
POSITIONS = torch.tensor([[[0, 1, 1, 1, 3]] * 2, [[0, 1, 1, 2, 3]] * 2, [[0, 1, 2, 1, 3]] * 2])


def spec(model_type: str = "qwen2_vl_text", **changes: Any) -> LanguageModel:
    return LanguageModel(model_type=model_type, config=Settings(NUMBERS | {"rope_parameters": ROPE} | changes))


def made(language_model: LanguageModel) -> CausalHead:
    built: Any = language_model.build(language_model.transformers_config())
    draw(built)
    assert isinstance(built, CausalHead)
    evaluating: CausalHead = built.eval()
    return evaluating


def published(tied: bool) -> transformers.Qwen2VLForConditionalGeneration:
    vision = {"depth": 1, "embed_dim": 16, "num_heads": 2, "hidden_size": 32}
    text = NUMBERS | {"rope_parameters": ROPE}
    tokens = {"image_token_id": 90, "video_token_id": 91, "vision_start_token_id": 92, "vision_end_token_id": 93}
    config = transformers.Qwen2VLConfig(vision_config=vision, text_config=text, tie_word_embeddings=tied, **tokens)
    model = transformers.Qwen2VLForConditionalGeneration(config).eval()
    draw(model)
    return model


@pytest.mark.parametrize("tied", [True, False])
def test_it_is_the_text_half_of_the_published_model(tied: bool) -> None:
    theirs, ours = published(tied), made(spec(tie_word_embeddings=tied))
    halves = theirs.model.language_model.state_dict()
    weights = {f"model.{name}": value for name, value in halves.items()} | {"lm_head.weight": theirs.lm_head.weight}
    ours.load_state_dict(weights)
    assert (ours.get_output_embeddings().weight is ours.get_input_embeddings().weight) is tied
    assert sum(parameter.numel() for parameter in ours.parameters()) == sum(
        parameter.numel() for name, parameter in theirs.named_parameters() if ".visual." not in name
    )
    with torch.no_grad():
        expected = theirs(input_ids=IDS, position_ids=POSITIONS).logits
        found = ours(input_ids=IDS, position_ids=POSITIONS).logits
    assert torch.equal(found, expected)
    with torch.no_grad():
        plain = ours(input_ids=IDS, position_ids=torch.arange(5).expand(2, 5)).logits
    assert apart(plain, found) > 1e-2, "rows and columns turn"


def test_logits_are_those_of_the_tokens_that_are_asked_for() -> None:
    model = made(spec())
    with torch.no_grad():
        every = model(IDS).logits
        assert apart(model(IDS, logits_to_keep=1).logits, every[:, -1:]) < 1e-6  # measured 2e-7
        assert apart(model(IDS, logits_to_keep=torch.tensor([0, 3])).logits, every[:, [0, 3]]) < 1e-6
    assert torch.equal(model(IDS, return_dict=False)[0], every)


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_a_cache_is_taken_by_either_name_and_answers_are_the_uncached_ones(name: str) -> None:
    model = made(spec())
    with torch.no_grad():
        every = model(IDS, position_ids=POSITIONS).logits
        begun = model(IDS[:, :3], position_ids=POSITIONS[..., :3], use_cache=True)
        went_on = model(IDS[:, 3:], position_ids=POSITIONS[..., 3:], **{name: begun[CACHE]}).logits
    assert apart(went_on, every[:, 3:]) < 1e-5  # measured 1e-6
    options: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False}
    assert torch.equal(model.generate(IDS, **options), model.generate(IDS, **options, use_cache=False))


def test_it_is_saved_loaded_resized_and_recomputed_like_any_other(tmp_path: Path) -> None:
    language_model = spec(tie_word_embeddings=True)
    model = made(language_model)
    model.save_pretrained(tmp_path)
    again = CausalHead.from_pretrained(tmp_path, config=language_model.transformers_config())
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert again.get_output_embeddings().weight is again.get_input_embeddings().weight

    def gradient(recomputes: bool) -> Tensor:
        learning = made(language_model).train()
        if recomputes:
            recompute(learning)
        learning(IDS, position_ids=POSITIONS, use_cache=False).logits.square().mean().backward()
        found: Tensor | None = learning.model.layers[0].mlp.up_proj.weight.grad
        assert found is not None
        return found

    assert apart(gradient(True), gradient(False)) == 0.0
    model.set_attn_implementation("eager")
    assert model.model.config._attn_implementation == "eager"
    with torch.no_grad():
        assert apart(model(IDS).logits, again(IDS).logits) < 1e-5  # measured 1e-6
    model.resize_token_embeddings(120, mean_resizing=False)
    assert model(IDS).logits.shape == (2, 5, 120)


def test_which_models_get_a_head_is_asked_of_what_they_take() -> None:
    """Text alone, a cache, positions. One that has a head already, or reads pictures, or encodes, is none of them."""
    found = {}
    for model_type in ("qwen2_vl_text", "qwen2_5_vl_text", "mllama_text_model", "qwen2_vl", "clip_text_model", "siglip", "t5", "funnel"):
        cls = text_model_class(transformers.AutoConfig.for_model(model_type))
        found[model_type] = None if cls is None else cls.__name__
    assert found == {
        "qwen2_vl_text": "Qwen2VLTextModel",
        "qwen2_5_vl_text": "Qwen2_5_VLTextModel",
        "mllama_text_model": "MllamaTextModel",
        **dict.fromkeys(("qwen2_vl", "clip_text_model", "siglip", "t5", "funnel")),
    }


def test_a_config_says_whether_a_token_has_three_positions() -> None:
    assert spec().positions == "three"
    assert (
        LanguageModel(model_type="qwen2_vl_text", config=Settings(rope_scaling={"type": "mrope", "mrope_section": [1, 1, 2]})).positions
        == "three"
    )
    assert LanguageModel(model_type="qwen2_vl_text", config=Settings()).positions == "plain"
    assert LanguageModel(model_type="llama", config=Settings(rope_theta=5.0, rope_scaling=None)).positions == "plain"
    read = LanguageModel.from_config(transformers.Qwen2VLTextConfig(rope_scaling={"type": "mrope", "mrope_section": [16, 24, 24]}))
    assert read.positions == "three"
