"""Encoded pictures before a decoder sees them: which format, how large, whether all of it is there.

Decoders forgive. What they do with a file that lacks a part, or that asks for more than it is worth, is decided here, one file a
format, from the structure of the file alone:

- size and cost are known before anything is allocated (`Survey.weight`, `bounds.py`);
- a decoder is handed the parts that make the picture and no others, so that what it does with the rest does not matter;
- a picture counts where every pixel of it was in the file (`whole.py`).
"""

from vlmkit.preprocess.bounds import MAX_PIXELS, MAX_SIDE
from vlmkit.preprocess.encoded.formats import FORMATS, format_of, survey
from vlmkit.preprocess.encoded.surveys import Survey

__all__ = ["FORMATS", "MAX_PIXELS", "MAX_SIDE", "Survey", "format_of", "survey"]
