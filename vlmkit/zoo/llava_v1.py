"""LLaVA (Liu et al. 2023, arXiv:2304.08485): CLIP ViT-L/14 at 224 pixels -> one linear layer -> Vicuna, the first of its family.

Numbers as github.com/haotian-liu/LLaVA trains its v1 models: the middle of the image, the last block but one, no class token, 256 visual
tokens between <im_start> and <im_end>. Those two and <im_patch>, whose places the visual tokens take, stand behind Vicuna's 32,000 words.
The turns are `conv_llava_v1` with its system message, the image and a line break before the question. Weights were published as
differences to LLaMA, which upstream's `apply_delta` adds to them; LlavaForConditionalGeneration of transformers always has two linear
layers and cannot hold them, so they are read and written in LLaVA's own layout.
"""

from __future__ import annotations

from vlmkit.architecture import Architecture
from vlmkit.connectors.linear import Linear
from vlmkit.encoders.clip import Clip
from vlmkit.fusion.splice import Splice
from vlmkit.language_model import LanguageModel
from vlmkit.layout.bracketed import Bracketed
from vlmkit.preprocess.policies.center_crop import CenterCrop
from vlmkit.zoo.llava import LLAVA_1_5_13B, TINY_CLIP, TINY_LANGUAGE, VICUNA_7B, VICUNA_V1

CONV_LLAVA_V1 = VICUNA_V1.replace(
    system=("", " "),
    default_system="A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions.",
)

CLIP_L_224 = Clip(checkpoint="openai/clip-vit-large-patch14", image_size=224, layer=-2, keep_unused=True)
"""303,179,776 parameters, the unread last block among them."""

VICUNA_V1_1_7B = VICUNA_7B.replace(
    checkpoint="lmsys/vicuna-7b-v1.1",
    tokenizer=None,
    config=VICUNA_7B.config | {"vocab_size": 32003, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "pad_token_id": 0},
)
"""<unk>, 0, fills rows up, as upstream does for v1."""

LLAVA_V1_7B = Architecture(
    name="llava-v1-7b",
    policy=CenterCrop(size=224),
    encoder=CLIP_L_224,
    connector=Linear(),
    layout=Bracketed(template=CONV_LLAVA_V1, placeholder="<im_patch>", start="<im_start>", end="<im_end>", after_image="\n"),
    fusion=Splice(),
    language_model=VICUNA_V1_1_7B,
)

LLAVA_V1_13B = LLAVA_V1_7B.replace(
    name="llava-v1-13b",
    language_model=VICUNA_V1_1_7B.replace(
        checkpoint="lmsys/vicuna-13b-v1.1",
        config=LLAVA_1_5_13B.language_model.config
        | {"vocab_size": 32003, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "pad_token_id": 0},
    ),
)

LLAVA_V1_TINY = LLAVA_V1_7B.replace(
    name="llava-v1-tiny",
    policy=CenterCrop(size=28),
    encoder=TINY_CLIP,
    language_model=LanguageModel(model_type="llama", tokenizer="bytes", config=TINY_LANGUAGE),
)

MODELS = (LLAVA_V1_7B, LLAVA_V1_13B, LLAVA_V1_TINY)
