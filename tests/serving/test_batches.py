"""Rows of a batch that ask for different things are answered as each would be alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from speaking import generated, question, speaker, wait_for

from vlmkit.serving.batches import Batches
from vlmkit.serving.drawing import DrawEach, Drawing
from vlmkit.serving.errors import RequestError
from vlmkit.serving.job import Job, Said
from vlmkit.serving.words import Words


class Heard:
    """A job and what it was told."""

    def __init__(self, number: int, max_tokens: int = 12, drawing: Drawing | None = None, stop: Sequence[str] = (), streams: bool = False):
        _, processor = speaker()
        words, image = question(number)
        shown = [] if image is None else [{"type": "image", "image": image}]
        sample = processor.sample([{"role": "user", "content": [*shown, {"type": "text", "text": words}]}], add_generation_prompt=True)
        self.news: list[Said | Exception] = []
        text = Words(lambda tokens: processor.decode(tokens, skip_special_tokens=True), stop)
        self.job = Job(sample, drawing or Drawing(), max_tokens, text, self.news.append, streams)

    @property
    def over(self) -> bool:
        return bool(self.news) and (isinstance(self.news[-1], Exception) or self.news[-1].finish is not None)

    @property
    def answer(self) -> tuple[str, str | None]:
        said = [news for news in self.news if isinstance(news, Said)]
        assert len(said) == len(self.news)
        return "".join(news.text for news in said), said[-1].finish


def answered(heard: Sequence[Heard]) -> list[tuple[str, str | None]]:
    Batches(*speaker(), most=8).answer([one.job for one in heard])
    return [one.answer for one in heard]


def alone(number: int, max_tokens: int = 12, **options: Any) -> tuple[str, str]:
    return generated(*speaker(), *question(number), max_tokens, **options)


@pytest.mark.parametrize("streams", [False, True])
def test_a_batch_of_different_lengths_is_answered_as_generate_answers_each_alone(streams: bool) -> None:
    lengths = [12, 3, 20, 1, 7, 12, 5, 30]
    heard = [Heard(number, length, streams=streams) for number, length in enumerate(lengths)]
    plain = [alone(number, length) for number, length in enumerate(lengths)]
    assert len({text for text, _ in plain}) > 4
    assert answered(heard) == plain
    assert all(len(one.news) == 1 for one in heard) or streams


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7])
@pytest.mark.parametrize("top_p", [1.0, 0.8])
def test_a_row_draws_as_generate_draws_it_alone_after_its_seed(temperature: float, top_p: float) -> None:
    heard = [Heard(number, 12, Drawing(temperature=temperature, top_p=top_p, seed=40 + number)) for number in range(3)]
    mixed = [heard[0], Heard(5), heard[1], heard[2]]
    plain = []
    for number in range(3):
        torch.manual_seed(40 + number)
        plain.append(alone(number, do_sample=True, temperature=temperature, top_p=top_p, top_k=0))
    told = answered(mixed)
    assert [told[0], *told[2:]] == plain
    assert told[1] == alone(5)


def test_a_top_p_of_nothing_is_the_likeliest_token() -> None:
    assert answered([Heard(0, drawing=Drawing(temperature=1.0, top_p=0.0))]) == [alone(0)]


def test_greedy_rows_are_left_alone() -> None:
    scores = torch.randn(2, 5)
    assert DrawEach([Drawing(), Drawing()], scores.device)(torch.zeros(2, 1), scores) is scores


def test_a_stop_ends_its_row_and_no_other() -> None:
    text, _ = alone(2, 20)
    stop = text[4:6]
    told = answered([Heard(2, 20, stop=[stop]), Heard(2, 20), Heard(3, 20)])
    assert told == [(text[: text.index(stop)], "stop"), alone(2, 20), alone(3, 20)]


def test_who_is_gone_is_not_answered_and_delays_nobody() -> None:
    heard = [Heard(0, 5), Heard(1, 200)]
    tell = heard[0].job.tell

    def leave(news: Said | Exception) -> None:
        tell(news)
        heard[1].job.cancelled = True

    heard[0].job.tell = leave
    steps = counted_steps(lambda: Batches(*speaker(), most=8).answer([one.job for one in heard]))
    assert heard[0].answer == alone(0, 5)
    assert not heard[1].news
    assert steps == 5


def counted_steps(run: Any) -> int:
    model, _ = speaker()
    calls: list[int] = []
    hook = model.language_model.register_forward_pre_hook(lambda module, inputs: calls.append(1))
    run()
    hook.remove()
    return len(calls)


def test_a_batch_that_breaks_is_asked_one_by_one_and_harms_only_who_broke_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The third question breaks every batch that it is in, after three tokens; what was streamed is not told twice."""
    heard = [Heard(number, 8, streams=number < 2) for number in range(4)]
    plain = [alone(number, 8) for number in range(4)]
    bad, take = heard[2].job, Job.take

    def breaks(self: Job, token: int, ends: bool) -> bool:
        if self is bad and self.answer_tokens == 3:
            raise ValueError("secret of the server")
        return take(self, token, ends)

    monkeypatch.setattr(Job, "take", breaks)
    Batches(*speaker(), most=8).answer([one.job for one in heard])
    assert [heard[number].answer for number in (0, 1, 3)] == [plain[0], plain[1], plain[3]]
    (error,) = (news for news in heard[2].news if isinstance(news, Exception))
    assert isinstance(error, RequestError)
    assert (error.status, "secret" in error.message) == (500, False)


def test_memory_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    batches, heard = Batches(*speaker(), most=8), [Heard(0), Heard(1)]
    generate = batches._generate

    def small(jobs: Sequence[Job]) -> None:
        if len(jobs) > 1 or jobs[0] is heard[1].job:
            raise torch.OutOfMemoryError("no room")
        generate(jobs)

    monkeypatch.setattr(batches, "_generate", small)
    batches.answer([one.job for one in heard])
    assert heard[0].answer == alone(0)
    (error,) = heard[1].news
    assert isinstance(error, RequestError)
    assert error.status == 503


def test_what_waits_is_answered_together() -> None:
    batches, heard = Batches(*speaker(), most=3), [Heard(number, 4) for number in range(7)]
    heard[4].job.cancelled = True
    for one in heard:
        batches.put(one.job)
    assert batches.waiting == 7
    batches.start()
    wait_for(lambda: all(one.over for one in heard if one is not heard[4]))
    batches.stop()
    assert batches.sizes == [3, 3]
    assert [one.answer for one in heard if one is not heard[4]] == [alone(number, 4) for number in range(7) if number != 4]
    assert not batches.alive
    assert heard[4].news == []


def test_stopping_ends_what_runs() -> None:
    batches, heard = Batches(*speaker(), most=3), Heard(0, 100_000, drawing=Drawing(temperature=1.0, seed=3), streams=True)
    batches.ends = []  # it would talk for ever
    batches.put(heard.job)
    batches.start()
    wait_for(lambda: heard.news)
    batches.stop()
    assert not batches.alive
    assert heard.job.cancelled
