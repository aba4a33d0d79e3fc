"""An architecture is a value: written and read exactly, exchanged part by part, checked before anything is built."""

from __future__ import annotations

import functools
import json
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vlmkit
from tests.tiny import LANGUAGE_MODELS, architecture, language_model, model, part, picture, user
from vlmkit.architecture import Architecture, ArchitectureError
from vlmkit.features import Grid, GridError
from vlmkit.model import VLM
from vlmkit.preprocess.geometry import ImageSizeError, Size
from vlmkit.processor import VLMProcessor
from vlmkit.spec import SpecError

UNIVA = vlmkit.architecture("univa-vl")

CHANGES: dict[str, Any] = {
    "conv_patch_merger": {"kernel": st.integers(1, 4), "norm_eps": st.floats(1e-9, 1), "positions": st.sampled_from(["sincos2d", "none"])},
    "linear": {"bias": st.booleans()},
    "mlp": {"depth": st.integers(2, 5), "hidden": st.none() | st.integers(1, 99), "activation": st.sampled_from(["gelu", "silu", "relu"])},
    "pixel_shuffle": {"ratio": st.integers(1, 4), "order": st.sampled_from(["dh dw c", "c dh dw"])},
}


LAYERS = st.sampled_from([-1, -2, (-1, -2)])


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    connector = draw(st.sampled_from(sorted(CHANGES)))
    return architecture(
        policy=draw(st.sampled_from(["smart_resize", "squash", "pad_square", "center_crop"])),
        encoder=part(
            vlmkit.encoders, draw(st.sampled_from(["open_clip", "clip", "siglip"])), layer=draw(st.sampled_from([-1, -2, (-1, -2)]))
        ),
        connector=part(vlmkit.connectors, connector, **draw(st.fixed_dictionaries(CHANGES[connector]))),
        layout=draw(st.sampled_from(["run", "bracketed", "unpadded_rows"])),
        language=language_model(draw(st.sampled_from(sorted(LANGUAGE_MODELS))), rms_norm_eps=draw(st.floats(1e-9, 1e-2))),
    )


@given(arch=architectures())
def test_json_pickle_and_hash_keep_an_architecture_exactly(arch: Architecture) -> None:
    again = Architecture.from_json(arch.to_json())
    assert again == arch
    assert again.to_json() == arch.to_json()
    assert hash(again) == hash(arch) == hash(pickle.loads(pickle.dumps(arch)))
    assert {arch: 1}[again] == 1


def test_univa_takes_the_tokens_that_its_authors_state() -> None:
    counts = {(480, 640): 234, (378, 378): 196, (448, 448): 256}
    assert {size: UNIVA.tokens(Size(*size)) for size in counts} == counts


@settings(max_examples=2000)
@given(height=st.integers(1, 20000), width=st.integers(1, 20000))
def test_univa_takes_64_to_256_tokens_for_every_image_up_to_an_aspect_ratio_of_200(height: int, width: int) -> None:
    size = Size(height, width)
    if size.aspect_ratio > 200:
        with pytest.raises(ImageSizeError):
            UNIVA.tokens(size)
    else:
        assert 64 <= UNIVA.tokens(size) <= 256


@functools.cache
def built_with(connector: str, policy: str, layout: str) -> tuple[VLM, VLMProcessor]:
    arch = architecture(connector=connector, policy=policy, layout=layout)
    return model(arch), vlmkit.build_processor(arch)


@settings(max_examples=200)
@given(
    height=st.integers(8, 300),
    width=st.integers(8, 300),
    connector=st.sampled_from(["conv_patch_merger", "mlp"]),
    views=st.sampled_from([("smart_resize", "run"), ("anyres", "unpadded_rows")]),
)
def test_the_tokens_that_an_architecture_declares_are_those_that_the_model_consumes(
    height: int, width: int, connector: str, views: tuple[str, str]
) -> None:
    built, processor = built_with(connector, *views)
    batch = processor([[user(picture(height, width), "?")]])
    spec = built.config.spec
    encoded = built.get_image_features(batch["pixel_values"], batch["grids"]).tokens
    assert encoded.shape == (spec.image_tokens(spec.plan(Size(height, width))).count, 32)
    declared = spec.tokens(Size(height, width))
    stand = sum(int((batch[name] != -1).sum()) for name in ("visual_index", "learned_index") if name in batch)
    assert stand == declared == int((batch["input_ids"] == 260).sum())
    assert spec.layout.partial or len(encoded) == declared


def test_a_part_is_replaced_by_a_spec_or_by_its_name() -> None:
    arch = architecture()
    assert arch.replace(connector="mlp:depth=3,bias=false").connector == vlmkit.connectors["mlp"](depth=3, bias=False)
    assert arch.replace(encoder="timm:model=vit_base_patch16_siglip_224").encoder.model == "vit_base_patch16_siglip_224"
    assert arch.replace(connector="mlp").connector == vlmkit.connectors["mlp"]()
    assert arch.replace(connector=vlmkit.connectors["mlp"](depth=3), name="other").connector.depth == 3
    assert arch.replace(connector="mlp") != arch
    assert arch.connector.kind == "conv_patch_merger", "the original is left as it was"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"connecter": "mlp"}, r"connecter: unknown field,.*'connector'"),
        ({"connector": "mpl"}, r"unknown connector 'mpl'; did you mean 'mlp'"),
        ({"connector": 3}, r"Architecture\.connector: expected a connector, got 3"),
        ({"policy": "squash:392"}, r"expected FIELD=VALUE after the colon, got '392'"),
        ({"connector": "mlp:dept=3"}, r"connector\.dept: unknown field, did you mean 'depth'"),
        ({"policy": "squash"}, r"policy 'squash' has no default for size; pass the spec instead of its name"),
        ({"language_model": "olmo3"}, r"language model 'olmo3' is no directory here, and the hub gives no config of it"),
        ({"connector": vlmkit.policies["squash"](size=56)}, r"Architecture\.connector: expected a connector, got Squash"),
    ],
)
def test_a_replacement_that_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises((SpecError, vlmkit.RegistryError), match=message):
        architecture().replace(**changes)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda data: data.pop("encoder"), r"encoder: missing"),
        (lambda data: data["connector"].update(kernal=2), r"connector\.kernal: unknown field, did you mean 'kernel'"),
        (lambda data: data["encoder"].update(width="32"), r"encoder\.width: expected int, got '32'"),
        (lambda data: data["encoder"].update(layers=True), r"encoder\.layers: expected int, got True"),
        (lambda data: data["layout"]["template"].update(user=["a"]), r"layout\.template\.user: expected 2 values, got 1"),
        (lambda data: data.update(schema=99), r"schema: this vlmkit reads schema 1, the text says 99"),
        (
            lambda data: data["policy"].update(kind="smart_rezise"),
            r"policy\.kind: unknown policy 'smart_rezise'; did you mean 'smart_resize'",
        ),
    ],
)
def test_json_that_does_not_fit_is_refused_with_the_path_of_the_field(edit: Any, message: str) -> None:
    data = json.loads(architecture().to_json())
    edit(data)
    with pytest.raises(SpecError, match=message):
        Architecture.from_json(json.dumps(data))


def test_every_problem_is_told_not_only_the_first() -> None:
    arch = architecture(
        policy=part(vlmkit.policies, "smart_resize", factor=20),
        connector="conv_patch_merger",
        language=language_model("llama", hidden_size=34, num_attention_heads=2),
    )
    assert len(arch.problems()) == 2
    with pytest.raises(ArchitectureError) as caught:
        arch.validate()
    for problem in ("policy 'smart_resize(factor=20)' gives sides that are multiples of 20, not of the 28", "multiple of 4", "small: "):
        assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        (
            {"encoder": ("clip", {"positions": "fixed"}), "policy": ("smart_resize", {})},
            ["policy 'smart_resize'", "encoder 'clip'", "takes 42x42 pixels", "Use positions='bicubic_antialias'"],
        ),
        (
            {"encoder": ("open_clip", {"class_token": "keep"}), "connector": ("conv_patch_merger", {})},
            ["encoder 'open_clip'", "connector 'conv_patch_merger'", "class token"],
        ),
        (
            {"encoder": ("siglip", {"first_patch": "drop"}), "connector": ("pixel_shuffle", {})},
            ["encoder 'siglip'", "connector 'pixel_shuffle'", "merges 2x2 patches"],
        ),
        (
            {"policy": ("squash", {"size": 378}), "connector": ("conv_patch_merger", {})},
            ["squash(size=378)", "'open_clip'", "'conv_patch_merger'", "of 28, such as 392"],
        ),
        ({"policy": ("smart_resize", {"factor": 14}), "connector": ("conv_patch_merger", {})}, ["smart_resize(factor=14)", "such as 28"]),
    ],
)
def test_parts_that_do_not_fit_are_refused_before_anything_is_built_naming_both(parts: dict[str, Any], named: list[str]) -> None:
    registries = {"encoder": vlmkit.encoders, "policy": vlmkit.policies, "connector": vlmkit.connectors}
    arch = architecture(**{family: part(registries[family], kind, **changes) for family, (kind, changes) in parts.items()})
    with pytest.raises(ArchitectureError) as caught:
        vlmkit.build(arch, device="meta")
    for word in named:
        assert word in str(caught.value)


def test_parameters_are_those_of_the_built_model_part_by_part_and_a_tied_weight_counts_once() -> None:
    for name in LANGUAGE_MODELS:
        arch = architecture(language=name)
        built, counts = vlmkit.build(arch), arch.parameters()
        assert counts.total == built.num_parameters() == sum(parameter.numel() for parameter in built.parameters())
        assert counts.connector == sum(parameter.numel() for parameter in built.connector.parameters())
        assert counts.language_model == sum(parameter.numel() for parameter in built.language_model.parameters())


def test_views_and_grids_of_an_image() -> None:
    arch = architecture()
    plan = arch.plan(Size(56, 84))
    assert plan.grids(arch.encoder.patch_size) == (Grid(1, 4, 6),)
    assert arch.image_tokens(plan).grids == (Grid(1, 2, 3),)
    assert arch.image_tokens(plan).count == 6
    with pytest.raises(GridError):
        arch.replace(encoder=part(vlmkit.encoders, "clip", positions="fixed")).tokens(Size(56, 84))


def test_a_size_that_is_none_is_answered_with_one_that_is() -> None:
    univa = vlmkit.architecture("univa-vl")
    for call in (univa.tokens, univa.plan):
        with pytest.raises(ImageSizeError, match=r"such as vlmkit\.Size\(height=480, width=640\), got \(480, 640\)"):
            call((480, 640))


def test_a_part_is_exchanged_by_what_it_is_written_as() -> None:
    univa = vlmkit.architecture("univa-vl")
    assert univa.replace(connector={"kind": "mlp", "depth": 3}) == univa.replace(connector=vlmkit.connectors["mlp"](depth=3))
    assert univa.replace(**{name: value for name, value in univa.to_dict().items() if name not in ("name", "kind")}) == univa
    with pytest.raises(SpecError, match=r"^connector\.dept: unknown field, did you mean 'depth'"):
        univa.replace(connector={"kind": "mlp", "dept": 3})
