"""How many small named models there are: a walk that meets another number has missed a file, or this line."""

TINY_MODELS = 32
