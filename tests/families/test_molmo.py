"""Molmo beside upstream's own numbers: tokens, places, padding, pixels, logits, greedy answers, packed annotations, checkpoints."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from families.molmo import DECODERS, ROW, SIZES, TINY, built, normalised, picture, weights
from families.record import record
from families.system import user
from safetensors.torch import load_file, save_file
from torch import Tensor

import vlmkit
from tests.families.trained import assert_it_trains
from tests.molmo_upstream import arrays, golden
from tests.tiny import apart
from vlmkit.batch.sample import PreparedSample
from vlmkit.checkpoints import export
from vlmkit.checkpoints.molmo import described
from vlmkit.checkpoints.molmo_weights import HEAD, to_ours, to_theirs
from vlmkit.encoders.padding_marks import PADDING, PICTURE, SOME, PaddingMarks
from vlmkit.features import View
from vlmkit.preprocess import Size
from vlmkit.processor import VLMProcessor

GOLDEN: Any = arrays()
NOTES = golden("whole")
every_decoder = pytest.mark.parametrize("decoder", DECODERS)
every_picture = pytest.mark.parametrize("number", range(len(SIZES)))


def processor() -> VLMProcessor:
    return vlmkit.build_processor("molmo-tiny")


def shown(number: int) -> Any:
    return picture(*SIZES[number], number)


def conversation(number: int) -> list[dict[str, Any]]:
    answers = [{"role": "assistant", "content": text} for text in ("A picture.", "Yes.")]
    return [user("What is this?", shown(number)), answers[0], user("Sure?"), answers[1]]


def exact(batch: Any, *numbers: int) -> Any:
    """The batch with upstream's own pixels, which are never rounded to whole values: logits then differ by arithmetic alone."""
    plans = [TINY.plan(Size(*SIZES[number])) for number in numbers]
    batch["pixel_values"] = torch.cat([normalised(shown(number), plan, 14) for number, plan in zip(numbers, plans, strict=True)])
    return batch


def of_golden(name: str) -> Tensor:
    return torch.from_numpy(GOLDEN[name])


@every_picture
def test_ids_and_what_is_supervised_are_upstreams(number: int) -> None:
    """Upstream's inputs end before the last token, which is a target alone."""
    batch = processor()([conversation(number)])
    ids, labels = batch["input_ids"][0], batch["labels"][0]
    assert ids[:-1].tolist() == GOLDEN[f"ids-{number}"].tolist()
    assert (labels[1:] != -100).tolist() == GOLDEN[f"mask-{number}"].tolist()
    assert ids[-1] == TINY.language_model.config["eos_token_id"]
    record(ROW, layout=True)


@every_picture
def test_each_visual_token_stands_where_upstream_adds_it(number: int) -> None:
    places = GOLDEN[f"idx-{number}"].ravel()
    index = processor()([conversation(number)])["visual_index"][0]
    assert int((index >= 0).sum()) == int((places >= 0).sum()) == TINY.tokens(Size(*SIZES[number]))
    for token, place in enumerate(places.tolist()):
        assert place < 0 or int(index[place]) == token


def states(arch: vlmkit.Architecture, size: Size) -> np.ndarray:
    """(views, patches) of what the tower marks."""
    plan = arch.plan(size)
    views = tuple(View(grid, 0, *at, 0, *padding) for grid, at, padding in zip(plan.grids(14), plan.places, plan.padding, strict=True))
    with torch.device("meta"):
        marks = PaddingMarks(arch.encoder)
    return torch.stack(marks.states(views)).numpy()


def as_upstream(found: np.ndarray) -> np.ndarray:
    """0 where all of a patch is padding, 1 where some is, 2 where none."""
    return np.select([found == PADDING, found == SOME, found == PICTURE], [0, 1, 2]).astype(np.int8)


@every_picture
def test_padding_is_marked_where_upstream_marks_it(number: int) -> None:
    mask = GOLDEN[f"padding-{number}"]
    assert (mask < 1).any()
    assert np.array_equal(as_upstream(states(TINY, Size(*SIZES[number]))), np.where(mask == 0, 0, np.where(mask < 1, 1, 2)))


def test_padding_is_marked_where_upstream_marks_it_for_every_grid_of_crops() -> None:
    arch = vlmkit.architecture("molmo-7b-d")
    for height, width, *_, digest in golden("sizes")["order"]:
        found = as_upstream(states(arch, Size(height, width)))
        assert hashlib.sha256(found.tobytes()).hexdigest()[:16] == digest, (height, width)


def test_tokens_of_two_thousand_sizes_are_upstreams() -> None:
    arch = vlmkit.architecture("molmo-7b-d")
    for height, width, _, _, visual, _ in golden("sizes")["sizes"]:
        assert arch.tokens(Size(height, width)) == visual, (height, width)


@every_picture
def test_pixels_are_upstreams(number: int) -> None:
    """What is compared with is upstream's own, which is never rounded. vlmkit's bytes are rounded after each of two passes of a resampling,
    by up to 0.5 each: they are 1.03 of 255 away at most, allowed 1.5, and 0.29 on average."""
    wanted = of_golden(f"pixels-{number}")
    theirs = exact({}, number)["pixel_values"]
    ours = built("qwen2").encoder.normalise(processor()([conversation(number)])["pixel_values"])

    def sampled(patches: Tensor) -> Tensor:
        """Upstream cuts a patch by row, column and channel."""
        return patches.view(len(wanted), 36, 3, 196).transpose(2, 3).flatten(2)[:, ::7, ::49]

    assert apart(sampled(theirs), wanted) < 1e-5
    worst = 255 * 0.27 * apart(ours, theirs)
    assert worst < 1.5
    assert 255 * 0.27 * (ours - theirs).abs().mean() < 0.35
    record(ROW, pixels=worst)


@every_decoder
def test_logits_and_loss_are_upstreams_alone_and_in_a_batch(decoder: str) -> None:
    model, numbers = built(decoder), range(len(SIZES))
    together = exact(processor()([conversation(number) for number in numbers]), *numbers)
    worst = 0.0
    with torch.no_grad():
        batched = model(**together).logits
        for number in numbers:
            batch = exact(processor()([conversation(number)]), number)
            alone, wanted = model(**batch), of_golden(f"logits-{decoder}-{number}")
            length = batch["input_ids"].shape[1] - 1
            for logits in (alone.logits[0], batched[number]):
                worst = max(worst, apart(logits[:length][::2, ::8], wanted))
            assert alone.loss.item() == pytest.approx(NOTES[decoder][f"loss-{number}"], abs=1e-5)
    assert worst < 1e-4, worst
    record(ROW, logits=worst, reference="Molmo")


@every_decoder
@every_picture
def test_greedy_generation_is_upstreams_token_for_token(decoder: str, number: int) -> None:
    batch = exact(processor()([conversation(number)[:1]], add_generation_prompt=True), number)
    ids = built(decoder).generate(**batch, max_new_tokens=8, min_new_tokens=8, do_sample=False)
    wanted = NOTES[decoder][f"greedy-{number}"]
    end = TINY.language_model.config["eos_token_id"]
    length = wanted.index(end) if end in wanted else 8  # min_new_tokens lets no answer end before
    assert ids[0, batch["input_ids"].shape[1] :].tolist()[:length] == wanted[:length]
    record(ROW, generates=True)


ANNOTATIONS = (("What is this?", "A picture."), ("Where?", "Here."), ("How many are there?", "Two of them."))


@pytest.mark.parametrize("packed", [False, True])
def test_annotations_of_one_image_have_the_logits_that_upstream_gives_them_in_one_row(packed: bool) -> None:
    """Upstream puts them behind one copy of the image; each sees that and itself, and is counted on from it."""
    maker = processor()
    image = maker.render_image(shown(0))
    said = [[user(question, shown(0)), {"role": "assistant", "content": answer}] for question, answer in ANNOTATIONS]
    sample = PreparedSample((image,), tuple(maker.lay_out(one, (image,)) for one in said))
    batch = exact(maker.pack([sample]) if packed else maker.collate([sample]), 0)
    with torch.no_grad():
        logits = built("qwen2")(**batch).logits
    ids, segments, positions = (GOLDEN[f"several-{name}"] for name in ("ids", "segments", "positions"))
    wanted = of_golden("several-logits")
    worst = 0.0
    for number, layout in enumerate(sample.layouts):
        row = logits[0][batch["segments"][0] == number] if packed else logits[number][: len(layout.ids)]
        places = np.flatnonzero((segments == 10000) | (segments == number + 1))
        length = len(places)
        assert positions[places].tolist() == list(range(length))
        assert ids[places].tolist() == list(layout.ids)[:length]
        assert len(layout.ids) - length == (number == len(ANNOTATIONS) - 1)
        kept = places % 2 == 0
        worst = max(worst, apart(row[:length][kept][:, ::8], wanted[places[kept] // 2]))
    assert worst < 1e-4, worst
    assert np.unique(GOLDEN["several-weights"]).tolist() == pytest.approx([0, 3**-0.5])


def test_the_image_moves_the_logits() -> None:
    batch = processor()([conversation(0)])
    with torch.no_grad():
        seen = built("qwen2")(**batch).logits
        batch["pixel_values"] = 255 - batch["pixel_values"]
        assert apart(seen, built("qwen2")(**batch).logits) > 1e-2


def test_published_sizes_are_upstreams() -> None:
    for name, counts in ROW.counts.items():
        assert vlmkit.architecture(name).parameters() == counts, name
    assert ROW.counts["molmo-7b-d"].total == 8_021_025_280
    with torch.device("meta"):
        words = vlmkit.architecture("molmo-1b-e").language_model.transformers_config()
        experts = transformers.OlmoeForCausalLM(words)
    assert sum(weight.numel() for weight in experts.parameters()) + 128 * 2048 == ROW.counts["molmo-1b-e"].language_model
    record(ROW, builds=len(ROW.counts), parameters={name: counts.total for name, counts in ROW.counts.items()})


def published(decoder: str, place: Path) -> None:
    """A directory as upstream's weights and the published config would make it."""
    model = built(decoder)
    export(model, processor(), place)
    held = weights(model, DECODERS[decoder]).items()
    save_file({name if name == HEAD else f"model.{name}": value for name, value in held}, place / "model.safetensors")


@every_decoder
def test_a_directory_with_upstreams_weights_is_loaded_and_written_again(decoder: str, tmp_path: Path) -> None:
    published(decoder, tmp_path / "published")
    model, maker = vlmkit.load(tmp_path / "published")
    batch = exact(maker([conversation(0)]), 0)
    with torch.no_grad():
        assert apart(model(**batch).logits[0, :-1][::2, ::8], of_golden(f"logits-{decoder}-0")) < 1e-4
    found, arch = model.config.spec, DECODERS[decoder]
    assert found.replace(name=arch.name, language_model=arch.language_model) == arch
    assert found.language_model.unspoken == arch.language_model.unspoken
    export(model, maker, tmp_path / "again")
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("published", "again"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    config = json.loads((tmp_path / "again" / "config.json").read_text())
    wide = "mlp_hidden_size" if decoder == "olmoe" else "intermediate_size"
    assert (config["model_type"], config[wide], config["vit_layers"]) == ("molmo", 128, [-2, -3])
    record(ROW, loads=True, exports=True)


def test_missing_and_unexpected_keys_are_listed(tmp_path: Path) -> None:
    published("qwen2", tmp_path)
    held = load_file(tmp_path / "model.safetensors")
    del held["model.transformer.blocks.1.ff_norm.weight"]
    save_file(held | {"model.stranger": torch.zeros(1)}, tmp_path / "model.safetensors")
    missing = r"missing language_model\.model\.layers\.1\.post_attention_layernorm\.weight.*unexpected stranger"
    with pytest.raises(vlmkit.SpecError, match=f"(?s){missing}"):
        vlmkit.load(tmp_path)


def test_experts_are_read_as_upstream_trains_them_too() -> None:
    """One matrix for all experts of a projection, those of the way out transposed: `convert_state_dict_olmoe` of upstream's scripts."""
    model, arch = built("olmoe"), DECODERS["olmoe"]
    theirs = {name.removeprefix("model."): value for name, value in to_theirs(model.state_dict(), arch).items()}
    trained = {name: value for name, value in theirs.items() if ".mlp." not in name and ".attn." not in name and name != HEAD}
    trained["transformer.ff_out.weight"] = theirs[HEAD]
    for block in (f"transformer.blocks.{number}" for number in range(2)):
        for name in ("att_proj", "attn_out", "q_norm", "k_norm", "attn_norm"):
            trained[f"{block}.{name}.weight"] = theirs[f"{block}.attn.{name}.weight"]
        trained[f"{block}.ff_norm.weight"] = theirs[f"{block}.mlp.ff_norm.weight"]
        trained[f"{block}.ffn.router.layer.weight"] = theirs[f"{block}.mlp.gate.weight"]
        for name, ours in (("w1", "gate_proj"), ("v1", "up_proj"), ("w2", "down_proj")):
            each = [theirs[f"{block}.mlp.experts.{expert}.{ours}.weight"] for expert in range(4)]
            trained[f"{block}.ffn.experts.mlp.{name}"] = torch.cat([one.t() if name == "w2" else one for one in each])
    found, wanted = to_ours(trained, arch), model.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_missing_expert_is_named(tmp_path: Path) -> None:
    published("olmoe", tmp_path)
    held = load_file(tmp_path / "model.safetensors")
    del held["model.transformer.blocks.1.mlp.experts.2.up_proj.weight"]
    save_file(held, tmp_path / "model.safetensors")
    with pytest.raises(vlmkit.SpecError, match=r"missing transformer\.blocks\.1\.mlp\.experts\.2\.up_proj\.weight of 4 experts"):
        vlmkit.load(tmp_path)


@pytest.mark.parametrize(
    ("decoder", "field", "value"),
    [
        ("olmoe", "rope_impl", "cockatoo"),
        ("olmoe", "moe_shared_expert", True),
        ("olmoe", "clip_qkv", 8.0),
        ("olmoe", "image_pooling_2d", "stack"),
        ("qwen2", "clip_qkv", 8.0),
        ("olmo2", "layer_norm_type", "default"),
    ],
)
def test_a_config_that_would_compute_otherwise_is_refused(decoder: str, field: str, value: object, tmp_path: Path) -> None:
    published(decoder, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert field in config
    (tmp_path / "config.json").write_text(json.dumps(config | {field: value}))
    with pytest.raises(vlmkit.SpecError, match=f"config.json.{field}: {value!r} is not built"):
        vlmkit.load(tmp_path)


PUBLISHED: dict[str, Any] = {
    "attention_layer_norm": True,
    "block_type": "moe",
    "clip_qkv": None,
    "d_model": 2048,
    "embedding_size": 50304,
    "layer_norm_eps": 1e-5,
    "max_position_embeddings": 32768,
    "max_sequence_length": 4096,
    "mlp_hidden_size": None,
    "mlp_ratio": 1,
    "moe_num_experts": 64,
    "moe_top_k": 8,
    "n_heads": 16,
    "n_kv_heads": None,
    "n_layers": 16,
    "norm_after": False,
    "qkv_bias": False,
    "rope_theta": 10000.0,
    "vision_backbone": {"image_num_heads": 16},
    "vit_layers": [-2, -9],
    "vocab_size": 50280,
}
"""Of config.json of allenai/MolmoE-1B-0924, what says which model it is."""


def test_the_published_config_and_shapes_of_molmoe_describe_the_named_model() -> None:
    arch = vlmkit.architecture("molmo-1b-e")
    held = to_theirs(vlmkit.build(arch, device="meta").state_dict(), arch)
    assert len(held) == 16 * (64 * 3 + 7) + 23 * 16 + 5 + 1 + 8 + 3 + 4
    shapes = {name.removeprefix("model."): tuple(value.shape) for name, value in held.items()}
    assert shapes["transformer.blocks.15.mlp.experts.63.down_proj.weight"] == (2048, 1024)
    assert sum(value.numel() for value in held.values()) == ROW.counts["molmo-1b-e"].total
    ids = {"tokenizer": "allenai/MolmoE-1B-0924", "bos_token_id": 50279, "eos_token_id": 50279, "pad_token_id": 1}
    found = described(PUBLISHED, {}, shapes.__getitem__, [*shapes], "<|endoftext|>", ids)
    words, checkpoint = found.language_model.replace(checkpoint="allenai/OLMoE-1B-7B-0924"), arch.encoder.checkpoint
    assert found.replace(name=arch.name, language_model=words, encoder=found.encoder.replace(checkpoint=checkpoint)) == arch


def test_another_policy_another_language_model_and_another_sum_of_experts_are_refused(tmp_path: Path) -> None:
    other = vlmkit.build(TINY.replace(policy=TINY.policy.replace(fill=(1, 2, 3))), seed=0)
    with pytest.raises(vlmkit.SpecError, match="MolmoForCausalLM cannot express the policy of molmo-tiny"):
        export(other, processor(), tmp_path / "other")
    with pytest.raises(vlmkit.SpecError, match="of type qwen2, olmo2, olmoe, not of 'llama'"):
        to_theirs({}, TINY.replace(language_model=TINY.language_model.replace(model_type="llama")))
    words = DECODERS["olmoe"].language_model
    evened = DECODERS["olmoe"].replace(language_model=words.replace(config=words.config | {"norm_topk_prob": True}))
    with pytest.raises(vlmkit.SpecError, match="it has no norm_topk_prob=True"):
        export(vlmkit.build(evened, seed=0), processor(), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_it_trains_a_step() -> None:
    model = vlmkit.build("molmo-tiny", seed=0)
    batch = processor()([conversation(0)])
    assert_it_trains(model, batch)
    record(ROW, trains=True)
