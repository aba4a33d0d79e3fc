"""Every system that has a reference: one file a family, each with a tuple SYSTEMS."""

from __future__ import annotations

from families import (
    aimv2,
    aria,
    fuyu,
    idefics1,
    idefics2,
    idefics3,
    janus,
    llava,
    llava_next,
    llava_v1,
    llm2clip,
    maya,
    mistral3,
    mllama,
    moe_llava,
    molmo,
    nvlm,
    omnivlm,
    paligemma,
    pixtral,
    prismatic,
    qwen2_vl,
    qwen_vl,
    videollama3,
    yi_vl,
)
from families.system import System

SYSTEMS: tuple[System, ...] = (
    *fuyu.SYSTEMS,
    *aimv2.SYSTEMS,
    *aria.SYSTEMS,
    *idefics1.SYSTEMS,
    *idefics2.SYSTEMS,
    *idefics3.SYSTEMS,
    *janus.SYSTEMS,
    *llava.SYSTEMS,
    *llava_next.SYSTEMS,
    *maya.SYSTEMS,
    *mistral3.SYSTEMS,
    *mllama.SYSTEMS,
    *paligemma.SYSTEMS,
    *pixtral.SYSTEMS,
    *qwen2_vl.SYSTEMS,
    *videollama3.SYSTEMS,
)

BY_PARTS: tuple[System, ...] = (
    llava_v1.ROW,
    llm2clip.ROW,
    moe_llava.ROW,
    molmo.ROW,
    nvlm.D,
    nvlm.X,
    nvlm.H,
    omnivlm.ROW,
    prismatic.ROW,
    qwen_vl.ROW,
    yi_vl.ROW,
)
"""Systems whose parts have references, and the whole has none."""
