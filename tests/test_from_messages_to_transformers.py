"""From a folder of messages with pictures to a directory that transformers loads, by the command line alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

import vlmkit
from tests.test_exchange import RESERVED, chatting, save
from tests.training.test_train_command import stopped
from vlmkit import cli
from vlmkit.tokenizer import bytes_tokenizer
from vlmkit.training.metrics_log import read_metrics

STAGES = """
stages:
- name: adapt
  steps: 5
  batch_size: 2
  connector: 1.0e-2
  language_model: 1.0e-2
  adapters:
    connector: {rank: 4}
    language_model: {rank: 4, modules: [q_proj, v_proj, up_proj, down_proj]}
  data: [{name: mine}]
"""


def write_messages(folder: Path, rows: int) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    with (folder / "data.jsonl").open("w", encoding="utf-8") as file:
        for number in range(rows):
            Image.fromarray(rng.integers(0, 255, (50, 70, 3), dtype=np.uint8)).save(folder / f"{number}.png")
            messages = [{"role": "user", "content": "<image>Which one is it?"}, {"role": "assistant", "content": f"number {number}"}]
            file.write(json.dumps({"messages": messages, "images": [f"{number}.png"]}) + "\n")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_messages_become_a_model_that_transformers_loads(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_messages(tmp_path / "messages", 8)
    save(tmp_path / "small-llama", chatting(bytes_tokenizer(RESERVED)))
    (tmp_path / "stages.yaml").write_text(STAGES)
    assert cli.main(["data", "pack", "messages", "data/mine", "--format", "chat", "--workers", "0"]) == 0, capsys.readouterr().err
    train = "train llava-1.5-tiny --language-model small-llama --stages stages.yaml --data data --workers 0 --threads 1 --save-seconds 0"
    before = torch.get_num_threads()
    assert stopped([*train.split(), "--run", "run"], tmp_path / "run", 2) == 143
    assert len(list(read_metrics(tmp_path / "run"))) < 5
    assert cli.main([*train.split(), "--run", "run"]) == 0, capsys.readouterr().err
    torch.set_num_threads(before)
    losses = [record["loss"] for record in read_metrics(tmp_path / "run")]
    assert len(losses) == 5
    assert losses[-1] < losses[0]
    assert (tmp_path / "run" / "adapters" / "adapt" / "adapter_model.safetensors").is_file()

    assert cli.main(["export", "run", "exported", "--format", "transformers"]) == 0, capsys.readouterr().err
    model, processor = vlmkit.load("run")
    theirs = transformers.LlavaForConditionalGeneration.from_pretrained("exported").eval()
    their_processor = transformers.AutoProcessor.from_pretrained("exported")
    picture = Image.open("messages/3.png")
    conversation = [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": "Which one is it?"}]}]
    batch = processor([conversation], add_generation_prompt=True)
    prompt = their_processor.apply_chat_template(conversation, add_generation_prompt=True)
    their_batch = their_processor(images=picture, text=prompt, return_tensors="pt")
    assert their_batch["input_ids"].tolist() == batch["input_ids"].tolist()
    with torch.no_grad():
        torch.testing.assert_close(theirs(**their_batch).logits, model(**batch).logits, rtol=1e-5, atol=1e-5)
