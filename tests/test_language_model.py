"""Language models by their own configs: rotary embeddings reach the layers they are meant for, Gemma's scale stays off images."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

import vlmkit
from tests.tiny import LANGUAGE_MODELS, apart, architecture, language_model, model, picture, user
from vlmkit.language_model import LanguageModel
from vlmkit.spec import Settings, SpecError

YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64, "beta_fast": 32.0, "beta_slow": 1.0}
DIM, THETA = 8, 10000.0


def plain_frequencies(theta: float = THETA) -> Tensor:
    return 1.0 / theta ** (torch.arange(0, DIM, 2, dtype=torch.float32) / DIM)


def yarn_frequencies() -> Tensor:
    """Peng et al. 2023 (arXiv:2309.00071): low frequencies are divided by the factor, high ones kept, a ramp between."""

    def dimension(rotations: float) -> float:
        return DIM * math.log(64 / (rotations * 2 * math.pi)) / (2 * math.log(THETA))

    low, high = max(math.floor(dimension(32.0)), 0), min(math.ceil(dimension(1.0)), DIM - 1)
    ramp = ((torch.arange(DIM // 2, dtype=torch.float32) - low) / max(high - low, 0.001)).clamp(0, 1)
    return plain_frequencies() / 8.0 * ramp + plain_frequencies() * (1 - ramp)


@pytest.mark.parametrize(
    "spelling",
    [
        {"rope_theta": THETA, "rope_scaling": YARN},
        {"rope_theta": THETA, "rope_scaling": {**{key: YARN[key] for key in YARN if key != "rope_type"}, "type": "yarn"}},
        {"rope_theta": THETA, "rope_parameters": YARN},
        {"rope_parameters": {**YARN, "rope_theta": THETA}},
        {
            "rope_parameters": {
                "full_attention": {**YARN, "rope_theta": THETA},
                "sliding_attention": {"rope_type": "default", "rope_theta": THETA},
            }
        },
    ],
    ids=["scaling", "old scaling", "flat with theta beside", "flat", "nested"],
)
def test_olmo3_yarn_acts_on_full_layers_only_and_theta_on_all_however_it_is_spelled(spelling: dict[str, Any]) -> None:
    plain = {name: value for name, value in LANGUAGE_MODELS["olmo3"].items() if not name.startswith("rope")}
    config = LanguageModel(model_type="olmo3", config=Settings(plain | spelling)).transformers_config()
    built = transformers.AutoModelForCausalLM.from_config(config)
    rotary = built.model.rotary_emb
    assert config.layer_types == ["sliding_attention"] * 3 + ["full_attention"]
    assert apart(rotary.full_attention_inv_freq, yarn_frequencies()) < 1e-7  # measured 0
    assert apart(rotary.sliding_attention_inv_freq, plain_frequencies()) < 1e-7
    assert apart(yarn_frequencies(), plain_frequencies()) > 1e-3, "the two differ, or the test tells nothing"
    position = torch.arange(20)[None]
    cos, sin = rotary(torch.zeros(1, 20, DIM), position, "full_attention")
    angles = torch.outer(torch.arange(20.0), yarn_frequencies()).repeat(1, 2)
    scale = 0.1 * math.log(8.0) + 1
    assert apart(cos[0], angles.cos() * scale) < 1e-5
    assert apart(sin[0], angles.sin() * scale) < 1e-5


def test_theta_alone_reaches_sliding_layers_too() -> None:
    """transformers itself gives it to the full layers and leaves the default of 500000 on the others."""
    for settings in ({"rope_theta": 123.0}, {"rope_parameters": {"rope_theta": 123.0}}):
        parameters = LanguageModel(model_type="olmo3", config=Settings(settings)).transformers_config().rope_parameters
        assert {name: value["rope_theta"] for name, value in parameters.items()} == {"full_attention": 123.0, "sliding_attention": 123.0}


def test_gemma3_keeps_the_theta_of_its_local_layers() -> None:
    settings = Settings(rope_theta=5.0, rope_scaling={"rope_type": "linear", "factor": 8.0})
    parameters = LanguageModel(model_type="gemma3_text", config=settings).transformers_config().rope_parameters
    assert parameters["full_attention"] == {"rope_type": "linear", "rope_theta": 5.0, "factor": 8.0}
    assert parameters["sliding_attention"] == {"rope_type": "default", "rope_theta": 10000.0}


@pytest.mark.parametrize("model_type", ["olmo3", "llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "mistral", "phi3", "gpt2"])
def test_a_transformers_config_is_described_exactly(model_type: str) -> None:
    config = transformers.AutoConfig.for_model(model_type)
    described = LanguageModel.from_config(config)
    assert described.transformers_config().to_dict() == config.to_dict()
    assert described.dim == config.hidden_size
    assert described.vocabulary == config.vocab_size


@pytest.mark.parametrize(
    ("model_type", "settings", "message"),
    [
        ("olmo33", {}, r"transformers has no 'olmo33'; did you mean 'olmo3'"),
        (
            "llama",
            {"hiden_size": 8},
            r"config\.hiden_size: unknown setting of 'llama', did you mean 'hidden_size'",
        ),
        (
            "llama",
            {"hidden_size": "8"},
            r"'llama' does not take these settings: .*expected int, got str",
        ),
        ("clip", {}, r"'clip' is no causal language model in transformers"),
        ("mamba", {"hidden_size": 8, "num_hidden_layers": 1}, r"'mamba' takes no position_ids, .* such as 'llama'"),
    ],
)
def test_what_is_no_language_model_is_refused_with_the_reason(model_type: str, settings: dict[str, Any], message: str) -> None:
    spec = LanguageModel(model_type=model_type, config=Settings(settings))
    with pytest.raises(SpecError, match=message), torch.device("meta"):
        spec.build(spec.transformers_config())


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_visual_tokens_enter_the_first_layer_as_the_connector_gives_them(name: str) -> None:
    """Gemma multiplies its text embeddings by sqrt(D_lm) inside the embedding, and transformers' PaliGemma since version 5
    puts image features beside them as they are. So does vlmkit, for every language model."""
    arch = architecture(language=name)
    built, processor = model(arch), vlmkit.build_processor(arch)
    batch = processor([[user("a", picture(), "b")]])
    entered: list[Tensor] = []
    built.language_model.model.layers[0].register_forward_pre_hook(
        lambda module, args, kwargs: entered.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
    )
    output = built(**batch)
    index = batch["visual_index"][0]
    assert torch.equal(entered[0][0, index >= 0], output.visual)
    text = built.language_model.model.embed_tokens.weight[batch["input_ids"][0, index < 0]]
    scale = 32**0.5 if name.startswith("gemma") else 1.0
    assert apart(entered[0][0, index < 0], text * scale) < 1e-6  # measured 0


def test_a_width_is_read_from_the_class_where_the_settings_are_silent() -> None:
    assert language_model("llama").dim == 32
    assert LanguageModel(model_type="llama", config=Settings()).dim == 4096
    with pytest.raises(SpecError, match=r"'clip' says nothing of 'hidden_size'"):
        _ = LanguageModel(model_type="clip", config=Settings()).dim
