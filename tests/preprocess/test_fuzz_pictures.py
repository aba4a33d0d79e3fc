"""Whatever is done to a picture's file, there is a picture or an ImageError, in 2 seconds and 1 GB.

A short run belongs to the default tests. The long one:

    VLMKIT_FUZZ=100000 python -m pytest -n0 -m fuzz tests/preprocess/test_fuzz_pictures.py
"""

from __future__ import annotations

import os
import random
import time
from typing import NamedTuple

import pytest

from tests.memory import peak_memory
from tests.preprocess.sound import damaged, pictures
from vlmkit.preprocess import ImageError, open_image
from vlmkit.preprocess.images import decode, image_size

SECONDS, BYTES = 2.0, 1e9
SHORT = 3000
AT_ONCE = 50
"""Files whose memory is measured together."""


class Found(NamedTuple):
    opened: int
    refused: int
    seconds: float
    """Of the file that took longest."""
    grown: int
    """Bytes, of the files measured together that took most."""


def fuzz(count: int, seed: int) -> Found:
    """How many damaged files opened and how many did not, and what they took."""
    chance = random.Random(seed)
    names = list(pictures())
    opened = refused = most = 0
    longest = 0.0
    while opened + refused < count:
        with peak_memory() as peak:
            batch = []
            for _ in range(AT_ONCE):
                name = chance.choice(names)
                data = damaged(pictures()[name], chance)
                batch.append(name)
                start = time.process_time()
                try:
                    assert open_image(data).mode == "RGB"
                    opened += 1
                except ImageError as error:
                    refused += 1
                    assert "\n" not in str(error)
                    assert " at 0x" not in str(error)
                except BaseException as error:
                    raise AssertionError(f"{name}: {type(error).__name__} for {data.hex()}") from error
                taken = time.process_time() - start
                assert taken < SECONDS, f"{name}: {data.hex()}"
                longest = max(longest, taken)
        grown = peak()
        assert grown < BYTES, batch
        most = max(most, grown)
    return Found(opened, refused, longest, most)


def test_a_damaged_picture_is_a_picture_or_an_image_error():
    found = fuzz(SHORT, seed=0)
    assert found.opened > SHORT // 20
    assert found.refused > SHORT // 20


@pytest.mark.fuzz
def test_many_damaged_pictures():
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}: {fuzz(int(os.environ.get('VLMKIT_FUZZ', '100000')), seed)}")


def test_three_readers_agree_on_a_damaged_picture():
    chance = random.Random(1)
    names = list(pictures())
    for _ in range(500):
        data = damaged(pictures()[chance.choice(names)], chance)
        found = []
        for read in (open_image, decode):
            try:
                found.append(read(data))
            except ImageError as error:
                found.append(str(error))
        assert isinstance(found[0], str) == isinstance(found[1], str), data.hex()
        if isinstance(found[0], str):
            assert found[0] == found[1]
        else:
            assert found[1].shape[:2] == (found[0].height, found[0].width)
            size = image_size(data)
            assert (size.height, size.width) == found[1].shape[:2]
