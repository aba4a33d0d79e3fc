"""The five data sets with a few pictures each, in the layouts of their authors; and a small model that was never trained."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import vlmkit
from tests.data.formats.published import cells, put
from tests.tiny import draw
from tests.training.conftest import small

IMAGES = 5
QUESTIONS = ("what is it?", "which letter?", "how many words stand on the larger of the two signs?")
"""About every picture; of very different lengths."""
Answers = Callable[[str, int, int], str]
"""Task, picture, question -> the right answer."""


def photo(number: int) -> bytes:
    """Noise, of another size each."""
    rng = np.random.default_rng(number)
    buffer = io.BytesIO()
    shape = (84 + 28 * (number % 3), 84 + 56 * (number % 2), 3)
    Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def pictures(folder: Path, name: Callable[[int], str]) -> None:
    for number in range(IMAGES):
        put(folder / name(number), photo(number))


def gqa(folder: Path, answers: Answers) -> None:
    pictures(folder, lambda n: f"images/n{n}.jpg")
    rows = [(n, k, text) for k, text in enumerate(QUESTIONS) for n in range(IMAGES)]
    asked = {f"{n}{k}": {"imageId": f"n{n}", "question": text, "answer": answers("gqa", n, k), "isBalanced": True} for n, k, text in rows}
    put(folder / "testdev_balanced_questions.json", asked)


def textvqa(folder: Path, answers: Answers) -> None:
    pictures(folder, lambda n: f"train_images/{n}.jpg")
    rows = []
    for n in range(IMAGES):
        for k, text in enumerate(QUESTIONS):
            right = answers("textvqa", n, k)
            said = [right] * (1 + (n + k) % 5) + ["somebody else's"] * (9 - (n + k) % 5)
            rows.append({"question_id": 10 * n + k, "question": text, "image_id": str(n), "answers": said, "set_name": "val"})
    put(folder / "TextVQA_0.5.1_val.json", {"dataset_type": "val", "data": rows})


def docvqa(folder: Path, answers: Answers) -> None:
    pictures(folder, lambda n: f"spdocvqa_images/page_{n}.png")
    rows = [
        {"questionId": 10 * n + k, "question": text, "image": f"documents/page_{n}.png", "answers": ["other", answers("docvqa", n, k)]}
        for n in range(IMAGES)
        for k, text in enumerate(QUESTIONS)
    ]
    put(folder / "spdocvqa_qas/val_v1.0_withQT.json", {"dataset_name": "SP-DocVQA", "data": rows})


def coco_captions(folder: Path, answers: Answers) -> None:
    pictures(folder, lambda n: f"val2017/{n:012}.jpg")
    images = [{"file_name": f"{n:012}.jpg", "id": n} for n in range(IMAGES)]
    captions = [(n, text) for n in range(IMAGES) for text in ("A man on a bike.", answers("coco_captions", n, 0))]
    rows = [{"image_id": n, "id": number, "caption": text} for number, (n, text) in enumerate(captions)]
    put(folder / "annotations/captions_val2017.json", {"images": images, "annotations": rows})


def synthtext(folder: Path, answers: Answers) -> None:
    import scipy.io

    pictures(folder, lambda n: f"8/{n}.jpg")
    words = [answers("synthtext", n, 0) for n in range(IMAGES)]
    content = {
        "imnames": cells(*(np.array([f"8/{n}.jpg"]) for n in range(IMAGES))),
        "wordBB": cells(*(np.zeros((2, 4, len(text.split())), np.float32) for text in words)),
        "charBB": cells(*(np.zeros((2, 4, 1), np.float32) for _ in words)),
        "txt": cells(*(np.array([text]) for text in words)),
    }
    scipy.io.savemat(folder / "gt.mat", content)


MAKERS = {maker.__name__: maker for maker in (coco_captions, docvqa, gqa, synthtext, textvqa)}


def write(folder: Path, answers: Answers = lambda task, image, question: "unknown words") -> Path:
    for name, maker in MAKERS.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        maker(folder / name, answers)
    return folder


LETTERS = b"abcdefg    "
"""What the small model says; a token is a byte."""


def write_model(folder: Path) -> Path:
    """Random weights that say different things about different pictures and questions, in words of few letters."""
    model: Any = vlmkit.build(small(), seed=0)
    draw(model)
    head = model.get_output_embeddings().weight
    stops = model.generation_config.eos_token_id
    said = {*LETTERS, *(stops if isinstance(stops, list) else [stops])}
    with torch.no_grad():
        head[[token for token in range(len(head)) if token not in said]] = 0
    model.save_pretrained(folder)
    vlmkit.build_processor(small()).save_pretrained(folder)
    return folder
