"""transformers' Trainer and pipelines take a vlmkit model as one of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import Trainer, TrainingArguments, pipeline

import vlmkit
from tests.batch.test_batch import TINY, named
from tests.counted import TINY_MODELS
from tests.tiny import CONVERSATIONS, draw, picture, shared, user
from vlmkit.layout.laid_out import LayoutError

QUESTIONS = ["what?", "and what is it that stands there?", "which?"]
OPTIONS = {"max_new_tokens": 4, "do_sample": False}


def asked() -> list[list[dict[str, Any]]]:
    return [[user(Image.fromarray(picture(56, 84, number)), words)] for number, words in enumerate(QUESTIONS)]


@pytest.mark.parametrize("name", TINY)
def test_a_pipeline_answers_two_at_a_time_as_one_by_one(name: str) -> None:
    built, processor = named(name)
    processor.tokenizer.pad_token_id = processor.pad_token_id
    ask = pipeline("image-text-to-text", model=built, processor=processor)
    one, two = (ask(text=asked(), batch_size=size, return_full_text=False, generate_kwargs=OPTIONS) for size in (1, 2))
    texts = [[said["generated_text"] for (said,) in found] for found in (one, two)]
    assert texts[0] == texts[1]
    assert len(texts[0]) == 3
    for words, question in zip(texts[0], asked(), strict=True):
        batch = processor([question])
        ids = built.generate(**batch, **OPTIONS, pad_token_id=processor.pad_token_id)[0, batch["input_ids"].shape[1] :]
        assert words == processor.decode(ids, skip_special_tokens=True)


def test_so_many_models_answer() -> None:
    assert len(TINY) == TINY_MODELS


@pytest.mark.parametrize("name", TINY)
def test_a_collator_of_templates_and_images_trains_it(name: str) -> None:
    """As transformers' examples have it: the images stand beside the messages, which hold their places, and go in with the string."""
    built, processor = vlmkit.build(name, seed=0), vlmkit.build_processor(name)
    draw(built)
    said = {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]}
    placed = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}, said]
    pictures = [Image.fromarray(picture(56, 84, number)) for number in range(2)]
    texts = [processor.apply_chat_template(placed, tokenize=False) for _ in pictures]
    batch = processor(text=texts, images=[[image] for image in pictures], return_tensors="pt", padding=True, trusted=True)
    named_within = [
        [{"role": "user", "content": [placed[0]["content"][0] | {"image": image}, placed[0]["content"][1]]}, said] for image in pictures
    ]
    assert texts == processor.apply_chat_template(named_within, tokenize=False)
    labels = batch["input_ids"].clone()
    assert built.config.image_token_id == processor.image_token_id
    labels[(labels == processor.tokenizer.pad_token_id) | (labels == processor.image_token_id)] = -100
    optimizer = torch.optim.AdamW(built.parameters(), lr=1e-2)
    losses = []
    for _ in range(3):
        loss = built.train()(**batch, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    with pytest.raises(LayoutError, match=r"got \{'type': 'image'\}"):
        processor([placed])


def test_the_loss_falls_under_trainer_and_continues_from_its_checkpoint(tmp_path: Path) -> None:
    arch = shared()[1].spec
    model, processor = vlmkit.build(arch, seed=0), vlmkit.build_processor(arch)
    draw(model)
    told = {"per_device_train_batch_size": 2, "logging_steps": 1, "learning_rate": 1e-2, "lr_scheduler_type": "constant"}
    told |= {"output_dir": str(tmp_path), "report_to": [], "use_cpu": True, "remove_unused_columns": False, "disable_tqdm": True}

    def trainer(steps: int) -> Trainer:
        arguments = TrainingArguments(max_steps=steps, save_steps=5, eval_strategy="steps", eval_steps=5, **told)
        return Trainer(
            model,
            arguments,
            data_collator=processor,
            train_dataset=CONVERSATIONS,
            eval_dataset=CONVERSATIONS[:2],
            processing_class=processor,
        )

    first = trainer(5)
    first.train()
    losses = [row["loss"] for row in first.state.log_history if "loss" in row]
    assert len(losses) == 5
    assert losses[-1] < losses[0] - 0.5
    assert any("eval_loss" in row for row in first.state.log_history)
    again = trainer(6)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert again.state.global_step == 6
    loaded, _ = vlmkit.load(tmp_path / "checkpoint-6")
    assert loaded.config.architecture == model.config.architecture
