"""Several sources as batches: an order, windows of it planned and packed, batches made of these, and where a run stands."""

from vlmkit.data.mixture.batches import Batches
from vlmkit.data.mixture.mixture import DataSource, Mixture
from vlmkit.data.mixture.state import MixtureStateError, merge_states

__all__ = ["Batches", "DataSource", "Mixture", "MixtureStateError", "merge_states"]
