from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vlmkit
from tests.training.conftest import small
from vlmkit.evaluation.tasks import Question, Task, derangement, evaluate, task_from_samples


@given(st.integers(2, 40), st.integers())
def test_no_image_keeps_its_place(count, seed):
    order = derangement(count, random.Random(seed))
    assert sorted(order) == list(range(count))
    assert all(place != image for place, image in enumerate(order))


def test_one_image_cannot_be_swapped():
    with pytest.raises(ValueError, match="two or more"):
        derangement(1, random.Random(0))
    assert derangement(0, random.Random(0)) == []


@pytest.fixture(scope="module")
def processor() -> vlmkit.VLMProcessor:
    return vlmkit.build_processor(small())


class Oracle:
    """Answers with the grey level that it sees, so that an answer tells which image was shown."""

    device = "cpu"
    generation_config = SimpleNamespace(eos_token_id=None)

    def __init__(self, processor: vlmkit.VLMProcessor) -> None:
        self.processor = processor
        self.encoded = 0

    def eval(self) -> None: ...

    def generate(self, input_ids, pixel_values, grids, visual_index, **others):
        import torch

        self.encoded += len(grids)
        assert others["max_new_tokens"] > 0
        pieces = pixel_values.split([int(grid.prod()) for grid in grids])
        tokens = torch.tensor([int(grid.prod()) // 4 for grid in grids]).cumsum(0)
        answers = []
        for row in visual_index:
            view = int((row.max() >= tokens).sum())
            answers.append([*str(int(pieces[view][0, 0])).rjust(3).encode()])
        return torch.cat([input_ids, torch.tensor(answers)], dim=1)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_sighted_sees_the_own_image_and_blind_the_swapped_one(processor, batch_size):
    images = tuple(np.full((112, 112 + 28 * (level % 3), 3), level, np.uint8) for level in range(10, 15))
    questions = tuple(Question(image, "Which level?", str(10 + image)) for image in (0, 1, 1, 2, 3, 4, 0))
    oracle = Oracle(processor)
    counts: list[int] = []
    result = evaluate(oracle, processor, Task("levels", images, questions), batch_size=batch_size, on_batch=counts.append)
    assert [answer.question for answer in result.answers] == list(questions)
    assert all(answer.right and not answer.right_blind for answer in result.answers)
    assert all(answer.blind == str(10 + answer.swapped) != answer.question.answer for answer in result.answers)
    assert (result.sighted["exact"].value, result.blind["exact"].value) == (1, 0)
    assert sum(counts) == 2 * len(questions)
    assert max(counts) == min(batch_size, 14)
    if batch_size == 100:
        assert oracle.encoded == len(images), "sighted and blind questions about an image share it"


def test_the_model_answers(processor):
    images = tuple(np.full((112, 112, 3), level, np.uint8) for level in (0, 255))
    task = Task("two", images, (Question(0, "a?", "x"), Question(1, "bcd?", "y"), Question(1, "e?", "z")))
    model = vlmkit.build(small(), seed=0)
    result = evaluate(model, processor, task, max_new_tokens=4)
    for answer in result.answers:
        assert answer.sighted == model.chat(processor, images[answer.question.image], answer.question.question, max_new_tokens=4)
        assert answer.blind == model.chat(processor, images[answer.swapped], answer.question.question, max_new_tokens=4)


def test_samples_become_a_task():
    def sample(number: int, *images: bytes) -> vlmkit.Sample:
        content = [*({"type": "image", "image": place} for place in range(len(images))), {"type": "text", "text": f"{number}?"}]
        conversation = [{"role": "user", "content": content}, {"role": "assistant", "content": "yes"}]
        return vlmkit.Sample(images, (conversation,), "t", str(number))

    samples = [sample(1, b"a"), sample(2, b"b"), sample(3, b"a")]
    task = task_from_samples("t", samples)
    assert task == Task("t", (b"a", b"b", b"a"), tuple(Question(image, f"{image + 1}?", "yes") for image in range(3)))
    assert len(task_from_samples("t", samples, limit=2).questions) == 2
    with pytest.raises(ValueError, match="t, sample 4: an evaluation takes a question about one image"):
        task_from_samples("t", [sample(4)])
