"""Answers on disk: what is whole is kept, what is torn is dropped, another evaluation's are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmkit.evaluation.answer_files import CONFIGURATION, AnswerFile, EvaluationError, begin, clear

ANSWERS = [((0, False), "nokia"), ((0, True), "a\nb \u2028 é"), ((7, False), ""), ((7, True), "\udce9")]


@given(st.integers(0, 400))
def test_a_file_cut_anywhere_keeps_its_whole_lines_and_goes_on(tmp_path_factory, at):
    folder = tmp_path_factory.mktemp("cut")
    assert begin(folder, {"seed": 0}) == {}
    with AnswerFile(folder, 0) as file:
        file.add(ANSWERS)
    path = folder / "answers.0.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[: min(at, len(whole))])
    kept = begin(folder, {"seed": 0})
    assert kept == dict(ANSWERS[: whole[: min(at, len(whole))].count(b"\n")])
    with AnswerFile(folder, 0) as file:
        file.add(ANSWERS[len(kept) :])
    assert path.read_bytes() == whole
    assert begin(folder, {"seed": 0}) == dict(ANSWERS)


def test_files_of_all_processes_are_read(tmp_path):
    begin(tmp_path, {})
    for rank in range(4):
        with AnswerFile(tmp_path, rank) as file:
            file.add(ANSWERS[rank : rank + 1])
    assert begin(tmp_path, {}) == dict(ANSWERS)


def test_another_evaluation_is_refused_until_it_is_forgotten(tmp_path):
    begin(tmp_path, {"seed": 0, "task": "gqa"})
    with AnswerFile(tmp_path, 0) as file:
        file.add(ANSWERS)
    with pytest.raises(EvaluationError, match=r"\(its seed, task differs\); name another directory with --out, or start anew with --fresh"):
        begin(tmp_path, {"seed": 1})
    (tmp_path / CONFIGURATION).write_text("{")
    with pytest.raises(EvaluationError, match="is no JSON"):
        begin(tmp_path, {"seed": 1})
    clear(tmp_path)
    assert begin(tmp_path, {"seed": 1}) == {}
