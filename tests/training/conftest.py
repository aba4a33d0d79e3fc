from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

import vlmkit
from vlmkit.data.mixture import Mixture
from vlmkit.encoders.open_clip import OpenClip
from vlmkit.training.loop import Trainer
from vlmkit.training.run import RunDirectory
from vlmkit.training.stage import Source, Stage

DATA = (Source(name="any"),)
STAGES = (
    Stage(name="tower", steps=3, batch_size=2, encoder=1e-2, head=1e-2, data=DATA),
    Stage(name="align", steps=4, batch_size=2, connector=1e-2, warmup=2, data=DATA),
    Stage(name="all", steps=4, batch_size=2, encoder=1e-3, connector=1e-2, language_model=1e-2, weight_decay=0.1, data=DATA),
)


def small() -> vlmkit.Architecture:
    tiny = vlmkit.architecture("univa-vl-tiny")
    language_model = tiny.language_model
    config = language_model.config | {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4}
    return tiny.replace(
        name="small",
        encoder=OpenClip(width=32, layers=1, heads=2, image_size=56),
        language_model=language_model.replace(config=config),
    )


class Numbered(Dataset[dict[str, Tensor]]):
    """Batch n is drawn from n; odd ones ask twice about their image."""

    def __init__(self, processor: vlmkit.VLMProcessor) -> None:
        self.processor = processor

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        rng = np.random.default_rng(number)
        rows = []
        for _ in range(2):
            image = rng.integers(0, 255, (112, 112, 3), dtype=np.uint8)
            content = [{"type": "image", "image": image}, {"type": "text", "text": f"{rng.integers(100)}?"}]
            rows.append([{"role": "user", "content": content}, {"role": "assistant", "content": "yes" * int(rng.integers(1, 4))}])
        return dict(self.processor(rows))


class Setup:
    """A small model in a directory of its own, as a process that was just started would make it."""

    def __init__(self, path: Path, save_seconds: float = 0.0, workers: int = 0, batches: Mixture | None = None) -> None:
        torch.manual_seed(0)
        self.run = RunDirectory(path)
        self.run.begin({"test": 1})
        self.model = vlmkit.build(small(), seed=0)
        self.head = torch.nn.Linear(32, 1)
        torch.nn.init.constant_(self.head.weight, 0.1)
        self.batches = batches or Numbered(vlmkit.build_processor(small()))
        self.trainer = Trainer(self.run, self.model, save_seconds=save_seconds, workers=workers)

    def train(self, before_step: Callable[[], None] = lambda: None, stages: tuple[Stage, ...] = STAGES) -> Setup:
        def tower_loss(model: vlmkit.VLM, batch: dict[str, Tensor]) -> Tensor:
            before_step()
            features = model.encoder(batch["pixel_values"], batch["grids"])
            # Random numbers of the training's own generator have to be continued too.
            noisy = features.tokens + 0.1 * torch.randn_like(features.tokens)
            return (self.head(noisy) - 1).square().mean()

        def answer_loss(model: vlmkit.VLM, batch: dict[str, Tensor]) -> Tensor:
            before_step()
            return model(**batch).loss

        for stage in stages:
            extra = {"loss": tower_loss, "head": self.head} if stage.learns("head") else {"loss": answer_loss}
            self.trainer.train(stage, self.batches, **extra)
        assert self.trainer.log is not None
        self.trainer.log.close()
        self.run.unlock()
        return self

    def weights(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.model.state_dict().items()}


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    torch.set_num_threads(1)  # a session's fixtures come before those of its functions
    return Setup(tmp_path_factory.mktemp("run") / "run").train()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
