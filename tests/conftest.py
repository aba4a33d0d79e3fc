"""Before anything heavy is imported: no network, one thread a worker, no deadline for properties that run a model."""

from __future__ import annotations

import os

from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("vlmkit", deadline=None)
settings.load_profile("vlmkit")
