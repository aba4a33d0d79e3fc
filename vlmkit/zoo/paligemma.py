"""PaliGemma (Beyer et al. 2024, arXiv:2407.07726): SigLIP So400m/14 -> one linear layer -> Gemma 2B, images and prompt seen in
both directions. PaliGemma 2 (Steiner et al. 2024, arXiv:2412.03555): the same over Gemma 2 in three sizes.

Sizes as transformers' conversion scripts write google/paligemma-3b-pt-224 and google/paligemma2-3b-pt-224 and their siblings.
The vocabulary is Gemma's 256,000 words, 1,024 locations, 128 codes of masks, <image>, and 63 rows that fill it up to a
multiple of 64. PaliGemmaForConditionalGeneration caps logits at 30 as Gemma 2 itself does, which LLaVA's classes leave out.
"""

from __future__ import annotations

from vlmkit.architecture import Architecture
from vlmkit.connectors.linear import Linear
from vlmkit.encoders.siglip import Siglip
from vlmkit.fusion.prefix import Prefix
from vlmkit.language_model import LanguageModel
from vlmkit.layout.images_first import ImagesFirst
from vlmkit.layout.template import Template
from vlmkit.preprocess.policies.squash import Squash
from vlmkit.spec import Settings

SIGLIP_SO400M = Siglip(image_size=224, checkpoint="google/siglip-so400m-patch14-224")
"""412,442,352 parameters; larger images have a larger table of positions, which no checkpoint of the tower alone holds."""

PROMPT = Template(begin="<bos>", user=("", "\n"), assistant=("", "<eos>"))
"""<bos> before the prompt, a line break after it, and the answer: there are no roles."""

GEMMA_2B = LanguageModel(
    model_type="gemma",
    checkpoint="google/gemma-2b",
    tokenizer="google/paligemma-3b-pt-224",
    config=Settings(
        vocab_size=257216,
        hidden_size=2048,
        intermediate_size=16384,
        num_hidden_layers=18,
        num_attention_heads=8,
        num_key_value_heads=1,
        head_dim=256,
        max_position_embeddings=8192,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=1,
    ),
)

GEMMA_2_2B = LanguageModel(
    model_type="gemma2",
    checkpoint="google/gemma-2-2b",
    tokenizer="google/paligemma2-3b-pt-224",
    config=Settings(
        vocab_size=257216,
        hidden_size=2304,
        intermediate_size=9216,
        num_hidden_layers=26,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=256,
        query_pre_attn_scalar=256,
        sliding_window=4096,
        attn_logit_softcapping=50.0,
        final_logit_softcapping=30.0,
        max_position_embeddings=8192,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=1,
    ),
)

GEMMA_2_9B = GEMMA_2_2B.replace(
    checkpoint="google/gemma-2-9b",
    tokenizer="google/paligemma2-10b-pt-224",
    config=GEMMA_2_2B.config
    | {"hidden_size": 3584, "intermediate_size": 14336, "num_hidden_layers": 42, "num_attention_heads": 16, "num_key_value_heads": 8},
)

GEMMA_2_27B = GEMMA_2_2B.replace(
    checkpoint="google/gemma-2-27b",
    tokenizer="google/paligemma2-28b-pt-224",
    config=GEMMA_2_2B.config
    | {
        "hidden_size": 4608,
        "intermediate_size": 36864,
        "num_hidden_layers": 46,
        "num_attention_heads": 32,
        "num_key_value_heads": 16,
        "head_dim": 128,
        "query_pre_attn_scalar": 144,
    },
)

PALIGEMMA_3B_224 = Architecture(
    name="paligemma-3b-224",
    policy=Squash(size=224),
    encoder=SIGLIP_SO400M,
    connector=Linear(),
    layout=ImagesFirst(template=PROMPT, placeholder="<image>"),
    fusion=Prefix(),
    language_model=GEMMA_2B,
)


def _larger(model: Architecture, size: int) -> Architecture:
    """The model for images of another size."""
    name = f"{model.name.removesuffix('-224')}-{size}"
    return model.replace(name=name, policy=Squash(size=size), encoder=SIGLIP_SO400M.replace(image_size=size, checkpoint=None))


PALIGEMMA2_3B_224 = PALIGEMMA_3B_224.replace(name="paligemma2-3b-224", language_model=GEMMA_2_2B)
PALIGEMMA2_10B_224 = PALIGEMMA_3B_224.replace(name="paligemma2-10b-224", language_model=GEMMA_2_9B)
PALIGEMMA2_28B_224 = PALIGEMMA_3B_224.replace(name="paligemma2-28b-224", language_model=GEMMA_2_27B)

TINY_GEMMA = Settings(
    vocab_size=1472,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=2048,
    pad_token_id=256,
    bos_token_id=264,
    eos_token_id=265,
)
"""For the byte-level tokenizer with <image>, <bos> and <eos> from 263 on, then locations and codes of masks."""

PALIGEMMA_TINY = PALIGEMMA_3B_224.replace(
    name="paligemma-tiny",
    policy=Squash(size=28),
    encoder=Siglip(width=32, layers=3, heads=4, mlp=64, image_size=28),
    language_model=LanguageModel(model_type="gemma", tokenizer="bytes", config=TINY_GEMMA),
)

PALIGEMMA2_TINY = PALIGEMMA_TINY.replace(
    name="paligemma2-tiny",
    language_model=LanguageModel(
        model_type="gemma2", tokenizer="bytes", config=TINY_GEMMA | {"query_pre_attn_scalar": 8, "sliding_window": 8}
    ),
)
"""Its window is shorter than any prompt."""

MODELS = (
    PALIGEMMA_3B_224,
    *(_larger(PALIGEMMA_3B_224, size) for size in (448, 896)),
    *(
        model if size == 224 else _larger(model, size)
        for model in (PALIGEMMA2_3B_224, PALIGEMMA2_10B_224, PALIGEMMA2_28B_224)
        for size in (224, 448, 896)
    ),
    PALIGEMMA_TINY,
    PALIGEMMA2_TINY,
)
