"""TRL trains a vlmkit model as it trains those of transformers: SFT on messages and on answers, DPO and GRPO, five steps each."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import vlmkit
from tests.counted import TINY_MODELS
from tests.tiny import draw, picture
from vlmkit.model import VLM
from vlmkit.processor import VLMProcessor

pytest.importorskip("trl", reason="the extra `trl`")

TINY = vlmkit.list_models("*-tiny")
SHOWN = ["llava-1.5-tiny", "qwen2-vl-tiny", "smolvlm-tiny", "llava-1.6-tiny"]
"""A row of tokens; three positions; tiles; learned line breaks and tokens that are left out."""
QUESTION = [{"role": "user", "content": "What is it?"}]
ANSWER = [{"role": "assistant", "content": "A cat."}]
OTHER = [{"role": "assistant", "content": "A dog."}]


def made(name: str) -> tuple[VLM, VLMProcessor]:
    arch = vlmkit.architecture(name)
    built = vlmkit.build(arch, seed=0)
    draw(built)
    return built, vlmkit.build_processor(arch)


def rows(**columns: Any) -> Any:
    from datasets import Dataset

    images = [Image.fromarray(picture(56, 84, number)) for number in range(4)]
    return Dataset.from_list([{"images": [image], **columns} for image in images])


def options(where: Path, **more: Any) -> dict[str, Any]:
    told = {"max_steps": 5, "per_device_train_batch_size": 2, "logging_steps": 1, "learning_rate": 1e-2, "lr_scheduler_type": "constant"}
    told |= {"output_dir": str(where), "report_to": [], "save_strategy": "no", "use_cpu": True, "disable_tqdm": True, "bf16": False}
    return told | more


def logged(trainer: Any, what: str = "loss") -> list[float]:
    trainer.train()
    return [float(row[what]) for row in trainer.state.log_history if what in row]


def sft(name: str, where: Path, **columns: Any) -> list[float]:
    from trl import SFTConfig, SFTTrainer

    model, processor = made(name)
    processor.trusts_text = "prompt" in columns
    before = {key: value.clone() for key, value in model.state_dict().items()}
    arguments = SFTConfig(max_length=None, **options(where))
    found = logged(SFTTrainer(model=model, args=arguments, train_dataset=rows(**columns), processing_class=processor))
    moved = {key.split(".")[0] for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert {"connector", "language_model"} <= moved or not any(model.connector.parameters())
    return found


@pytest.mark.parametrize("name", SHOWN)
def test_the_loss_falls_on_messages_with_images(name: str, tmp_path: Path) -> None:
    losses = sft(name, tmp_path, messages=QUESTION + ANSWER)
    assert len(losses) == 5
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.parametrize("name", ["llava-1.5-tiny", "paligemma-tiny"])
def test_the_loss_falls_on_answers_alone(name: str, tmp_path: Path) -> None:
    losses = sft(name, tmp_path, prompt=QUESTION, completion=ANSWER)
    assert len(losses) == 5
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.habits
@pytest.mark.parametrize("name", TINY)
def test_the_loss_falls_for_every_named_model(name: str, tmp_path: Path) -> None:
    for columns in ({"messages": QUESTION + ANSWER}, {"prompt": QUESTION, "completion": ANSWER}):
        losses = sft(name, tmp_path, **columns)
        assert losses[-1] < losses[0] - 0.2, columns  # Maya's logits are scaled by 1/16: 0.25; the others 1.9 and more
    assert dpo(name, tmp_path)[-1] < 0.69


def dpo(name: str, where: Path, what: str = "loss", **columns: Any) -> list[float]:
    from trl import DPOConfig, DPOTrainer

    model, processor = made(name)
    processor.trusts_text = True
    arguments = DPOConfig(max_length=None, **options(where))
    data = rows(**({"prompt": QUESTION, "chosen": ANSWER, "rejected": OTHER} | columns))
    trainer = DPOTrainer(model=model, ref_model=copy.deepcopy(model), args=arguments, train_dataset=data, processing_class=processor)
    return logged(trainer, what)


def test_dpo_prefers_what_was_chosen(tmp_path: Path) -> None:
    losses = dpo("llava-1.5-tiny", tmp_path)
    assert losses[0] == pytest.approx(0.6931, abs=1e-3)
    assert losses[-1] < 0.5


def test_minimal_edits_are_preferred_as_omnivlm_was_tuned(tmp_path: Path) -> None:
    """A teacher corrects one word of what the model said (arXiv:2412.11475): what is chosen differs from what is rejected there alone."""
    said, corrected = "There are three cups and a spoon on the table.", "There are three cups and a knife on the table."
    pair = {"chosen": [{"role": "assistant", "content": corrected}], "rejected": [{"role": "assistant", "content": said}]}
    margins = dpo("omnivlm-tiny", tmp_path, "rewards/margins", **pair)
    assert margins[0] == pytest.approx(0, abs=1e-3)
    assert margins[-1] > 0.5


def test_so_many_models_are_trained() -> None:
    assert len(TINY) == TINY_MODELS


def test_adapters_are_trained_and_the_reference_is_the_model_without_them(tmp_path: Path) -> None:
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer

    model, processor = made("llava-1.5-tiny")
    processor.trusts_text = True
    lora = LoraConfig(r=4, target_modules=r"language_model\..*(q|v)_proj", modules_to_save=["connector"])
    data = rows(prompt=QUESTION, chosen=ANSWER, rejected=OTHER)
    arguments = DPOConfig(max_length=None, **options(tmp_path))
    trainer = DPOTrainer(model=model, args=arguments, train_dataset=data, processing_class=processor, peft_config=lora)
    assert logged(trainer)[-1] < 0.5
    trainer.save_model(str(tmp_path / "adapters"))
    assert (tmp_path / "adapters" / "adapter_model.safetensors").is_file()


UNTAKEN = {"idefics2-split-tiny": "split_sizes", "llama-3.2-vision-tiny": "places", "molmo-tiny": "places", "nvlm-h-tiny": "tags"}
"""Models that TRL's GRPO does not take, and a word of its reason: it cuts pixels by one grid an image, and knows no entry of where tiles
lie, or of the tags of views."""


def test_grpo_is_rewarded_more(tmp_path: Path) -> None:
    """Two prompts a step, several answers to each: TRL generates, shuffles, cuts and scores the batch by itself."""
    first, *later = grpo("llava-1.5-tiny", tmp_path)
    assert later
    assert max(later) > first


@pytest.mark.habits
@pytest.mark.parametrize("name", TINY)
def test_grpo_takes_every_named_model_with_one_grid_an_image(name: str, tmp_path: Path) -> None:
    if name in UNTAKEN:
        with pytest.raises((RuntimeError, TypeError), match=UNTAKEN[name]):
            grpo(name, tmp_path)
    else:
        assert len(grpo(name, tmp_path)) == 3


def grpo(name: str, where: Path) -> list[float]:
    from trl import GRPOConfig, GRPOTrainer

    model, processor = made(name)
    processor.trusts_text = True

    def few_letters(completions: list[Any], **unused: Any) -> list[float]:
        """Of an answer: how little of it is letters of the first half of the alphabet."""
        texts = [completion[0]["content"] for completion in completions]
        return [-sum("a" <= letter <= "m" for letter in text) for text in texts]

    told = options(where, per_device_train_batch_size=8)
    arguments = GRPOConfig(**told, num_generations=4, max_completion_length=8, steps_per_generation=2)
    trainer = GRPOTrainer(
        model=model, reward_funcs=few_letters, args=arguments, train_dataset=rows(prompt=QUESTION), processing_class=processor
    )
    return logged(trainer, "reward")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("saved")
    for each in made("llava-1.5-tiny"):
        each.save_pretrained(where)
    return where


def test_a_directory_is_trained_by_its_name_and_read_again_as_the_reference(directory: Path, tmp_path: Path) -> None:
    """DPO without `ref_model` and GRPO with `beta` load the model again from where it came from."""
    from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

    processor = vlmkit.build_processor(directory)
    processor.trusts_text = True
    told = options(tmp_path)
    data = rows(messages=QUESTION + ANSWER)
    losses = logged(SFTTrainer(str(directory), SFTConfig(max_length=None, **told), train_dataset=data, processing_class=processor))
    assert losses[-1] < losses[0] - 0.5
    model = VLM.from_pretrained(directory)
    preferred = rows(prompt=QUESTION, chosen=ANSWER, rejected=OTHER)
    losses = logged(DPOTrainer(model, args=DPOConfig(max_length=None, **told), train_dataset=preferred, processing_class=processor))
    assert losses[0] == pytest.approx(0.6931, abs=1e-3)
    assert losses[-1] < 0.5
    few = GRPOConfig(**told | {"max_steps": 1}, beta=0.1, num_generations=2, max_completion_length=4)
    reward = [lambda completions, **unused: [-float(len(said[0]["content"])) for said in completions]]
    trainer = GRPOTrainer(VLM.from_pretrained(directory), reward, few, train_dataset=rows(prompt=QUESTION), processing_class=processor)
    assert type(trainer.ref_model) is VLM
    assert len(logged(trainer, "reward")) == 1
