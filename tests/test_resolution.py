from __future__ import annotations

import numpy as np
import pytest
import torch

import vlmkit
from vlmkit.encoders.positions import resample
from vlmkit.resolution import Resampled, at_resolution
from vlmkit.spec import SpecError
from vlmkit.training.blueprint import OfArchitecture, OfModule
from vlmkit.training.engines import engine
from vlmkit.training.loop import Interrupted, Trainer
from vlmkit.training.processes import Processes
from vlmkit.training.run import RunDirectory
from vlmkit.training.signals import StopSignals
from vlmkit.training.stage import Source, Stage
from vlmkit.training.states import SavedState
from vlmkit.weight_source import HeldWeights

SQUARE = ("llava-1.5-tiny", "paligemma-tiny", "paligemma2-tiny")


@pytest.mark.parametrize("name", SQUARE)
def test_a_model_at_twice_its_resolution_has_four_times_the_tokens_and_all_of_its_weights(name):
    before = vlmkit.architecture(name)
    side = before.encoder.image_size // before.encoder.patch * before.encoder.patch
    after = at_resolution(before, 2 * side)
    small = vlmkit.build(before, seed=0)
    large = OfModule(small).at(after).whole()
    assert large.config.spec == after
    one, other = small.state_dict(), large.state_dict()
    changed = [name for name in one if one[name].shape != other[name].shape]
    assert len(changed) == 1
    assert all(torch.equal(one[name], other[name]) for name in one if name not in changed)
    (table,) = changed
    native, grid = before.encoder.native_grid, after.encoder.native_grid
    prefix = one[table].flatten(0, -2).shape[0] - native.tokens
    wanted = resample(one[table].flatten(0, -2)[prefix:], native, grid, "bicubic_antialias")
    assert torch.equal(other[table].flatten(0, -2)[prefix:], wanted)
    picture = np.zeros((2 * side, 2 * side, 3), np.uint8)
    assert isinstance(large.eval().chat(vlmkit.build_processor(after), picture, "?", max_new_tokens=2), str)


def test_what_has_no_size_is_refused():
    with pytest.raises(SpecError, match="policy 'smart_resize' makes no squares of one size"):
        at_resolution(vlmkit.architecture("univa-vl-tiny"), 448)
    arch = vlmkit.architecture("llava-1.5-tiny")
    held = HeldWeights({"connector.weight": torch.zeros(2, 3)})
    with pytest.raises(SpecError, match="which is no table of positions"):
        Resampled(held, arch, arch, {"connector.weight": (3, 3)})


class Squares(torch.utils.data.Dataset):
    def __init__(self, architecture: vlmkit.Architecture) -> None:
        self.processor = vlmkit.build_processor(architecture)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        picture = np.random.default_rng(number).integers(0, 255, (50, 60, 3), dtype=np.uint8)
        content = [{"type": "image", "image": picture}, {"type": "text", "text": "?"}]
        return dict(self.processor([[{"role": "user", "content": content}, {"role": "assistant", "content": "yes"}]]))


@pytest.mark.parametrize("kind", ["single", "fsdp2"])
def test_stages_of_rising_resolution_stop_and_go_on(tmp_path, kind):
    """PaliGemma's, in small; what was stopped in the second stage has the weights of what was not."""
    base = vlmkit.architecture("paligemma-tiny")
    sizes = [base.encoder.image_size, 2 * base.encoder.image_size]
    options = dict(steps=2, batch_size=1, encoder=1e-3, connector=1e-3, data=(Source(name="any"),))
    stages = [Stage(name=str(size), image_size=size, **options) for size in sizes]

    def train(directory, stop: StopSignals | None = None) -> Trainer:
        run = RunDirectory(directory)
        run.begin({})
        trainer = Trainer(run, OfArchitecture(base, seed=0), engine=engine(kind, Processes()), save_seconds=1e9, workers=0, stop=stop)

        def loss(model, batch):
            if stop is not None and trainer.updates == 2:
                stop.number = 15
            return model(**batch).loss

        try:
            for stage, size in zip(stages, sizes, strict=True):
                trainer.train(stage, Squares(at_resolution(base, size)), loss=loss)
        finally:
            run.unlock()
        return trainer

    train(tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(tmp_path / "stopped", StopSignals())
    train(tmp_path / "stopped")
    one, other = (SavedState.newest(tmp_path / name / "state") for name in ("whole", "stopped"))
    assert one.position["model"]["architecture"]["encoder"]["image_size"] == sizes[1]
    for name in one.names("weight"):
        length = int(np.prod(one.shape("weight", name)))
        assert torch.equal(one.read("weight", name, 0, length), other.read("weight", name, 0, length))
