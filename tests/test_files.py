"""Files and directories that are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlmkit import files
from vlmkit.files import replace_directory, write_whole, writing
from vlmkit.training.states import StateError


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


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (OSError(28, "No space left on device"), "here"),
        (OSError(28, "No space left on device", "elsewhere"), "elsewhere"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "here"),
        (StateError("elsewhere is damaged (No such device (os error 19))"), "elsewhere"),
        (RuntimeError("the device is full"), "full"),
    ],
)
def test_an_error_of_the_disk_says_of_which_path_and_others_stay(raised: Exception, said: str) -> None:
    def write() -> None:
        with writing("here"):
            raise raised

    with pytest.raises((OSError, StateError, RuntimeError), match=said) as error:
        write()
    assert isinstance(error.value, OSError) == (said in ("here", "elsewhere") and not isinstance(raised, StateError))
