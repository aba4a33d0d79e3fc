"""What Molmo learns from (Deitke et al. 2024, arXiv:2409.17146): shares, sizes and the root rule as allenai/molmo has them
(launch_scripts/train_captioner.py, launch_scripts/train_multitask_model.py "3.2-synthetic", olmo/data/__init__.py), and the root by which
several conversations about one image are weighed in the second stage alone.

Of the mixture's first group the sources without a reader are left out (questions that people asked, questions made of captions,
explanations with points), and of the academic one all but TextVQA and DocVQA; clocks stand there as in the paper, weighed as 250,000.
"""

from __future__ import annotations

from vlmkit.data.mixes.values import Group, Ingredient, Mix

POINTS, COUNT = "allenai/pixmo-points", "allenai/pixmo-count"

CAPTIONS = Mix(
    name="molmo-captions",
    about="Molmo's first stage: descriptions, and what was said of each image.",
    groups=(Group(share=1.0, sources=(Ingredient(name="caption", published="allenai/pixmo-cap", format="pixmo_cap:transcripts=true"),)),),
)

PIXMO = Mix(
    name="molmo-pixmo",
    about="Molmo's second stage, those of its sources that there are readers for: captions, points, counts, clocks, TextVQA, DocVQA.",
    by="root",
    conversations="root",
    groups=(
        Group(share=0.15, sources=(Ingredient(name="caption", published="allenai/pixmo-cap", format="pixmo_cap", counts_as=50_000),)),
        Group(
            share=0.50,
            sources=(
                Ingredient(name="textvqa", published="TextVQA 0.5.1", format="textvqa"),
                Ingredient(name="docvqa", published="DocVQA v1.0", format="docvqa"),
                Ingredient(name="clocks", published="allenai/pixmo-clocks", format="pixmo_clocks", counts_as=250_000),
            ),
        ),
        Group(
            share=0.35,
            sources=(
                Ingredient(name="points", published=POINTS, format="pixmo_points:method=pointing"),
                Ingredient(name="points-counted", published=POINTS, format="pixmo_points:method=pointing,answers=counts"),
                Ingredient(name="many", published=POINTS, format="pixmo_points:method=counting"),
                Ingredient(name="many-counted", published=POINTS, format="pixmo_points:method=counting,answers=counts"),
                Ingredient(name="count", published=COUNT, format="pixmo_count:answers=points"),
                Ingredient(name="count-counted", published=COUNT, format="pixmo_count:answers=counts"),
            ),
        ),
    ),
)

MIXES = (CAPTIONS, PIXMO)
