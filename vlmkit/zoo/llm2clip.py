"""LLM2CLIP (Huang et al. 2024, arXiv:2411.04997): LLaVA-1.5 whose tower was trained beside a language model's words for captions.

The towers are OpenAI's ViT-L/14 and EVA02's, both at 336 pixels, as the configs of github.com/microsoft/LLM2CLIP (llm2clip/eva_clip)
state them; training changed their weights and nothing else, so what surrounds them is LLaVA-1.5's: the last block but one without its class
token, 576 visual tokens, an MLP, Vicuna. EVA02 (Fang et al. 2023, arXiv:2303.11331) has a learned table of positions and rotary ones,
which stretch the 16x16 grid of 224 pixels over the view's, norms within attention and MLP, and SwiGLU. It is timm's model, and timm reads
eva_clip's names: `encoder.replace(checkpoint="LLM2CLIP-EVA02-L-14-336.pt")` loads such a file.

From memory: that the towers are published as microsoft/LLM2CLIP-Openai-L-14-336 and -EVA02-L-14-336. The authors publish no weights of the
whole, and say of it that the tower is exchanged; that the EVA02 tower is read at LLaVA-1.5's layer is taken from there.
"""

from __future__ import annotations

from vlmkit.encoders.base import CLIP_MEAN, CLIP_STD
from vlmkit.encoders.timm import Timm
from vlmkit.language_model import LanguageModel
from vlmkit.preprocess.policies.pad_square import PadSquare
from vlmkit.zoo.llava import CLIP_L_336, LLAVA_1_5_7B, TINY_LANGUAGE

EVA02_L_336 = Timm(
    model="eva02_large_patch14_clip_336",
    width=1024,
    layers=24,
    heads=16,
    patch=14,
    image_size=336,
    prefix=1,
    layer=-2,
    final_norm=False,
    mean=CLIP_MEAN,
    std=CLIP_STD,
)
"""The last block, of which nothing is read, is not kept."""

LLM2CLIP_7B = LLAVA_1_5_7B.replace(
    name="llm2clip-openai-l-336-7b", encoder=CLIP_L_336.replace(checkpoint="microsoft/LLM2CLIP-Openai-L-14-336")
)

LLM2CLIP_EVA02_7B = LLAVA_1_5_7B.replace(name="llm2clip-eva02-l-336-7b", encoder=EVA02_L_336)

LLM2CLIP_TINY = LLM2CLIP_EVA02_7B.replace(
    name="llm2clip-tiny",
    policy=PadSquare(size=56, fill="mean"),
    encoder=EVA02_L_336.replace(custom=True, width=32, layers=3, heads=2, image_size=56),
    language_model=LanguageModel(model_type="llama", tokenizer="bytes", config=TINY_LANGUAGE),
)

MODELS = (LLM2CLIP_7B, LLM2CLIP_EVA02_7B, LLM2CLIP_TINY)
