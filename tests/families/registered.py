"""Every system that has a reference: one file a family, each with a tuple SYSTEMS."""

from __future__ import annotations

from families import llava, maya, paligemma, pixtral
from families.system import System

SYSTEMS: tuple[System, ...] = (*llava.SYSTEMS, *maya.SYSTEMS, *paligemma.SYSTEMS, *pixtral.SYSTEMS)
