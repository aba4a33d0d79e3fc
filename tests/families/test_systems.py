"""Every published system beside its reference: one law a test, one system a row."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from families.record import record
from families.registered import SYSTEMS
from families.system import Conversation, Reference, System, images_of, user
from families.tiny import picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import vlmkit
from tests.families.trained import assert_it_trains
from vlmkit.checkpoints import export
from vlmkit.model import VLM
from vlmkit.preprocess.geometry import Size
from vlmkit.processor import VLMProcessor

every_system = pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.tiny)


@cache
def reference_of(system: System) -> Reference:
    return system.reference()


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Each system's reference, written by its own save_pretrained in several shards."""
    made: dict[str, Path] = {}

    def of(system: System) -> Path:
        if system.tiny not in made:
            made[system.tiny] = tmp_path_factory.mktemp(system.tiny)
            reference = reference_of(system)
            reference.model.save_pretrained(made[system.tiny], max_shard_size="60KB")
            reference.processor.save_pretrained(made[system.tiny])
        return made[system.tiny]

    return of


@pytest.fixture(scope="module")
def loaded(directories: Any) -> Any:
    """(model, processor) of each system's directory, loaded once."""
    made: dict[str, tuple[VLM, VLMProcessor]] = {}

    def of(system: System) -> tuple[VLM, VLMProcessor]:
        if system.tiny not in made:
            made[system.tiny] = vlmkit.load(directories(system))
        return made[system.tiny]

    return of


def conversations(system: System) -> dict[str, Conversation]:
    first, second, third, *_ = (picture(size.height, size.width, seed) for seed, size in enumerate(system.sizes))
    return {
        "one image": [user("What is this?", first)],
        "several images": [user("Which is larger?", second, third)],
        "text only": [user("Who are you?")],
    }


def logits_of_reference(reference: Reference, inputs: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        found: Tensor = reference.model(**inputs).logits[0]
    return found


def class_of(reference: Reference) -> str:
    """The published model class; a subclass that only these tests have goes by its base."""
    return next(cls.__name__ for cls in type(reference.model).__mro__ if not cls.__module__.startswith("families."))


def batch_with(processor: VLMProcessor, rows: list[Conversation], patches: list[Tensor]) -> Any:
    """vlmkit's batch of the conversations, over the reference's own pixels: logits then differ by arithmetic alone."""
    batch = processor(rows, add_generation_prompt=True)
    if patches:
        assert sum(len(patch) for patch in patches) == len(batch["pixel_values"])
        batch["pixel_values"] = torch.cat(patches)
    return batch


@every_system
def test_published_models_have_their_published_parameters(system: System) -> None:
    for name, counts in system.counts.items():
        assert vlmkit.architecture(name).parameters() == counts, name
    record(system, builds=len(system.counts), parameters={name: counts.total for name, counts in system.counts.items()})


@every_system
def test_a_published_directory_is_the_named_tiny_model(system: System, loaded: Any) -> None:
    model, _ = loaded(system)
    found, named = model.config.spec, vlmkit.architecture(system.tiny)
    same = {"name": system.tiny, "language_model": named.language_model}
    assert found.replace(**same) == named
    assert found.language_model.transformers_config().to_diff_dict() == named.language_model.transformers_config().to_diff_dict()


@every_system
def test_logits_equal_the_reference_alone_and_in_a_batch(system: System, loaded: Any) -> None:
    model, processor = loaded(system)
    reference = reference_of(system)
    rows = conversations(system)
    inputs = {name: reference.inputs(reference.processor, row) for name, row in rows.items()}
    expected = {name: logits_of_reference(reference, given) for name, given in inputs.items()}
    patches = [reference.patches(inputs[name], model.config.spec.encoder) for name, row in rows.items() if images_of(row)]
    together = batch_with(processor, list(rows.values()), patches)
    with torch.no_grad():
        logits = model(**together).logits
    worst = 0.0
    for number, name in enumerate(rows):
        size = len(expected[name])
        worst = max(worst, float((logits[number, -size:] - expected[name]).abs().max()))
        own = [reference.patches(inputs[name], model.config.spec.encoder)] if images_of(rows[name]) else []
        with torch.no_grad():
            alone = model(**batch_with(processor, [rows[name]], own)).logits[0]
        worst = max(worst, float((alone - expected[name]).abs().max()))
    assert worst <= system.logits_within, worst
    record(system, logits=worst, reference=class_of(reference))


@every_system
def test_the_image_moves_the_logits(system: System, loaded: Any) -> None:
    model, processor = loaded(system)
    rows = conversations(system)
    with torch.no_grad():
        seen = model(**processor([rows["one image"]])).logits
        other = copy.copy(rows["one image"][0])
        height, width = system.sizes[0].height, system.sizes[0].width
        other["content"] = [{"type": "image", "image": picture(height, width, seed=99)}, *other["content"][1:]]
        changed = model(**processor([[other]])).logits
    assert float((seen - changed).abs().max()) > 1e-2


@every_system
def test_greedy_generation_is_the_references_token_for_token(system: System, loaded: Any) -> None:
    model, processor = loaded(system)
    reference = reference_of(system)
    for name, row in conversations(system).items():
        inputs = reference.inputs(reference.processor, row)
        own = [reference.patches(inputs, model.config.spec.encoder)] if images_of(row) else []
        limit = {"max_new_tokens": 8, "do_sample": False}
        expected = reference.model.generate(**inputs, **limit, **reference.generate)[0, inputs["input_ids"].shape[1] :]
        batch = batch_with(processor, [row], own)
        found = model.generate(**batch, **limit)[0, batch["input_ids"].shape[1] :]
        assert found.tolist() == expected.tolist(), name
    record(system, generates=True)


@every_system
def test_pixels_and_token_ids_are_the_references(system: System, loaded: Any) -> None:
    model, processor = loaded(system)
    reference = reference_of(system)
    encoder = model.config.spec.encoder
    low, high = system.pixel_sizes
    side = st.integers(low, high)
    worst = 0.0

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(side, side).map(lambda sides: Size(*sides)).filter(system.servable), min_size=1, max_size=2))
    def compare(sizes: list[Size]) -> None:
        nonlocal worst
        row = [user("What?", *(picture(size.height, size.width, seed) for seed, size in enumerate(sizes)))]
        inputs = reference.inputs(reference.processor, row)
        batch = processor([row], add_generation_prompt=True)
        assert batch["input_ids"][0].tolist() == inputs["input_ids"][0].tolist()
        theirs = reference.patches(inputs, encoder)
        ours = model.encoder.normalise(batch["pixel_values"])
        assert ours.shape == theirs.shape
        std = torch.tensor(encoder.std).repeat_interleave(encoder.values // 3)
        worst = max(worst, float(((ours - theirs) * std * 255).abs().max()))

    compare()
    assert worst <= 2.01, worst
    record(system, pixels=worst, layout=True)


@every_system
def test_an_exported_directory_is_the_references_own(system: System, loaded: Any, tmp_path: Path) -> None:
    model, processor = loaded(system)
    reference = reference_of(system)
    export(model, processor, tmp_path)
    again = type(reference.model).from_pretrained(tmp_path).eval()
    theirs, ours = (
        {name: weight for name, weight in model.state_dict().items() if not name.startswith(system.unread)}
        for model in (reference.model, again)
    )
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
    read_back = reference.read_processor(type(reference.processor), tmp_path)
    for row in conversations(system).values():
        expected, found = reference.inputs(reference.processor, row), reference.inputs(read_back, row)
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)
        with torch.no_grad():
            assert torch.equal(again(**found).logits, reference.model(**expected).logits)
    record(system, loads=True, exports=True)


@every_system
def test_half_precision_stays_half_precision(system: System, directories: Any, tmp_path: Path) -> None:
    model, processor = vlmkit.load(directories(system), dtype="bfloat16")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    export(model, processor, tmp_path)
    again, _ = vlmkit.load(tmp_path)
    assert {parameter.dtype for parameter in again.parameters()} == {torch.bfloat16}


@every_system
def test_missing_and_unexpected_keys_are_listed(system: System, directories: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights: dict[str, Tensor] = {}
    for file in sorted(directories(system).iterdir()):
        if file.suffix == ".safetensors":
            weights |= load_file(file)
        elif file.name != "model.safetensors.index.json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    del weights[next(name for name in sorted(weights) if "mlp" in name)]
    weights["stranger.weight"] = torch.zeros(1)
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(vlmkit.SpecError, match=r"(?s)missing.*unexpected stranger\.weight"):
        vlmkit.load(tmp_path)


@every_system
def test_every_system_trains_a_step(system: System) -> None:
    model = vlmkit.build(system.tiny, seed=0)
    processor = vlmkit.build_processor(system.tiny, tokenizer=reference_of(system).processor.tokenizer)
    size = system.sizes[0]
    row = [user("What is this?", picture(size.height, size.width)), {"role": "assistant", "content": "A picture."}]
    batch = processor([row])
    assert_it_trains(model, batch)
    record(system, trains=True)
