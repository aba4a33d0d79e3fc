"""The stage of a training that nobody described: one pass over all that there is."""

from __future__ import annotations

from collections.abc import Mapping

from vlmkit.training.stage import Source, Stage

BATCH = 8
FRESH, TRAINED = 1e-3, 2e-5


def one_pass(sources: Mapping[str, int], *, fresh: bool) -> Stage:
    """sources: samples by the name of their source. fresh: whether the model begins from random weights.

    A model with weights learns as LLaVA-1.5 does in its second stage (Liu et al. 2023, arXiv:2310.03744): connector and language model at
    2e-5, the tower frozen, a cosine behind 3 % of warming up; of random weights everything learns, at 1e-3. An update sees 8 samples of
    each process, and there are as many updates as make one pass on one process: the stage does not depend on how many there are.
    """
    steps = -(-sum(sources.values()) // BATCH)
    rate = FRESH if fresh else TRAINED
    return Stage(
        name="pass",
        steps=steps,
        batch_size=BATCH,
        data=tuple(Source(name=name, weight=float(samples)) for name, samples in sources.items()),
        encoder=rate if fresh else None,
        connector=rate,
        fusion=rate,
        language_model=rate,
        warmup=3 * steps // 100,
    )
