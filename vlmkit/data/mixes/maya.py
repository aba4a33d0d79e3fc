"""What Maya learns from (Alam et al. 2024, arXiv:2412.07112): LLaVA's 558 thousand captions in eight languages, freed of 7,531 images
that LLaVAGuard and Toxic-BERT found toxic, then PALO's instructions (github.com/nahidalam/maya, README and scripts/maya).

The list of those images comes with the paper's data; `without` takes it as a file. The file of English captions is called as the
scripts call it, maya_pretrain_v2_e1_english.json; from memory: that the others end with their languages too.
"""

from __future__ import annotations

from vlmkit.data.mixes.values import Group, Ingredient, Mix

LANGUAGES = ("english", "chinese", "french", "spanish", "russian", "japanese", "arabic", "hindi")

MIXES = (
    Mix(
        name="maya-align",
        about="Maya's first stage: captions in eight languages without those of toxic images.",
        groups=(
            Group(
                share=1.0,
                sources=tuple(
                    Ingredient(
                        name=f"captions-{language}",
                        published="maya-multimodal/pretrain",
                        format=f"llava:name=*_{language}.json",
                        filters=("without:file=toxic.txt,reason=the image is toxic",),
                    )
                    for language in LANGUAGES
                ),
            ),
        ),
    ),
    Mix(
        name="maya-instruct",
        about="Maya's second stage: PALO's instructions in ten languages.",
        groups=(
            Group(
                share=1.0,
                sources=(
                    Ingredient(
                        name="instructions",
                        published="MBZUAI/palo_multilingual_dataset",
                        format="llava:name=palo_multilingual_dataset.json",
                    ),
                ),
            ),
        ),
    ),
)
