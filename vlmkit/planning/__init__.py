"""What training a model takes before anything is started: memory, micro-batch, engine, communication, time and cost.

    from vlmkit.planning import Hardware, Job, plan

    found = plan(Job(model=vlmkit.architecture("univa-vl"), learns=("connector",)), Hardware(gpus=64))

One training step of the real model is run on the meta device, where tensors have shapes and no memory, and its tensors are counted as
they come and go (`vlmkit.planning.trace`); engines divide them by stated rules (`vlmkit.planning.engines`).
"""

from __future__ import annotations

from vlmkit.planning.job import Hardware, Job, PlanError
from vlmkit.planning.plan import Plan, plan

__all__ = ["Hardware", "Job", "Plan", "PlanError", "plan"]
