"""NVLM 1.0 (Dai et al. 2024, arXiv:2409.11402): tiles through InternViT-6B -> pixel shuffle -> Qwen2-72B, in three ways.

    NVLM-D    all tiles among the words (nvidia/NVLM-D-72B, the only one whose weights are published)
    NVLM-X    all tiles through cross-attention, a tag among the words for each
    NVLM-H    the whole image among the words, its tiles through cross-attention with their tags

Sizes as the paper states them in its section 4.5, and the config and code beside the published weights: up to six tiles of 448 pixels and
the whole image, of 256 tokens each; LayerNorm, Linear, GELU, Linear without bias behind the shuffle. The published config turns the
language model's positions by rope "dynamic" of factor 3, which changes nothing up to 32,768 tokens and is left out. Images stand at
<|vision_pad|>, a word of Qwen2.5's tokenizer, which lies beside the weights. Turns and system message are those of the published code
(conversation.py, a copy of which was read); the paper's figure 12 has another message, "Follow the user's instruction and answer
questions."

Of NVLM-X and NVLM-H there are neither weights nor code. Stated: ten gated cross-attention layers, one every eight of the language model's
eighty, no resampler; one linear layer before those of X, the MLP of D before those of H; a tag looks at its own tile (X), and embeddings
of tags stand beside those of their tiles (H). Decided where the paper is silent: layers are Flamingo's (a gated MLP in each, before the
language model's layer, gates from zero), with the language model's heads, widths, RMSNorm and SwiGLU; a LayerNorm before X's linear
layer, as in D's code; what words behind an image look at (`layout/seen_tiles.py`, `layout/seen_tiles_beside.py`). The paper's figure 3
draws cross-attention between self-attention and MLP of a layer; its words, "a gated X-attention layer every 8 LLM self-attention layers",
are followed.
"""

from __future__ import annotations

from vlmkit.architecture import Architecture
from vlmkit.connectors.mlp import Mlp
from vlmkit.connectors.pixel_shuffle import PixelShuffle
from vlmkit.encoders.intern_vit import InternViT
from vlmkit.fusion.cross_attention import CrossAttention
from vlmkit.fusion.hybrid import Hybrid
from vlmkit.fusion.splice import Splice
from vlmkit.language_model import LanguageModel
from vlmkit.layout.numbered_tiles import NumberedTiles
from vlmkit.layout.seen_tiles import SeenTiles
from vlmkit.layout.seen_tiles_beside import SeenTilesBeside
from vlmkit.layout.template import Template
from vlmkit.preprocess.policies.tiles import Tiles
from vlmkit.spec import Settings
from vlmkit.zoo.llava import TINY_LANGUAGE

NVLM_CHATML = Template(
    system=("<|im_start|>system\n", "<|im_end|>"),
    user=("<|im_start|>user\n", "<|im_end|>"),
    assistant=("<|im_start|>assistant\n", "<|im_end|>"),
    default_system="Answer the questions.",
)
"""`chatml` of the published code, without line breaks between turns."""

INTERN_VIT_6B = InternViT(checkpoint="OpenGVLab/InternViT-6B-448px-V1-5")
"""5,536,496,000 parameters."""

QWEN2_72B = LanguageModel(
    model_type="qwen2",
    checkpoint="Qwen/Qwen2-72B-Instruct",
    tokenizer="nvidia/NVLM-D-72B",
    config=Settings(
        vocab_size=152064,
        hidden_size=8192,
        intermediate_size=29568,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
        max_position_embeddings=32768,
        rope_theta=1000000.0,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        bos_token_id=151643,
        eos_token_id=151645,
        pad_token_id=151643,
    ),
)

NVLM_D_72B = Architecture(
    name="nvlm-d-72b",
    policy=Tiles(size=448, most=6),
    encoder=INTERN_VIT_6B,
    connector=PixelShuffle(inner=Mlp(norm_in="layer_norm", hidden=29568, bias=False)),
    layout=NumberedTiles(template=NVLM_CHATML, placeholder="<|vision_pad|>", after_image="\n"),
    fusion=Splice(),
    language_model=QWEN2_72B,
)

NVLM_D_TINY = NVLM_D_72B.replace(
    name="nvlm-d-tiny",
    policy=Tiles(size=56, most=4),
    encoder=InternViT(width=32, layers=2, heads=4, mlp=64, image_size=56),
    connector=PixelShuffle(inner=Mlp(norm_in="layer_norm", hidden=64, bias=False)),
    language_model=LanguageModel(model_type="qwen2", tokenizer="bytes", config=TINY_LANGUAGE | {"bos_token_id": None, "eos_token_id": 259}),
)

GATED = CrossAttention(before=8, qk_norm=False)
"""Before layers 0, 8, ..., 72 of 80."""

NVLM_X_72B = NVLM_D_72B.replace(
    name="nvlm-x-72b",
    connector=PixelShuffle(inner=Mlp(depth=1, norm_in="layer_norm", bias=False)),
    layout=SeenTiles(template=NVLM_CHATML, placeholder="<|vision_pad|>", after_image="\n"),
    fusion=GATED,
)

NVLM_H_72B = NVLM_D_72B.replace(
    name="nvlm-h-72b",
    layout=SeenTilesBeside(template=NVLM_CHATML, placeholder="<|vision_pad|>", after_image="\n"),
    fusion=Hybrid(before=8, qk_norm=False),
)

NVLM_X_TINY = NVLM_D_TINY.replace(
    name="nvlm-x-tiny", connector=NVLM_X_72B.connector, layout=NVLM_X_72B.layout, fusion=GATED.replace(before=(1,))
)

NVLM_H_TINY = NVLM_D_TINY.replace(name="nvlm-h-tiny", layout=NVLM_H_72B.layout, fusion=NVLM_H_72B.fusion.replace(before=(1,)))

MODELS = (NVLM_D_72B, NVLM_X_72B, NVLM_H_72B, NVLM_D_TINY, NVLM_X_TINY, NVLM_H_TINY)
