"""Every decoder inside of a published directory: logits are those of the class that published it, read in and written out.

transformers' classes hold a decoder without its head and put a linear layer beside it. What the decoder's own causal class does there
(a bias, a scale, a cap) is not in these numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from families import idefics3, llava, llava_next
from families.system import Conversation, Reference, user
from families.tiny import LANGUAGE, draw, picture
from torch import Tensor

import vlmkit
from vlmkit.causal_head import CausalHead
from vlmkit.checkpoints import export
from vlmkit.checkpoints.decoder import OWN_HEAD
from vlmkit.language_model import LanguageModel
from vlmkit.model import VLM
from vlmkit.processor import VLMProcessor
from vlmkit.spec import SpecError

MIXED = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT = {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8, "num_key_value_heads": 4}
UNTIED = {"tie_word_embeddings": False}
"""For decoders whose embeddings have a name of their own: transformers' classes cannot tie them."""

DECODERS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {},
    "ministral3": {},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "gemma": {"head_dim": 8},
    "gemma2": {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 8},
    "gemma3_text": {"head_dim": 8, "query_pre_attn_scalar": 8},
    "phi": {"num_key_value_heads": 4},
    "phi3": {},
    "gpt2": UNTIED,
    "gpt_neox": {},
    "gptj": {"rotary_dim": 4},
    "codegen": {"rotary_dim": 4},
    "gpt_bigcode": UNTIED,
    "opt": {"word_embed_proj_dim": 32, "ffn_dim": 64} | UNTIED,
    "falcon": UNTIED,
    "biogpt": {},
    "olmo": {},
    "olmo2": {},
    "olmo3": {},
    "cohere": {},
    "cohere2": {},
    "granite": {"logits_scaling": 8.0, "embedding_multiplier": 12.0, "residual_multiplier": 0.22, "attention_multiplier": 0.5},
    "stablelm": {},
    "starcoder2": {},
    "smollm3": {},
    "glm4": {"head_dim": 8},
    "exaone4": {},
    "helium": {"head_dim": 8},
    "nemotron": {},
    "nanochat": {},
    "persimmon": {},
    "llama4_text": {"head_dim": 8, "num_local_experts": 2, "intermediate_size_mlp": 64},
    "mixtral": {"num_local_experts": 4},
    "qwen2_moe": {"num_experts": 4, "shared_expert_intermediate_size": 16} | MIXED,
    "deepseek_v3": {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "n_shared_experts": 1, "first_k_dense_replace": 1}
    | MIXED
    | LATENT,
}
NOT_PLAIN = {"phi", "gptj", "codegen", "cohere", "cohere2", "granite", "gemma2", "nanochat"}
"""Those whose own class does more behind the decoder."""

CLASSES: dict[str, Callable[[Any], Reference]] = {
    "llava": lambda text: llava.reference(text, do_pad=True),
    "llava_next": llava_next.reference,
    "idefics3": idefics3.idefics3,
}
CASES = [
    *(("llava", name) for name in DECODERS),
    *((family, name) for family in ("llava_next", "idefics3") for name in ("gemma2", "phi", "gpt_neox", "granite")),
]


def text_config(name: str, **changes: Any) -> Any:
    return transformers.AutoConfig.for_model(name, **LANGUAGE | DECODERS.get(name, UNTIED) | changes)


def question(seed: int = 0) -> Conversation:
    return [user("What is this?", picture(40, 52, seed))]


def logits_of(model: Any, inputs: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(**inputs).logits[0]
    return found


def ours(model: VLM, processor: VLMProcessor, reference: Reference, inputs: dict[str, Tensor]) -> Tensor:
    """vlmkit's logits of the question, over the reference's own pixels."""
    batch = processor([question()], add_generation_prompt=True)
    assert batch["input_ids"].tolist() == inputs["input_ids"].tolist()
    batch["pixel_values"] = reference.patches(inputs, model.config.spec.encoder)
    return logits_of(model, batch)


def read_again(cls: Any, directory: Path) -> Any:
    """The model of a directory that lacks nothing and holds nothing else."""
    model, report = cls.from_pretrained(directory, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


@pytest.mark.filterwarnings("ignore:.*leaves out:UserWarning")
@pytest.mark.parametrize(("family", "name"), CASES)
def test_logits_are_the_published_classs_read_in_and_written_out(family: str, name: str, tmp_path: Path) -> None:
    reference = CLASSES[family](text_config(name))
    inputs = reference.inputs(reference.processor, question())
    expected = logits_of(reference.model, inputs)
    other = logits_of(reference.model, reference.inputs(reference.processor, question(seed=9)))
    assert float((expected - other).abs().max()) > 1e-2, "the image moves them, or the test tells nothing"
    model, processor = reference.taken_over(tmp_path / "published")
    assert model.config.spec.language_model.plain_head is (name in NOT_PLAIN)
    assert float((ours(model, processor, reference, inputs) - expected).abs().max()) <= 1e-5  # measured 0
    export(model, processor, tmp_path / "exported")
    again = read_again(type(reference.model), tmp_path / "exported")
    assert torch.equal(logits_of(again, inputs), expected)


BOOKKEEPING = {"model_type", "transformers_version", "architectures", "_name_or_path", "dtype", "vocab_size"} | {
    "id2label",
    "label2id",
    "problem_type",
    "chunk_size_feed_forward",
    "return_dict",
}
"""Fields that say nothing of a decoder, one with which the class itself fails, and the one that the tokenizer decides."""


def changed(field: str, value: Any) -> Any:
    """Another value of a field of Llama's config that its class takes; None where there is none."""
    known = {"hidden_act": "relu", "head_dim": 16, "num_attention_heads": 2, "num_key_value_heads": 1, "hidden_size": 64}
    rope = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    if field in known or field == "rope_parameters":
        return known.get(field, {"rope_theta": 123.0} | rope)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1 if field.endswith("_id") else value * 2
    return value * 2 + 0.1 if isinstance(value, float) else None


@pytest.mark.parametrize("field", [field for field in text_config("llama").to_dict() if field not in BOOKKEEPING])
def test_every_field_of_a_decoders_config_is_honoured(field: str, tmp_path: Path) -> None:
    value = changed(field, getattr(text_config("llama"), field))
    reference = CLASSES["llava"](text_config("llama", **{} if value is None else {field: value}))
    inputs = reference.inputs(reference.processor, question())
    model, processor = reference.taken_over(tmp_path)
    assert float((ours(model, processor, reference, inputs) - logits_of(reference.model, inputs)).abs().max()) <= 1e-5  # measured 0


@pytest.mark.parametrize("name", ["bloom", "mpt", "mamba"])
def test_a_decoder_that_takes_no_positions_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=f"'{name}' takes no position_ids, .* such as 'llama'"):
        CLASSES["llava"](text_config(name)).taken_over(tmp_path)


def test_a_decoder_whose_tokens_see_later_ones_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="use_bidirectional_attention: with True every token of 'gemma3_text' sees those behind it"):
        CLASSES["llava"](text_config("gemma3_text", use_bidirectional_attention=True)).taken_over(tmp_path)


def with_decoder(name: str, **changes: Any) -> tuple[VLM, VLMProcessor]:
    """llava-1.5-tiny over another decoder, with drawn weights."""
    text = LanguageModel.from_config(text_config(name, **changes), tokenizer="bytes")
    spec = vlmkit.architecture("llava-1.5-tiny").replace(language_model=text)
    return draw(vlmkit.build(spec)), vlmkit.build_processor(spec)


def test_a_scale_of_logits_is_left_out_with_a_word_and_comes_back(tmp_path: Path) -> None:
    """Maya and Granite Vision are trained with it, and transformers' class does not have it."""
    model, processor = with_decoder("granite")
    with pytest.warns(UserWarning, match="LlavaForConditionalGeneration leaves out what GraniteForCausalLM does behind its decoder"):
        export(model, processor, tmp_path)
    batch = processor([question()], add_generation_prompt=True)
    again, _ = vlmkit.load(tmp_path)
    assert not again.config.spec.language_model.plain_head
    assert torch.equal(logits_of(again, batch), logits_of(model, batch))
    reference = read_again(transformers.LlavaForConditionalGeneration, tmp_path)
    assert getattr(reference.config, OWN_HEAD)
    reference.save_pretrained(tmp_path / "twice")
    assert getattr(transformers.AutoConfig.from_pretrained(tmp_path / "twice"), OWN_HEAD), "transformers keeps the mark"
    setattr(reference.config, OWN_HEAD, False)
    reference.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="logits are those of the published class"):
        plain, _ = vlmkit.load(tmp_path)
    assert float((logits_of(plain, batch) - 8 * logits_of(model, batch)).abs().max()) < 1e-4  # measured 0


@pytest.mark.parametrize("name", ["phi", "gptj"])
def test_a_bias_of_the_head_has_no_place_and_the_refusal_says_the_way_out(name: str, tmp_path: Path) -> None:
    model, processor = with_decoder(name)
    with pytest.raises(
        SpecError, match=rf"has one linear layer without bias .* '{name}' has language_model.lm_head.bias; .* plain_head=True"
    ):
        export(model, processor, tmp_path / "biased")
    assert not (tmp_path / "biased").exists()
    spec = model.config.spec
    plain = draw(vlmkit.build(spec.replace(language_model=spec.language_model.replace(plain_head=True))))
    with warnings.catch_warnings(action="error", category=UserWarning):
        export(plain, processor, tmp_path / "plain")
    read_again(transformers.LlavaForConditionalGeneration, tmp_path / "plain")


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "gemma2"])
def test_a_plain_head_is_built_saved_and_tied_over_any_decoder(name: str, tmp_path: Path) -> None:
    text = LanguageModel.from_config(text_config(name, tie_word_embeddings=True), tokenizer="bytes", plain_head=True)
    assert LanguageModel.from_dict(text.to_dict()) == text
    assert "plain_head" not in text.replace(plain_head=False).to_dict(), "what is older stays as it was written"
    model = draw(vlmkit.build(vlmkit.architecture("llava-1.5-tiny").replace(language_model=text)))
    assert isinstance(model.language_model, CausalHead)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    model.save_pretrained(tmp_path)
    again = VLM.from_pretrained(tmp_path)
    assert again.get_output_embeddings().weight is again.get_input_embeddings().weight
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["gemma2", "phi", "opt", "cohere2"])
def test_a_plain_head_answers_packed_batched_and_cached_as_alone(name: str) -> None:
    text = LanguageModel.from_config(text_config(name), tokenizer="bytes", plain_head=True)
    spec = vlmkit.architecture("llava-1.5-tiny").replace(language_model=text)
    model, processor = draw(vlmkit.build(spec)), vlmkit.build_processor(spec)
    rows = [question(), [user("And this?", picture(30, 60, 5))]]
    first, second = (logits_of(model, processor([row])) for row in rows)
    packed = logits_of(model, processor(rows, pack=True))
    assert float((packed - torch.cat([first, second])).abs().max()) < 1e-5  # measured 2e-6
    with torch.no_grad():
        batched = model(**processor(rows)).logits[1]
    assert float((batched[-len(second) :] - second).abs().max()) < 1e-5  # measured 2e-6
    asked = processor(rows[:1], add_generation_prompt=True)
    options = {"max_new_tokens": 6, "do_sample": False}
    assert torch.equal(model.generate(**asked, **options), model.generate(**asked, **options, use_cache=False))


def test_a_plain_head_needs_a_decoder_without_one() -> None:
    text = LanguageModel.from_config(text_config("bloom"), plain_head=True)
    with pytest.raises(SpecError, match="'bloom' takes no position_ids"):
        text.build(text.transformers_config())
