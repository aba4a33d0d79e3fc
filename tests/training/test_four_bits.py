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
from torch.nn import functional
from torch.utils.data import Dataset

import vlmkit
from tests.tiny import CONVERSATIONS, architecture, language_model, model
from vlmkit.architecture import PARTS
from vlmkit.model import VLM
from vlmkit.training.adapted import scales_of, weights_of
from vlmkit.training.adapter import Adapter
from vlmkit.training.adapter_files import load_adapters, merged_state, save_adapters
from vlmkit.training.adapters import adapted_layers, add_adapters, is_adapter, merge_adapters
from vlmkit.training.engines import engine
from vlmkit.training.engines.base import fill, whole_shares
from vlmkit.training.engines.whole import Single
from vlmkit.training.four_bits import dequantized, quantize, quantized_rows
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
        assert base.packed.dtype == torch.uint8
        assert base.packed.numel() * 2 == weight.numel()
        assert not any(value.requires_grad for value in base.parameters())
        largest = weight.reshape(-1, 64).abs().amax(dim=1)
        assert torch.equal(base.absmax.view(torch.float32).flatten(), largest)
        assert 0.05 < float(((base.weight - weight).reshape(-1, 64).abs().amax(dim=1) / largest).max()) < 0.153
    assert {type(layer.base_layer) for name, layer in adapted_layers(made).items() if name not in layers} == {nn.Linear}


@pytest.mark.parametrize("bias", [False, True])
def test_bytes_scales_and_products_are_those_of_bitsandbytes(bias: bool) -> None:
    from bitsandbytes.nn import Linear4bit

    torch.manual_seed(0)
    linear = nn.Linear(192, 40, bias=bias)
    theirs = Linear4bit(192, 40, bias=bias, compute_dtype=torch.float32, compress_statistics=False, quant_type="nf4")
    theirs.load_state_dict(linear.state_dict())
    theirs = theirs.train().to("cpu")
    ours = quantize(linear, "linear")
    assert torch.equal(ours.packed.flatten(), theirs.weight.flatten())
    assert torch.equal(ours.absmax.view(torch.float32).flatten(), theirs.weight.quant_state.absmax)
    inputs = [torch.randn(2, 5, 192, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2)]
    outputs = [layer(each) for layer, each in zip((ours, theirs), inputs, strict=True)]
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-6)  # measured: 0 without a bias, 1e-7 with one
    for each in outputs:
        each.square().sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=0, atol=1e-5)


@pytest.mark.parametrize("columns", [1, 32, 63, 64, 65, 4304])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_rows_of_any_length_are_made_alone(columns: int, dtype: torch.dtype) -> None:
    """A row becomes the same whoever holds it, and no block reaches into the next one."""
    weight = torch.randn(6, columns, generator=torch.Generator().manual_seed(columns)).to(dtype)
    weight[3] = 0
    packed, absmax = quantized_rows(weight)
    blocks = -(-columns // 64)
    assert (packed.shape, absmax.shape) == ((6, 32 * blocks), (6, blocks))
    for some in (slice(0, 2), slice(2, 6), slice(4, 4)):
        own = quantized_rows(weight[some])
        assert torch.equal(own[0], packed[some])
        assert torch.equal(own[1], absmax[some])
        assert torch.equal(dequantized(*own, columns, dtype), dequantized(packed, absmax, columns, dtype)[some])
    made = dequantized(packed, absmax, columns, dtype)
    assert made.shape == weight.shape
    assert made.dtype == dtype
    assert torch.equal(made[3], weight[3])
    largest = functional.pad(weight, (0, -columns % 64)).unflatten(1, (blocks, 64)).abs().amax(dim=2)
    apart = functional.pad(made - weight, (0, -columns % 64)).unflatten(1, (blocks, 64)).abs().amax(dim=2)
    assert bool((apart <= 0.157 * largest).all())


def test_the_dense_weight_is_not_kept_for_the_backward_pass() -> None:
    layer, kept = quantize(nn.Linear(128, 256), "linear"), []
    inputs = torch.randn(3, 128, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda value: kept.append(value) or value, lambda value: value):
        out = layer(inputs)
    assert sum(value.numel() * value.element_size() for value in kept) < 256 * 128
    out.sum().backward()
    torch.testing.assert_close(inputs.grad, layer.weight.sum(dim=0).expand(3, -1))


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


def test_a_state_in_four_bits_is_merged_by_a_skeleton() -> None:
    made = learned(quantized())
    skeleton = add_adapters(vlmkit.build(ARCHITECTURE, device="meta"), ADAPTERS)
    merged = merged_state(skeleton, made.state_dict())
    wanted = merge_adapters(made).state_dict()
    assert merged.keys() == wanted.keys()
    assert all(torch.equal(value, wanted[name]) for name, value in merged.items())


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


def test_adapters_are_saved_alone_and_loaded_over_the_weights_that_they_learned_over(tmp_path: Path) -> None:
    made = learned(quantized())
    save_adapters(made, tmp_path)
    again = load_adapters(model(ARCHITECTURE), tmp_path)
    assert torch.equal(logits(again), logits(made))


def test_rows_that_are_no_multiple_of_a_block_learn_too() -> None:
    """Hidden size 32. bitsandbytes' own layer reads such rows wrongly on a CPU."""
    made = add_adapters(model(architecture(connector="mlp")), ADAPTERS)
    learned(made)
    wanted = logits(made)
    assert float((logits(merge_adapters(made)) - wanted).norm() / wanted.norm()) < 1e-6


def test_blocks_are_compiled() -> None:
    made = quantized().train()
    loss = made(**BATCH).loss
    loss.backward()
    wanted = {name: value.grad.clone() for name, value in made.named_parameters() if value.grad is not None}
    made.zero_grad()
    torch.compiler.reset()
    for block in made.language_model.model.layers:
        block.compile(backend="aot_eager")
    found = made(**BATCH).loss
    found.backward()
    assert float(found.detach()) == pytest.approx(float(loss.detach()), abs=1e-5)
    for name, value in wanted.items():
        torch.testing.assert_close(made.get_parameter(name).grad, value, rtol=0, atol=1e-5)


def test_half_precision_computes_in_half_precision() -> None:
    made = add_adapters(model(ARCHITECTURE).to(torch.bfloat16), ADAPTERS)
    learned(made)
    assert {layer.base_layer.weight.dtype for name, layer in adapted_layers(made).items() if "language_model" in name} == {torch.bfloat16}
    wanted = logits(made)
    assert wanted.dtype == torch.bfloat16
    merge_adapters(made)
    assert {parameter.dtype for parameter in made.parameters()} == {torch.bfloat16}
