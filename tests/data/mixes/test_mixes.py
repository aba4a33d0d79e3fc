"""Mixtures that papers name: every source can be read and filtered as it says, and is drawn as often as the paper draws it."""

from __future__ import annotations

import inspect
import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import vlmkit
from tests.data.packs import sample
from vlmkit.cli import main
from vlmkit.data.mixes import Group, Ingredient, Mix, add_mix, list_mixes, mix
from vlmkit.data.sample import DataError
from vlmkit.data.shards.pack import pack
from vlmkit.registry import RegistryError
from vlmkit.training.stage import Source, Stage
from vlmkit.training.stage_files import stages_from_yaml
from vlmkit.written import read_fields

MIXES = [mix(name) for name in list_mixes()]


def test_every_source_is_read_and_filtered_by_what_there_is():
    assert [each.name for each in MIXES] == [
        "llava-1.6-align",
        "llava-1.6-instruct",
        "maya-align",
        "maya-instruct",
        "molmo-captions",
        "molmo-pixmo",
    ]
    for each in MIXES:
        assert len({source.name for source in each.sources}) == len(each.sources)
        for source in each.sources:
            for registry, text in [(vlmkit.formats, source.format), *((vlmkit.filters, one) for one in source.filters)]:
                kind, options = read_fields(text)
                assert options.keys() <= inspect.signature(registry[kind]).parameters.keys()


def test_molmo_draws_by_the_root_of_sizes_within_its_groups():
    sizes = {"caption": 712_000, "textvqa": 34_602, "docvqa": 39_463, "clocks": 800_269, "points": 1_000_000, "count": 40_000}
    weights = mix("molmo-pixmo").weights(sizes)
    assert math.isclose(sum(weights.values()), 1)
    assert math.isclose(weights["caption"], 0.15)
    assert math.isclose(weights["points"] / weights["count"], math.sqrt(1_000_000 / 40_000))
    assert math.isclose(weights["points"] + weights["count"], 0.35)
    assert math.isclose(weights["clocks"] / weights["textvqa"], math.sqrt(250_000 / 34_602))


@given(st.dictionaries(st.sampled_from([source.name for source in mix("molmo-pixmo").sources]), st.integers(1, 10**9), min_size=1))
def test_whatever_is_there_is_drawn_and_the_shares_make_a_whole(sizes):
    weights = mix("molmo-pixmo").weights(sizes)
    assert weights.keys() == sizes.keys()
    assert all(weight > 0 for weight in weights.values())
    assert math.isclose(sum(weights.values()), 1)


def test_maya_draws_each_caption_as_often_as_every_other():
    weights = mix("maya-align").weights({"captions-english": 3, "captions-hindi": 1})
    assert weights == {"captions-english": 0.75, "captions-hindi": 0.25}


@pytest.mark.parametrize("sizes", [{}, {"caption": 0}, {"captions": 3}])
def test_sizes_that_make_no_mixture_are_refused(sizes):
    with pytest.raises(DataError, match="molmo-captions"):
        mix("molmo-captions").weights(sizes)


def test_names(monkeypatch):
    monkeypatch.setattr("vlmkit.data.mixes._own", {})
    with pytest.raises(RegistryError, match="did you mean 'molmo-pixmo'"):
        mix("molmo-pixmoo")
    own = Mix(name="mine", about="Mine.", groups=(Group(share=1.0, sources=(Ingredient(name="a", published="here", format="chat"),)),))
    assert add_mix(own) is add_mix(own) is mix("mine")
    with pytest.raises(RegistryError, match="already registered"):
        add_mix(Mix(name="molmo-pixmo", about="", groups=()))


def test_the_command_lists_says_how_to_pack_and_weighs_what_is_there(tmp_path, capsys):
    assert main(["data", "mix"]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in list_mixes())
    assert main(["data", "mix", "maya-align"]) == 0
    assert "vlmkit data pack FOLDER shards/captions-hindi --format 'llava:name=*_hindi.json' --filter 'without:" in capsys.readouterr().out
    for name, count in (("captions-english", 3), ("captions-hindi", 1)):
        pack(map(sample, range(count)), tmp_path / name, workers=0)
    assert main(["data", "mix", "maya-align", "--data", str(tmp_path)]) == 0
    told = capsys.readouterr()
    sources = [Source(**row) for row in yaml.safe_load(told.out)["data"]]
    assert sources == [Source(name="captions-english", weight=0.75), Source(name="captions-hindi", weight=0.25)]
    assert "left out: captions-chinese" in told.err
    assert "conversations:" not in told.out
    assert main(["data", "mix", "--data", str(tmp_path)]) == 2
    assert main(["data", "mix", "maya", "--data", str(tmp_path)]) == 2
    assert main(["data", "mix", "maya-align", "--data", str(tmp_path / "no")]) == 2
    assert main(["data", "mix", "molmo-captions", "--data", str(tmp_path)]) == 1


def test_what_molmos_mixture_prints_is_a_stage_that_weighs_annotations_by_the_root(tmp_path, capsys):
    for name in ("points", "caption"):
        pack(map(sample, range(3)), tmp_path / name, workers=0)
    assert main(["data", "mix", "molmo-pixmo", "--data", str(tmp_path)]) == 0
    lines = ["  - name: align", "    steps: 1", "    batch_size: 1", "    connector: 1e-3"]
    lines += [f"    {line}" for line in capsys.readouterr().out.splitlines()]
    (stage,) = stages_from_yaml("stages:\n" + "\n".join(lines))
    assert stage.conversations == "root"
    assert {source.name for source in stage.data} == {"points", "caption"}
    assert Stage.from_dict(stage.to_dict()) == stage
    assert mix("molmo-captions").conversations == "alike"
