"""PEFT over a vlmkit model: what it adds learns, is saved and loaded, merged, combined and taken off again."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

import vlmkit
from tests.batch.test_batch import named
from tests.counted import TINY_MODELS
from tests.tiny import CONVERSATIONS, apart
from vlmkit.fusion.incoming import FusionError
from vlmkit.model import VLM

TINY = vlmkit.list_models("*-tiny")
SHOWN = ("univa-vl-tiny", "qwen2-vl-tiny", "nvlm-x-tiny")
"""open_clip's attention, three positions, cross-attention: what every run walks; the others are habits."""
NAMES = [name if name in SHOWN else pytest.param(name, marks=pytest.mark.habits) for name in TINY]
EVERYWHERE = {"r": 2, "target_modules": "all-linear"}
METHODS: dict[str, Any] = {
    "LoRA": lambda: peft.LoraConfig(**EVERYWHERE),
    "DoRA": lambda: peft.LoraConfig(**EVERYWHERE, use_dora=True),
    "PiSSA": lambda: peft.LoraConfig(**EVERYWHERE, init_lora_weights="pissa"),
    "OLoRA": lambda: peft.LoraConfig(**EVERYWHERE, init_lora_weights="olora"),
    "IA3": lambda: peft.IA3Config(target_modules="all-linear", feedforward_modules=[]),
}


def test_so_many_models_are_adapted() -> None:
    assert len(TINY) == TINY_MODELS
    assert set(SHOWN) < set(TINY)


def trained(adapted: Any, made: VLM, batch: Any, steps: int = 3) -> list[float]:
    """Losses of some steps, after which every weight that may learn has had a gradient, but in blocks that a tower leaves unused."""
    unused = {id(module) for tower in made.towers for part in tower.unused() for module in part.modules()}
    silent = tuple(name for name, module in adapted.named_modules() if id(module) in unused)
    learning = {name: weight for name, weight in adapted.named_parameters() if weight.requires_grad}
    optimizer = torch.optim.AdamW(learning.values(), lr=1e-2)
    losses = []
    adapted.train()
    for _ in range(steps):
        loss = adapted(**batch).loss
        loss.backward()
        dead = {name for name, weight in learning.items() if weight.grad is None and not name.startswith(silent)}
        assert dead == set()
        losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    adapted.eval()
    assert len(learning) >= 9
    return losses


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NAMES)
def test_every_method_starts_as_the_model_learns_and_is_merged(name: str, method: str, tmp_path: Path) -> None:
    """Measured over all models: the start 2e-4, after merging 2e-3 of logits of about 10, both at most."""
    made, processor = named(name)
    batch = processor(CONVERSATIONS)
    with torch.no_grad():
        before = made(**batch).logits
    base = copy.deepcopy(made)
    adapted = peft.get_peft_model(base, METHODS[method]()).eval()
    with torch.no_grad():
        assert apart(adapted(**batch).logits, before) < 5e-4
    losses = trained(adapted, base, batch)
    assert losses[-1] < losses[0]
    with torch.no_grad():
        after = adapted(**batch).logits
        assert apart(after, before) > 1e-3
        merged = adapted.merge_and_unload()
        assert apart(merged(**batch).logits, after) < 5e-3
        assert type(merged) is VLM
        merged.save_pretrained(tmp_path)
        processor.save_pretrained(tmp_path)
        assert torch.equal(vlmkit.load(tmp_path)[0](**batch).logits, merged(**batch).logits)


@pytest.mark.parametrize("name", NAMES)
def test_adapters_are_saved_loaded_combined_and_taken_off(name: str, tmp_path: Path) -> None:
    made, processor = named(name)
    batch = processor(CONVERSATIONS)
    some = {"r": 2, "target_modules": r".*language_model\..*(q_proj|v_proj|query_key_value|c_attn|self_attn.dense)"}
    base = copy.deepcopy(made)
    adapted = peft.get_peft_model(base, peft.LoraConfig(**some, modules_to_save=["connector"]))
    trained(adapted, base, batch, 1)
    adapted.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(copy.deepcopy(made), tmp_path).eval()
    with torch.no_grad():
        assert apart(again(**batch).logits, adapted(**batch).logits) < 1e-5
        adapted = peft.get_peft_model(copy.deepcopy(made), peft.LoraConfig(**some, init_lora_weights=False))
        adapted.add_adapter("second", peft.LoraConfig(**some, init_lora_weights=False))
        one = adapted.eval()(**batch).logits
        adapted.add_weighted_adapter(["default", "second"], [0.5, 0.5], "both", combination_type="linear")
        adapted.set_adapter("both")
        assert apart(adapted(**batch).logits, one) > 1e-4
        with adapted.disable_adapter():
            assert torch.equal(adapted(**batch).logits, made(**batch).logits)
        assert torch.equal(adapted.unload()(**batch).logits, made(**batch).logits)


@pytest.mark.parametrize("name", ["llava-1.5-tiny", *SHOWN])
def test_prefix_tuning_learns_and_sees_the_image(name: str) -> None:
    """Layers and widths are read from `config.to_dict()["text_config"]`, where PEFT looks for them."""
    made, processor = named(name)
    adapted = peft.get_peft_model(copy.deepcopy(made), peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
    batch = processor(CONVERSATIONS[:1])
    learning = [weight for weight in adapted.parameters() if weight.requires_grad]
    adapted.train()(**batch).loss.backward()
    assert learning
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in learning)
    adapted.eval()
    with torch.no_grad():
        blank = batch | {"pixel_values": torch.zeros_like(batch["pixel_values"])}
        assert apart(adapted(**blank).logits, adapted(**batch).logits) > 1e-3


@pytest.mark.parametrize("name", ["llava-1.5-tiny", "smolvlm-tiny", "nvlm-x-tiny"])
def test_prompts_before_the_prompt_are_refused(name: str) -> None:
    """PEFT's prompt tuning makes rows longer and leaves what is said of their tokens as it was."""
    made, processor = named(name)
    adapted = peft.get_peft_model(copy.deepcopy(made), peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
    batch = processor(CONVERSATIONS[:1])
    length = batch["input_ids"].shape[1]
    with pytest.raises(FusionError, match=rf"inputs_embeds have {length + 4} columns and \w+ {length}: .* LoRA leaves all where it is"):
        adapted(**batch)


@pytest.mark.parametrize("task", [None, "CAUSAL_LM"])
def test_peft_loads_a_model_and_its_adapters_by_one_name(task: str | None, tmp_path: Path) -> None:
    """Without a task PEFT asks whether it may import the model's own module."""
    made, processor = named("llava-1.5-tiny")
    made.save_pretrained(tmp_path / "base")
    lora = peft.LoraConfig(**EVERYWHERE, init_lora_weights=False, task_type=task)
    adapted = peft.get_peft_model(VLM.from_pretrained(tmp_path / "base"), lora).eval()
    adapted.save_pretrained(tmp_path / "adapters")
    batch = processor(CONVERSATIONS)
    with torch.no_grad():
        if task is None:
            again = peft.AutoPeftModel.from_pretrained(tmp_path / "adapters", import_allowlist=["vlmkit.model"])
        else:
            again = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapters")
        assert apart(again(**batch).logits, adapted(**batch).logits) < 1e-5
