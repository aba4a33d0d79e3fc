"""Samples packed into ordinary WebDataset tars beside an index: written once, then any sample is one read away."""

from vlmkit.data.shards.shards import Shards
from vlmkit.data.shards.writer import ShardWriter

__all__ = ["ShardWriter", "Shards"]
