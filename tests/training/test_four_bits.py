"""Adapters over weights of four bits: bitsandbytes on this CPU, the smallest model there is."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import nn
from torch.multiprocessing import start_processes
from torch.utils.data import Dataset

import vlmkit
from tests.tiny import CONVERSATIONS, architecture, language_model, model
from vlmkit.architecture import PARTS
from vlmkit.model import VLM
from vlmkit.spec import SpecError
from vlmkit.training.adapted import scales_of, weights_of
from vlmkit.training.adapter import Adapter
from vlmkit.training.adapter_files import load_adapters, merged_state, save_adapters
from vlmkit.training.adapters import adapted_layers, add_adapters, is_adapter, merge_adapters, weight_of
from vlmkit.training.engines import engine
from vlmkit.training.engines.base import fill, whole_shares
from vlmkit.training.engines.whole import Single
from vlmkit.training.loop import Trainer
from vlmkit.training.metrics_log import read_metrics
from vlmkit.training.optimizers import adapters_of, prepare_parts
from vlmkit.training.processes import Processes
from vlmkit.training.run import RunDirectory
from vlmkit.training.stage import Source, Stage
from vlmkit.training.states import SavedState, Saver, StateWeights

pytest.importorskip("bitsandbytes")

ADAPTERS = {"language_model": Adapter(rank=2, quantize="nf4"), "connector": Adapter(rank=2)}
ARCHITECTURE = architecture(connector="mlp", language=language_model("olmo3", hidden_size=64, intermediate_size=128))
BATCH = vlmkit.build_processor(ARCHITECTURE)(CONVERSATIONS)


def quantized(seed: int = 0, dora: bool = False) -> VLM:
    return add_adapters(model(ARCHITECTURE, seed), {path: adapter.replace(dora=dora) for path, adapter in ADAPTERS.items()}, seed)


def learned(made: VLM) -> VLM:
    made.train()
    optimizer = torch.optim.AdamW([parameter for parameter in made.parameters() if parameter.requires_grad], lr=0.01)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = made(**BATCH).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[0]
    return made


@torch.no_grad()
def logits(made: Any) -> torch.Tensor:
    out: torch.Tensor = made.eval()(**BATCH).logits
    return out


def test_the_weights_below_lie_in_four_bits_and_stay_near_what_they_were() -> None:
    """The widest gap of NF4's values is 0.304 of a block's largest weight, so none moves by more than half of that."""
    before = dict(model(ARCHITECTURE).named_parameters())
    made = quantized()
    layers = {name: layer for name, layer in adapted_layers(made).items() if name.startswith("language_model")}
    assert len(layers) == 28
    for name, layer in layers.items():
        base, weight = layer.base_layer, before[f"{name}.weight"].detach()
        assert base.weight.dtype == torch.uint8
        assert base.weight.numel() * 2 == weight.numel()
        assert not base.weight.requires_grad
        largest = weight.reshape(-1, 64).abs().amax(dim=1)
        assert 0.05 < float(((weight_of(base) - weight).reshape(-1, 64).abs().amax(dim=1) / largest).max()) < 0.153
        inputs = torch.randn(3, weight.shape[1])
        assert torch.allclose(base(inputs), inputs @ weight_of(base).T, atol=1e-5)
    assert {type(layer.base_layer) for name, layer in adapted_layers(made).items() if name not in layers} == {nn.Linear}


@pytest.mark.parametrize("dora", [False, True])
def test_adapters_over_four_bits_learn_and_nothing_else_does(dora: bool) -> None:
    made = quantized(dora=dora)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    learned(made)
    still = {name for name, value in made.state_dict().items() if torch.equal(value, before[name])}
    assert before.keys() - still == {name for name in before if is_adapter(name)}


@pytest.mark.parametrize("dora", [False, True])
def test_merged_it_is_an_ordinary_model_that_answers_the_same(dora: bool, tmp_path: Path) -> None:
    made = learned(quantized(dora=dora))
    wanted = logits(made)
    merge_adapters(made)
    assert {type(module).__name__ for module in made.modules() if isinstance(module, nn.Linear)} == {"Linear"}
    assert float((logits(made) - wanted).norm() / wanted.norm()) < 1e-6
    assert set(made.state_dict()) == set(model(ARCHITECTURE).state_dict())
    made.save_pretrained(tmp_path)
    assert torch.equal(logits(vlmkit.build(ARCHITECTURE, weights=tmp_path)), logits(made))


def test_a_state_is_continued_from_over_other_weights_by_torch_and_by_the_run(tmp_path: Path) -> None:
    """Packed weights, scales and adapters all come from the state: what is there beforehand is another model."""
    made = learned(quantized())
    wanted = logits(made)
    save_file({name: value.contiguous() for name, value in made.state_dict().items() if "lm_head" not in name}, tmp_path / "state")
    by_torch = quantized(seed=1)
    assert not torch.equal(logits(by_torch), wanted)
    by_torch.load_state_dict(load_file(tmp_path / "state") | {"language_model.lm_head.weight": made.language_model.lm_head.weight.detach()})
    assert torch.equal(logits(by_torch), wanted)
    engine = Single(Processes())
    engine.shares = whole_shares(made)
    saver = Saver(tmp_path / "run", Processes())
    saver.begin("1", engine.pieces(made, within=True), {}, {"adapters": scales_of(made)})
    saver.commit()
    state = SavedState.newest(tmp_path / "run")
    assert state is not None
    by_run = quantized(seed=1)
    fill(by_run, whole_shares(by_run), StateWeights(state))
    plain = vlmkit.build(ARCHITECTURE, seed=1)
    fill(plain, whole_shares(plain), weights_of(state))
    torch.testing.assert_close(logits(plain), logits(merge_adapters(copy.deepcopy(made))), rtol=1e-6, atol=1e-6)
    assert torch.equal(logits(by_run), wanted)
    assert torch.equal(logits(copy.deepcopy(by_run)), wanted)


def test_a_state_in_four_bits_is_merged_only_where_the_model_is() -> None:
    made = quantized()
    with pytest.raises(SpecError, match="its weight lies in four bits; call merge_adapters where the model is"):
        merged_state(made, made.state_dict())


def test_a_stage_trains_the_adapters_over_four_bits() -> None:
    made = quantized()
    own = {name for name, value in made.named_parameters() if is_adapter(name)}
    stage = Stage(name="all", steps=1, batch_size=1, data=(Source(name="any"),), connector=1e-3, language_model=1e-3)
    prepare_parts(stage, {part: getattr(made, part) for part in PARTS}, adapters_of(made))
    assert {name for name, value in made.named_parameters() if value.requires_grad} == own
    assert len(own) == 60


class Drawn(Dataset[dict[str, torch.Tensor]]):
    """Micro-batch n is a picture and a number drawn from n."""

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        picture = np.random.default_rng(number).integers(0, 255, (56, 56, 3), dtype=np.uint8)
        asked = {"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": f"{number}?"}]}
        return dict(vlmkit.build_processor(ARCHITECTURE)([[asked, {"role": "assistant", "content": "yes" * (1 + number % 3)}]]))


def ran(rank: int, world: int, directory: str) -> None:
    """Four updates of two micro-batches, whoever makes them."""
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{directory}/meet", rank=rank, world_size=world)
    processes = Processes(rank, world)
    run = RunDirectory(Path(directory) / "run")
    if rank == 0:
        run.begin({"test": 1})
    processes.wait()
    rates: dict[str, Any] = {"connector": 1e-3, "language_model": 1e-3, "adapters": ADAPTERS}
    stage = Stage(name="qlora", steps=4, batch_size=1, accumulate=2 // world, data=(Source(name="any"),), **rates)
    trainer = Trainer(run, model(ARCHITECTURE, 0), engine=engine(None, processes), console=Console(quiet=True), workers=0)
    trainer.train(stage, Drawn())
    if trainer.log is not None:
        trainer.log.close()


def test_two_processes_of_ddp_are_one(tmp_path: Path) -> None:
    """Measured: the same losses and norms bit for bit; allowed 2e-6."""
    for world in (1, 2):
        (tmp_path / str(world)).mkdir()
        start_processes(ran, (world, str(tmp_path / str(world))), nprocs=world, start_method="fork")
    one, two = ([(record["loss"], record["norm"]) for record in read_metrics(tmp_path / str(world) / "run")] for world in (1, 2))
    assert len(one) == 4
    assert one[3][0] < one[0][0]
    assert max(abs(first[0] - second[0]) for first, second in zip(one, two, strict=True)) < 2e-6
    states = [SavedState.newest(tmp_path / str(world) / "run" / "state") for world in (1, 2)]
    assert all(state is not None and state.position["done"] == ["qlora"] for state in states)


def test_a_scale_of_another_shape_is_refused() -> None:
    made = quantized()
    state = made.state_dict()
    name = next(name for name in state if name.endswith("weight.absmax"))
    with pytest.raises(SpecError, match="not of a weight of shape"):
        made.load_state_dict(state | {name: state[name][:1]})


def test_adapters_are_saved_alone_and_loaded_over_the_weights_that_they_learned_over(tmp_path: Path) -> None:
    made = learned(quantized())
    save_adapters(made, tmp_path)
    again = load_adapters(model(ARCHITECTURE), tmp_path)
    assert torch.equal(logits(again), logits(made))


def test_a_skeleton_cannot_be_quantized() -> None:
    with pytest.raises(SpecError, match="nf4 is made of weights that are whole, and these are on the meta device"):
        add_adapters(vlmkit.build(ARCHITECTURE, device="meta"), ADAPTERS)


def test_rows_that_bitsandbytes_reads_wrongly_here_are_refused() -> None:
    made = model(architecture(connector="mlp"))
    with pytest.raises(SpecError, match=r"layers.0.self_attn.q_proj: bitsandbytes on CPU reads rows wrongly .* these have 32 weights"):
        add_adapters(made, ADAPTERS)
    assert {type(module) for module in made.modules() if isinstance(module, nn.Linear)} == {nn.Linear}


def test_half_precision_computes_in_half_precision() -> None:
    made = add_adapters(model(ARCHITECTURE).to(torch.bfloat16), ADAPTERS)
    learned(made)
    assert {layer.base_layer.compute_dtype for name, layer in adapted_layers(made).items() if "language_model" in name} == {torch.bfloat16}
    wanted = logits(made)
    assert wanted.dtype == torch.bfloat16
    merge_adapters(made)
    assert {parameter.dtype for parameter in made.parameters()} == {torch.bfloat16}
