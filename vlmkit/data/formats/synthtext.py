"""SynthText (Gupta et al. 2016, arXiv:1604.06646): words rendered into photographs; one sample an image, which is to be read.

gt.mat has a cell an image: `imnames` (its path below the folder), `txt` (padded lines of words) and `wordBB`, whose number of
boxes has to be that of the words. Words come in the order of rendering, line after line. They are read by another
process, which takes 1.6 GB and half a minute for the published 858,750 images (measured on 40,000 of them).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlmkit.data.formats import formats
from vlmkit.data.reading import matlab
from vlmkit.data.reading.places import below, need, one_file
from vlmkit.data.reading.rows import AnnotationRow, each
from vlmkit.data.reading.wording import WORDS, ask
from vlmkit.data.sample import DataError, Rejected, Sample


@formats.register("synthtext")
def read(folder: Path) -> Iterator[Sample | Rejected]:
    """Raises DataError where gt.mat cannot be read at all."""
    source = folder.name

    def sample(row: AnnotationRow) -> Sample:
        path, words, boxes = row.value
        if not path or not words or boxes is None:
            raise row.wrong("expected a path, words and boxes (2, 4, words)")
        if len(words) != boxes:
            raise row.wrong(f"{len(words)} words, but {boxes} boxes")
        return Sample((below(folder, path),), (ask(WORDS, " ".join(words)),), source, path)

    need("scipy", "gt.mat")
    yield from each(source, _rows(one_file(folder, "gt.mat", way_out="It is at the top of SynthText.zip")), sample)


def _rows(file: Path) -> Iterator[AnnotationRow]:
    """[path, words, number of boxes] an image."""
    command = [sys.executable, "-P", matlab.__file__, str(file)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdout is not None
        try:
            for number, line in enumerate(child.stdout):
                value: Any = json.loads(line)
                if isinstance(value, dict):
                    raise DataError(f"{file} cannot be read ({value['error'][:300]}); expected cells {', '.join(matlab.CELLS)}")
                yield AnnotationRow(value, f"gt.mat, image {number}")
        except BaseException:  # also where nobody asks for more
            child.kill()
            raise
    if child.returncode:
        raise DataError(f"{file} cannot be read: scipy ended with {child.returncode}, as it does on damaged files")
