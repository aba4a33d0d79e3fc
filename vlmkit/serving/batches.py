"""The thread that answers: it takes what waits, generates for all of it together, and goes on with what came meanwhile.

A batch is a call of `model.generate`. Nothing joins one that runs; a row that is over, or that nobody wants any more, ends by itself, and
the batch with its last row. Where a batch breaks, its questions are asked one by one, so that one of them harms no other.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria

from vlmkit.serving.drawing import DrawEach
from vlmkit.serving.errors import RequestError
from vlmkit.serving.job import Job

LOG = logging.getLogger("vlmkit.serving")


class Batches:
    """`put` a job from anywhere; the thread runs from `start` to `stop`."""

    def __init__(self, model: Any, processor: Any, most: int) -> None:
        self.model, self.processor, self.most = model, processor, most
        self.ends = model.stop_ids(processor)
        self.running: list[Job] = []
        self.sizes: list[int] = []
        """How many questions the last batches held."""
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="vlmkit-batches", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends what runs before its next token, and forgets what waits."""
        with self._changed:
            self._stopping = True
            for job in (*self.running, *self._waiting):
                job.cancelled = True
            self._changed.notify()
        self._thread.join()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def put(self, job: Job) -> None:
        with self._changed:
            self._waiting.append(job)
            self._changed.notify()

    def _run(self) -> None:
        while (jobs := self._take()) is not None:
            self.sizes = [*self.sizes[-99:], len(jobs)]
            try:
                self.answer(jobs)
            finally:
                self.running = []

    def _take(self) -> list[Job] | None:
        """What is asked next, in the order in which it came; None: it is over."""
        with self._changed:
            while True:
                if self._stopping:
                    return None
                jobs: list[Job] = []
                while self._waiting and len(jobs) < self.most:
                    job = self._waiting.popleft()
                    if not job.cancelled:
                        jobs.append(job)
                if jobs:
                    self.running = jobs
                    return jobs
                self._changed.wait()

    def answer(self, jobs: Sequence[Job]) -> None:
        """Every job is told its answer, or an error. Raises nothing."""
        try:
            self._generate(jobs)
            return
        except Exception as error:
            LOG.exception("a batch of %d questions broke", len(jobs))
            if isinstance(error, torch.OutOfMemoryError):
                torch.cuda.empty_cache()
            left = [job for job in jobs if not (job.over or job.cancelled)]
            if len(jobs) == 1:
                for job in left:
                    job.fail(refusal(error))
                return
        for job in left:
            job.restart()
            self.answer([job])

    def _generate(self, jobs: Sequence[Job]) -> None:
        model, samples = self.model, [job.sample for job in jobs]
        batch = self.processor.collate(samples, padding_side="left").to(model.device)
        for name in ("labels", "supervised"):
            del batch[name]
        model.generate(
            **batch,
            max_new_tokens=max(job.max_tokens for job in jobs),
            do_sample=False,
            eos_token_id=self.ends or None,
            pad_token_id=self.processor.pad_token_id,
            logits_processor=[DrawEach([job.drawing for job in jobs], model.device)],
            stopping_criteria=[Listening(jobs, self.ends)],
        )


class Listening(StoppingCriteria):  # type: ignore[misc]
    """Hands every new token to the job of its row, and says which rows are over."""

    def __init__(self, jobs: Sequence[Job], ends: Sequence[int]) -> None:
        self._jobs, self._ends = jobs, frozenset(ends)

    def __call__(self, input_ids: Tensor, scores: Any, **unused: Any) -> Tensor:
        for job, token in zip(self._jobs, input_ids[:, -1].tolist(), strict=True):
            if not (job.over or job.cancelled):
                job.take(token, token in self._ends)
        return torch.tensor([job.over or job.cancelled for job in self._jobs], device=input_ids.device)


def refusal(error: Exception) -> RequestError:
    """What a client is told of an error that was none of its own words."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return RequestError("the request does not fit into the memory of the server", status=503, code="out_of_memory")
    return RequestError(f"the model could not answer ({type(error).__name__})", status=500, code="internal_error")
