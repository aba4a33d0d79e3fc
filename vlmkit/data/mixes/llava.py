"""What LLaVA-1.6 learns from (Liu et al. 2024, llava-vl.github.io/blog/2024-01-30-llava-next).

Its own 760 thousand samples hold what people asked a demonstration, which is not published: the second stage is the open mixture of a
million that was made in its place (github.com/xiaoachen98/Open-LLaVA-NeXT, docs/Data.md), in which every source is drawn as often as it
has samples. Both are one annotation file each, with images in folders beside it.
"""

from __future__ import annotations

from vlmkit.data.mixes.values import Group, Ingredient, Mix

MIXES = (
    Mix(
        name="llava-1.6-align",
        about="The first stage of LLaVA-1.5 and 1.6: 558 thousand captions.",
        groups=(
            Group(
                share=1.0,
                sources=(
                    Ingredient(name="captions", published="liuhaotian/LLaVA-Pretrain", format="llava:name=blip_laion_cc_sbu_558k.json"),
                ),
            ),
        ),
    ),
    Mix(
        name="llava-1.6-instruct",
        about="LLaVA-1.6's second stage, as Open-LLaVA-NeXT made it anew: a million instructions, documents and charts among them.",
        groups=(
            Group(
                share=1.0,
                sources=(
                    Ingredient(
                        name="instructions",
                        published="Lin-Chen/Open-LLaVA-NeXT-mix1M",
                        format="llava:name=open-llava-next_instruct_mix1M.json",
                    ),
                ),
            ),
        ),
    ),
)
