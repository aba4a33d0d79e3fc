"""In what two JSON documents differ."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vlmkit.differences import differences

DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=2), inner, max_size=3),
    max_leaves=8,
)


@given(DOCUMENTS)
def test_a_document_does_not_differ_from_itself(document: object) -> None:
    assert list(differences(document, document)) == []


@given(DOCUMENTS, DOCUMENTS)
def test_what_differs_one_way_differs_the_other(one: object, other: object) -> None:
    there = [(a, b) for _, a, b in differences(one, other)]
    back = [(b, a) for _, a, b in differences(other, one)]
    assert sorted(map(repr, there)) == sorted(map(repr, back))


def test_paths_name_keys_and_named_things_and_missing_values_are_none() -> None:
    one = {"seed": 0, "stages": [{"name": "align", "steps": 5}, {"name": "tune", "steps": 7}], "old": 1, "sizes": [1, 2]}
    other = {"seed": 0, "stages": [{"name": "align", "steps": 6}, {"name": "tune", "steps": 7}], "new": 2, "sizes": [1]}
    assert [tuple(difference) for difference in differences(one, other)] == [
        ("stages[align].steps", 5, 6),
        ("old", 1, None),
        ("sizes", [1, 2], [1]),
        ("new", None, 2),
    ]


def test_objects_of_different_kinds_are_one_difference_where_a_tag_says_so() -> None:
    one, other = {"connector": {"kind": "mlp", "depth": 2}}, {"connector": {"kind": "linear", "bias": True}}
    assert [path for path, _, _ in differences(one, other, tag="kind")] == ["connector"]
    assert [path for path, _, _ in differences(one, other)] == ["connector.kind", "connector.depth", "connector.bias"]


def test_true_is_one_and_one_is_a_float_unless_asked_otherwise() -> None:
    one, other = {"a": True, "b": 1}, {"a": 1, "b": 1.0}
    assert list(differences(one, other)) == []
    strict = differences(one, other, same=lambda mine, theirs: mine == theirs and type(mine) is type(theirs))
    assert [path for path, _, _ in strict] == ["a", "b"]
