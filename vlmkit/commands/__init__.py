"""The commands of `vlmkit`, one a file. Their first line is their help; what is heavy they import when they run."""

from __future__ import annotations


class UsageError(ValueError):
    """A command line that asks for something that is not there or does not go together. Exit code 2."""
