"""What else people ask of transformers' Trainer and of accelerate: the best checkpoint, metrics, generation, recomputing, state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, Trainer, TrainingArguments

import vlmkit
from tests.batch.test_batch import named
from tests.counted import TINY_MODELS
from tests.tiny import CONVERSATIONS, draw
from vlmkit.model import VLM
from vlmkit.processor import VLMProcessor

TINY = vlmkit.list_models("*-tiny")
SHOWN = ("univa-vl-tiny", "nvlm-x-tiny")
NAMES = [name if name in SHOWN else pytest.param(name, marks=pytest.mark.habits) for name in TINY]
CPU = {"report_to": [], "use_cpu": True, "disable_tqdm": True, "remove_unused_columns": False, "logging_steps": 1, "learning_rate": 1e-2}


def fresh(name: str) -> tuple[VLM, VLMProcessor]:
    built = vlmkit.build(name, seed=0)
    draw(built)
    return built, vlmkit.build_processor(name)


def test_so_many_models_are_trained() -> None:
    assert len(TINY) == TINY_MODELS
    assert set(SHOWN) < set(TINY)


@pytest.mark.parametrize("name", NAMES)
def test_the_best_checkpoint_is_loaded_and_continued_with_activations_recomputed(name: str, tmp_path: Path) -> None:
    model, processor = fresh(name)
    rows = {"train_dataset": CONVERSATIONS, "eval_dataset": CONVERSATIONS[:2], "data_collator": processor, "processing_class": processor}
    told = CPU | {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "gradient_checkpointing": True, "save_total_limit": 2}
    told |= {"eval_strategy": "steps", "eval_steps": 1, "save_steps": 1, "load_best_model_at_end": True}
    first = Trainer(model, TrainingArguments(str(tmp_path), max_steps=3, **told), **rows)
    first.train()
    losses = [row["eval_loss"] for row in first.state.log_history if "eval_loss" in row]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    assert first.state.best_model_checkpoint is not None
    assert first.evaluate()["eval_loss"] == pytest.approx(min(losses), abs=1e-5)
    again = Trainer(model, TrainingArguments(str(tmp_path), max_steps=4, bf16=True, **told), **rows)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 4


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_scored_and_answers_generated_in_an_evaluation(name: str, tmp_path: Path) -> None:
    model, processor = fresh(name)
    rows = {"train_dataset": CONVERSATIONS, "eval_dataset": CONVERSATIONS[:3], "data_collator": processor}

    def right(said: Any) -> dict[str, float]:
        supervised = said.label_ids[:, 1:] != -100
        return {"right": float((said.predictions.argmax(-1)[:, :-1] == said.label_ids[:, 1:])[supervised].mean())}

    told = CPU | {"per_device_eval_batch_size": 1, "save_strategy": "no", "max_steps": 1, "auto_find_batch_size": True}
    trainer = Trainer(model, TrainingArguments(str(tmp_path), neftune_noise_alpha=5.0, **told), compute_metrics=right, **rows)
    trainer.train()
    assert 0 <= trainer.evaluate()["eval_right"] <= 1
    arguments = Seq2SeqTrainingArguments(str(tmp_path), predict_with_generate=True, generation_max_length=1024, **told)
    model.generation_config.eos_token_id = None
    model.generation_config.max_new_tokens = 2
    said = Seq2SeqTrainer(model, arguments, processing_class=processor, **rows).predict(CONVERSATIONS[:2])
    assert said.predictions.shape[0] == 2


@pytest.mark.parametrize("name", NAMES)
def test_accelerate_prepares_a_model_and_keeps_its_state(name: str, tmp_path: Path) -> None:
    model, processor = fresh(name)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    loader = torch.utils.data.DataLoader(CONVERSATIONS, batch_size=2, collate_fn=processor)  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    prepared, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    losses = []
    for _ in range(3):
        for batch in loader:
            with accelerator.accumulate(prepared):
                loss = prepared.train()(**batch).loss
                accelerator.backward(loss)
                accelerator.clip_grad_norm_(prepared.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
                losses.append(loss.item())
    assert losses[-1] < losses[1]
    accelerator.save_state(str(tmp_path / "state"))
    asked = processor(CONVERSATIONS)
    with torch.no_grad():
        logits = prepared.eval()(**asked).logits
        for weight in prepared.parameters():
            weight.add_(1)
        accelerator.load_state(str(tmp_path / "state"))
        assert torch.equal(prepared(**asked).logits, logits)
        weights = accelerator.get_state_dict(prepared)
        accelerator.unwrap_model(prepared).save_pretrained(tmp_path / "saved", state_dict=weights, save_function=accelerator.save)
        processor.save_pretrained(tmp_path / "saved")
        assert torch.equal(vlmkit.load(tmp_path / "saved")[0](**asked).logits, logits)


@pytest.mark.parametrize("name", NAMES)
def test_answers_are_streamed_as_they_are_generated(name: str) -> None:
    """Ids one by one, as every streamer is given them: the words of a byte-level tokenizer are not whole before the last."""

    class Ids:
        def __init__(self) -> None:
            self.seen: list[int] = []

        def put(self, value: torch.Tensor) -> None:
            self.seen += value.flatten().tolist()

        def end(self) -> None:
            self.ended = True

    model, processor = named(name)
    prompt = processor(CONVERSATIONS[0][:1])
    for options in ({}, {"cache_implementation": "static", "disable_compile": True}, {"use_cache": False}):
        streamer = Ids()
        said = model.generate(**prompt, max_new_tokens=4, do_sample=False, streamer=streamer, **options)
        assert streamer.seen == said[0].tolist()
        assert streamer.ended
        assert torch.equal(said, model.generate(**prompt, max_new_tokens=4, do_sample=False))
