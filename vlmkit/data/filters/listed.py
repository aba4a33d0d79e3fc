"""What lists of samples name: a sample by its id, by the number its data set gives it, or by one of its images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from vlmkit.data.sample import DataError, Sample


def names(sample: Sample) -> Iterator[str]:
    """Names that a list may have for a sample: its id, what stands behind the id's last '/', and of each image that is a file the name
    with its ending, without it, and with the folder above."""
    yield sample.id
    yield sample.id.rpartition("/")[2]
    for image in sample.images:
        if isinstance(image, Path):
            yield image.name
            yield image.stem
            yield f"{image.parent.name}/{image.name}"


def read_names(file: str) -> frozenset[str]:
    """A name a line; blank lines and what begins with # are left out. A path is known by its last folder and its name.

    Raises DataError for a file that cannot be read, or that names nothing.
    """
    found = frozenset("/".join(PurePosixPath(line).parts[-2:]) for line in lines(file))
    if not found:
        raise DataError(f"{file} names nothing; expected a name a line")
    return found


def lines(file: str) -> list[str]:
    """The lines of a text file that say something. Raises DataError."""
    try:
        stripped = (line.strip() for line in Path(file).read_text("utf-8").splitlines())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file}: {getattr(error, 'strerror', None) or 'it is no text in UTF-8'}; expected a text file of a filter"
        ) from None
    return [line for line in stripped if line and not line.startswith("#")]
