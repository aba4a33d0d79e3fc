"""Maya (Alam et al. 2024, arXiv:2412.07112): multilingual SigLIP-B/16-256 -> 2-layer MLP -> Aya-23-8B, eight languages.

github.com/nahidalam/maya trains LLaVA's code over a tower without a class token, and LLaVA drops the first of its features:
an image is 255 tokens, the upper left patch is never seen. The conversation is Aya-23's own. Images stand where a token is
that Cohere's tokenizer keeps in reserve; upstream uses a number outside the vocabulary.

Its class for training is Cohere's own with images before it, so that logits are scaled by `logit_scale`, 0.0625, in training and here.
Where an exported directory is run by LlavaForConditionalGeneration, which leaves that out, logits are 16 times as large: the greedy
answer is the same, a temperature is not. vlmkit reads its own export back with the scale.
"""

from __future__ import annotations

from vlmkit.architecture import Architecture
from vlmkit.connectors.mlp import Mlp
from vlmkit.encoders.siglip import Siglip
from vlmkit.fusion.splice import Splice
from vlmkit.language_model import LanguageModel
from vlmkit.layout.run import Run
from vlmkit.layout.template import Template
from vlmkit.preprocess.policies.squash import Squash
from vlmkit.spec import Settings
from vlmkit.zoo.llava import TINY_LANGUAGE

AYA_23 = Template(
    begin="<BOS_TOKEN>",
    system=("<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
    user=("<|START_OF_TURN_TOKEN|><|USER_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
    assistant=("<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
)
"""The turns of CohereForAI/aya-23-8B."""

SIGLIP_B_256 = Siglip(
    checkpoint="google/siglip-base-patch16-256-multilingual",
    width=768,
    layers=12,
    heads=12,
    mlp=3072,
    patch=16,
    image_size=256,
    layer=-2,
    final_norm=False,
    first_patch="drop",
    keep_unused=True,
)
"""85,843,200 parameters without the pooling head; the last block and the last norm are in the checkpoints and unread."""

AYA_23_8B = LanguageModel(
    model_type="cohere",
    checkpoint="CohereForAI/aya-23-8B",
    config=Settings(
        vocab_size=256000,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=8192,
        logit_scale=0.0625,
        rope_theta=10000.0,
        layer_norm_eps=1e-5,
        pad_token_id=0,
        bos_token_id=5,
        eos_token_id=255001,
    ),
)

MAYA_8B = Architecture(
    name="maya-8b",
    policy=Squash(size=256),
    encoder=SIGLIP_B_256,
    connector=Mlp(depth=2),
    layout=Run(template=AYA_23, placeholder="<|EXTRA_0_TOKEN|>", after_image="\n"),
    fusion=Splice(),
    language_model=AYA_23_8B,
)

MAYA_TINY = MAYA_8B.replace(
    name="maya-tiny",
    policy=Squash(size=28),
    encoder=Siglip(width=32, layers=3, heads=4, mlp=64, image_size=28, layer=-2, final_norm=False, first_patch="drop", keep_unused=True),
    language_model=LanguageModel(
        model_type="cohere", tokenizer="bytes", config=TINY_LANGUAGE | {"logit_scale": 0.0625, "eos_token_id": 267}
    ),
)

MODELS = (MAYA_8B, MAYA_TINY)
