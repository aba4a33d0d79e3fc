"""Stages in which `univa-vl-tiny`, and models with other parts of its size, learn to read and describe drawn pictures from nothing.

A published tower and language model do not exist at that size, so two stages stand in for their pretraining: the tower learns to name what
stands in each cell of a picture, the language model learns to answer questions about *typed* pages. Neither has seen what the other is
shown. From `align` on they are those of Olmo-3.1-UNIVA-VL: first only the connector learns, then everything, then questions and answers.
"""

from __future__ import annotations

from vlmkit.training.stage import Source, Stage

LETTERS = (Source(name="letters", weight=0.5), Source(name="words", weight=0.1), Source(name="captions", weight=0.4))
PAGES = (
    Source(name="words", weight=0.2),
    Source(name="captions", weight=0.15),
    Source(name="pairs", weight=0.15),
    Source(name="answers", weight=0.1),
    Source(name="pair-answers", weight=0.4),
)
PICTURES = (Source(name="words", weight=0.4), Source(name="captions", weight=0.3), Source(name="pairs", weight=0.3))
"""In the place of SynthText, COCO and RedCaps: what a word over a texture says, and descriptions of scenes."""
QUESTIONS = (Source(name="words", weight=0.4), Source(name="questions", weight=0.6))
"""In the place of SynthText, GQA, TextVQA and DocVQA: questions about scenes beside them."""

STAGES = (
    Stage(
        name="warmup-tower",
        steps=540,
        batch_size=16,
        encoder=2e-3,
        head=2e-3,
        warmup=100,
        final=0.02,
        optimizer="muon",
        betas=(0.9, 0.98),
        weight_decay=0.05,
        data=LETTERS,
    ),
    Stage(
        name="warmup-text",
        steps=440,
        batch_size=40,
        language_model=3e-3,
        warmup=50,
        final=0.02,
        optimizer="muon",
        muon_scale=6.7,
        betas=(0.9, 0.98),
        weight_decay=0.05,
        data=PAGES,
    ),
    Stage(
        name="align",
        steps=80,
        batch_size=32,
        connector=2e-3,
        warmup=10,
        final=0.02,
        optimizer="muon",
        betas=(0.9, 0.98),
        weight_decay=0.05,
        data=PICTURES,
    ),
    Stage(
        name="pretrain",
        steps=100,
        batch_size=24,
        encoder=1e-3,
        connector=1e-3,
        language_model=1e-3,
        warmup=20,
        final=0.02,
        optimizer="muon",
        betas=(0.9, 0.98),
        weight_decay=0.05,
        data=PICTURES,
    ),
    Stage(
        name="sft",
        steps=180,
        batch_size=24,
        encoder=1e-3,
        connector=1e-3,
        language_model=1e-3,
        warmup=10,
        final=0.02,
        optimizer="muon",
        betas=(0.9, 0.98),
        weight_decay=0.05,
        data=QUESTIONS,
    ),
)
