"""Files and directories that are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlmkit import files
from vlmkit.files import replace_directory, write_whole


def test_a_directory_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    with replace_directory(path) as directory:
        (directory / "a").write_text("1")

    def crash() -> None:
        with replace_directory(path) as directory:
            (directory / "a").write_text("2")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        crash()
    assert (path / "a").read_text() == "1"


@pytest.mark.parametrize("content", ["é", b"\xff"])
def test_a_file_that_cannot_be_finished_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | bytes
) -> None:
    path = tmp_path / "state"
    write_whole(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)

    def full(written: Path, path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "commit", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, "half")
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
