"""Prismatic (Karamcheti et al. 2024, arXiv:2402.07865): DINOv2 ViT-L/14 and SigLIP So400m/14 side by side -> 3-layer MLP -> Llama 2.

Numbers as github.com/TRI-ML/prismatic-vlms states them for prism-dinosiglip+7b and +13b: both towers of timm see the image squashed to
384x384 (27x27 patches, 378 pixels), each normalised in its own way; the features are the last block's but one, without a norm, without
class and register tokens; 1024 + 1152 channels of a patch pass an MLP whose first layer is four times as wide. Patches stand between <s>
and "In: ... Out:". Weights were published in a form of their own, without towers and tokenizer. Where they were converted to files of
transformers, for the code that OpenVLA (arXiv:2406.09246) publishes beside its weights, vlmkit reads and writes them.
"""

from __future__ import annotations

from vlmkit.architecture import Architecture, VisionTower
from vlmkit.connectors.joined import Joined
from vlmkit.connectors.mlp import Mlp
from vlmkit.encoders.base import HALF
from vlmkit.encoders.timm import Timm
from vlmkit.fusion.splice import Splice
from vlmkit.language_model import LanguageModel
from vlmkit.layout.opening import Opening
from vlmkit.layout.template import Template
from vlmkit.preprocess.policies.squash import Squash
from vlmkit.zoo.llava import LLAVA_1_5_13B, TINY_LANGUAGE, VICUNA_7B, VICUNA_V1

IN_OUT = Template(begin="<s>", user=("In: ", "\n"), assistant=("Out:", "</s>"), before_answer=" ")
"""The turns of PurePromptBuilder, for language models that were not tuned to chat."""

VICUNA_V15 = VICUNA_V1.replace(
    system=("", " "),
    default_system="A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
)
"""Those of VicunaV15ChatPromptBuilder."""

DINOV2_L_384 = Timm(
    model="vit_large_patch14_reg4_dinov2",
    checkpoint="vit_large_patch14_reg4_dinov2.lvd142m",
    width=1024,
    layers=24,
    heads=16,
    patch=14,
    image_size=384,
    prefix=5,
    layer=-2,
    final_norm=False,
    keep_unused=True,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
"""The checkpoint's table of positions is one of 518 pixels; timm resamples it to 27x27 patches where it reads the weights."""

SIGLIP_SO_384 = Timm(
    model="vit_so400m_patch14_siglip_384",
    checkpoint="vit_so400m_patch14_siglip_384.webli",
    width=1152,
    layers=27,
    heads=16,
    patch=14,
    image_size=384,
    prefix=0,
    layer=-2,
    final_norm=False,
    keep_unused=True,
    mean=HALF,
    std=HALF,
)

SQUASH_384 = Squash(size=384, view=378)

LLAMA_2_7B = VICUNA_7B.replace(checkpoint="meta-llama/Llama-2-7b-hf", tokenizer=None, config=VICUNA_7B.config | {"pad_token_id": 32000})
LLAMA_2_13B = LLAMA_2_7B.replace(
    checkpoint="meta-llama/Llama-2-13b-hf", config=LLAVA_1_5_13B.language_model.config | {"pad_token_id": 32000}
)

PRISMATIC_7B = Architecture(
    name="prismatic-dinosiglip-7b",
    policy=SQUASH_384,
    encoder=DINOV2_L_384,
    beside=(VisionTower(policy=SQUASH_384, encoder=SIGLIP_SO_384),),
    connector=Joined(inner=Mlp(depth=3, hidden=(4 * 2176, 4096))),
    layout=Opening(template=IN_OUT, placeholder="<PAD>"),
    fusion=Splice(),
    language_model=LLAMA_2_7B,
)

PRISMATIC_13B = PRISMATIC_7B.replace(
    name="prismatic-dinosiglip-13b",
    connector=Joined(inner=Mlp(depth=3, hidden=(4 * 2176, 5120))),
    language_model=LLAMA_2_13B,
)

_TINY = {"custom": True, "layers": 3, "heads": 4, "image_size": 28, "layer": -2, "final_norm": False}

PRISMATIC_TINY = PRISMATIC_7B.replace(
    name="prismatic-tiny",
    policy=Squash(size=28),
    encoder=DINOV2_L_384.replace(checkpoint=None, width=32, **_TINY),
    beside=(VisionTower(policy=Squash(size=28), encoder=SIGLIP_SO_384.replace(checkpoint=None, width=24, **_TINY)),),
    connector=Joined(inner=Mlp(depth=3, hidden=(4 * 56, 32))),
    layout=Opening(template=IN_OUT, placeholder="<image>"),
    language_model=LanguageModel(model_type="llama", tokenizer="bytes", config=TINY_LANGUAGE),
)

MODELS = (PRISMATIC_7B, PRISMATIC_13B, PRISMATIC_TINY)
