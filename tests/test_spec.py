import dataclasses
import json
import pickle
from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmkit.connectors import connectors
from vlmkit.connectors.base import Connector
from vlmkit.preprocess.policies import policies
from vlmkit.preprocess.policies.base import ImagePolicy
from vlmkit.spec import SCHEMA, Settings, Spec, SpecError


@dataclass(frozen=True, kw_only=True)
class Inner(Spec):
    count: int = 1


@dataclass(frozen=True, kw_only=True)
class Outer(Spec):
    size: int
    rate: float = 0.5
    name: str = "a"
    flag: bool = False
    maybe: int | None = None
    choice: Literal["x", "y", 1] = "x"
    pair: tuple[int, int] = (1, 2)
    many: tuple[float, ...] = ()
    fill: tuple[int, int, int] | Literal["mean"] = "mean"
    inner: Inner = Inner()
    connector: Connector | None = None
    settings: Settings = Settings()  # noqa: RUF009


whole = st.integers(-(2**70), 2**70)
finite = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | whole | finite | st.text(st.characters(codec="utf-8")),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), children, max_size=3),
    max_leaves=5,
)
outers = st.builds(
    Outer,
    size=whole,
    rate=finite,
    name=st.text(st.characters(codec="utf-8")),
    flag=st.booleans(),
    maybe=st.none() | whole,
    choice=st.sampled_from(["x", "y", 1]),
    pair=st.tuples(whole, whole),
    many=st.lists(finite, max_size=4).map(tuple),
    fill=st.just("mean") | st.tuples(whole, whole, whole),
    inner=st.builds(Inner, count=whole),
    connector=st.none() | st.just(connectors["linear"](bias=False)) | st.builds(connectors["mlp"], depth=st.integers(2, 9)),
    settings=st.dictionaries(st.text(st.characters(codec="utf-8")), json_values, max_size=3).map(Settings),
)


@given(outers)
def test_json_reads_back_exactly(spec):
    again = Outer.from_json(spec.to_json())
    assert again == spec
    assert hash(again) == hash(spec)
    assert again.to_json() == spec.to_json()
    assert Outer.from_dict(spec.to_dict()) == spec
    assert pickle.loads(pickle.dumps(spec)) == spec


WRONG = [
    ("size", True, "size: expected int, got True"),
    ("size", "3", "size: expected int, got '3'"),
    ("size", 3.0, r"size: expected int, got 3\.0"),
    ("size", None, "size: expected int, got None"),
    ("rate", "0.5", "rate: expected float, got '0.5'"),
    ("rate", True, "rate: expected float, got True"),
    ("rate", float("nan"), "rate: expected a finite number, got nan"),
    ("rate", float("inf"), "rate: expected a finite number, got inf"),
    ("rate", 10**400, "rate: expected float, got 1000"),
    ("name", 1, "name: expected str, got 1"),
    ("flag", 1, "flag: expected bool, got 1"),
    ("maybe", "1", "maybe: expected int, got '1'"),
    ("choice", "z", "choice: expected one of 'x', 'y', 1, got 'z'"),
    ("choice", True, "choice: expected one of 'x', 'y', 1, got True"),
    ("pair", (1,), "pair: expected 2 values, got 1"),
    ("pair", (1, 2, 3), "pair: expected 2 values, got 3"),
    ("pair", (1, "2"), r"pair\[1\]: expected int, got '2'"),
    ("many", (1.0, None), r"many\[1\]: expected float, got None"),
    ("fill", (1, 2), r"fill: expected .*, got \(1, 2\)"),
    ("fill", "white", "fill: expected .*, got 'white'"),
]


@pytest.mark.parametrize(("field", "value", "message"), WRONG)
def test_a_wrong_type_is_refused_when_made_and_when_decoded(field, value, message):
    with pytest.raises(SpecError, match=f"Outer.{message}"):
        Outer(**{"size": 1, field: value})
    decoded = list(value) if isinstance(value, tuple) else value
    with pytest.raises(SpecError, match=message.replace(r"\(1, 2\)", r"\[1, 2\]")):
        Outer.from_dict({"size": 1, field: decoded})


def test_a_whole_number_for_a_float_becomes_a_float():
    assert type(Outer(size=1, rate=2).rate) is float
    assert Outer.from_json(Outer(size=1, rate=2).to_json()) == Outer(size=1, rate=2.0)


@pytest.mark.parametrize(("field", "value"), [("pair", [1, 2]), ("inner", {"count": 1}), ("settings", {"a": 1})])
def test_what_json_uses_in_its_place_is_not_taken_from_python(field, value):
    with pytest.raises(SpecError, match=f"Outer.{field}: expected "):
        Outer(**{"size": 1, field: value})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"kind": "mlp", "dept": 3}, "^dept: unknown field, did you mean 'depth'"),
        ({"kind": "mlp", "zzz": 3}, "^zzz: unknown field, known: depth, hidden"),
        ({"kind": "mpl"}, "^kind: unknown connector 'mpl'; did you mean 'mlp'"),
        ({"kind": None}, "^kind: unknown connector None"),
        ({"kind": ["mlp"]}, "^kind: "),
        ({}, "^kind: missing; known: .*linear"),
        ([], r"^Connector: expected an object, got \[\]"),
    ],
)
def test_a_connector_that_cannot_be_read_says_where(data, message):
    with pytest.raises(SpecError, match=message):
        Connector.from_dict(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"connector": {"kind": "mlp", "dept": 3}}, "^connector.dept: unknown field, did you mean 'depth'"),
        ({"connector": {"kind": "mlp", "depth": "3"}}, "^connector.depth: expected int, got '3'"),
        ({"connector": {"kind": "mlp", "depth": 0}}, "^connector: mlp.depth: expected 1 or more linear layers, got 0"),
        ({"inner": {"count": False}}, "^inner.count: expected int, got False"),
        ({"inner": 3}, "^inner: expected an object, got 3"),
    ],
)
def test_a_nested_error_names_its_path(data, message):
    with pytest.raises(SpecError, match=message):
        Outer.from_dict({"size": 1} | data)


@pytest.mark.parametrize("make", [connectors["mlp"], connectors["mlp"]().replace])
def test_an_unknown_field_is_answered_with_the_nearest_wherever_it_is_given(make):
    with pytest.raises(SpecError, match=r"^mlp\.dept: unknown field, did you mean 'depth'"):
        make(dept=3)


def test_a_missing_field_is_named():
    with pytest.raises(SpecError, match=r"^size: missing$"):
        Outer.from_dict({})


def test_a_part_of_another_kind_is_refused():
    with pytest.raises(SpecError, match="kind: expected 'mlp', got 'linear'"):
        connectors["mlp"].from_dict({"kind": "linear"})


def test_replace_gives_a_checked_copy():
    spec = Outer(size=1)
    assert spec.replace(size=2) == Outer(size=2)
    assert spec == Outer(size=1)
    with pytest.raises(SpecError, match=r"^Outer\.sise: unknown field, did you mean 'size'"):
        spec.replace(sise=2)
    with pytest.raises(SpecError, match=r"^Outer\.size: expected int"):
        spec.replace(size="2")


def test_a_spec_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Outer(size=1).size = 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "^not JSON"),
        ("", "^not JSON"),
        ('{"size": ' + "9" * 5000 + "}", "^not JSON"),
        ("[" * 100_000, "^not JSON"),
        ("[1]", "^expected a JSON object, got list"),
        ('{"size": 1, "size": 2}', "^size: given twice in one object"),
        ('{"size": 1, "inner": {"count": 1, "count": 1}}', "^count: given twice"),
        ('{"size": 1, "rate": NaN}', "^rate: expected a finite number"),
        ('{"schema": 2, "size": 1}', f"^schema: this vlmkit reads schema {SCHEMA}, the text says 2; upgrade"),
        ('{"schema": true, "size": 1}', "^schema"),
        ('{"schema": 0, "size": 1}', "^schema"),
    ],
)
def test_text_that_is_not_a_spec_is_refused(text, message):
    with pytest.raises(SpecError, match=message):
        Outer.from_json(text)


GOLDEN = {
    "conv_patch_merger": """{
  "schema": 1,
  "kind": "conv_patch_merger",
  "kernel": 2,
  "norm_eps": 1e-05,
  "activation": "gelu",
  "positions": "sincos2d"
}
""",
    "smart_resize": """{
  "schema": 1,
  "kind": "smart_resize",
  "resample": "bicubic",
  "antialias": true,
  "factor": 28,
  "min_pixels": 50176,
  "max_pixels": 200704,
  "max_aspect_ratio": 200
}
""",
}


def test_univas_parts_are_written_as_they_always_were():
    """A change here changes files that people keep: raise SCHEMA and read the old form."""
    assert connectors["conv_patch_merger"]().to_json() == GOLDEN["conv_patch_merger"]
    assert policies["smart_resize"]().to_json() == GOLDEN["smart_resize"]
    assert Connector.from_json(GOLDEN["conv_patch_merger"]) == connectors["conv_patch_merger"]()
    assert ImagePolicy.from_json(GOLDEN["smart_resize"]) == policies["smart_resize"]()


def test_settings_are_a_frozen_copy_of_a_json_object():
    nested = {"a": [1, {"b": 2}]}
    settings = Settings(nested, c=3)
    nested["a"].append(4)
    settings["a"].append(5)
    assert settings.to_dict() == {"a": [1, {"b": 2}], "c": 3}
    assert settings == Settings(c=3, a=[1, {"b": 2}])
    assert hash(settings) == hash(Settings(c=3, a=[1, {"b": 2}]))
    assert (settings | {"c": 4})["c"] == 4
    assert dict(settings) == settings.to_dict()
    assert len(settings) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.d = 1


@pytest.mark.parametrize("value", [object(), {1, 2}, float("nan"), b"x"])
def test_settings_take_only_what_json_can_hold(value):
    with pytest.raises(SpecError, match="settings take what JSON can hold"):
        Settings(a=value)


def test_json_is_plain_json():
    assert json.loads(Outer(size=1, name="café").to_json())["name"] == "café"
    assert "café" in Outer(size=1, name="café").to_json()
