"""MoE-LLaVA (Lin et al. 2024, arXiv:2401.15947): CLIP ViT-L/14-336 -> 2-layer MLP -> a small language model, every second FFN of which
became four experts.

Numbers as github.com/PKU-YuanGroup/MoE-LLaVA trains them (scripts/v1, moellava/model/language_model): the image padded to a square, the
last block but one without its class token, 576 visual tokens; experts in layers 0, 2, 4 and so on, begun as copies of the FFN, of which a
token goes to two; at most 1.5 equal shares of the tokens an expert in training, and no bound in evaluation; a loss for an even spread times
0.01. The published sizes are the language models': 2.9 billion parameters of which a token meets 2.0 (StableLM), 5.3 and 3.6 (Phi-2), 3.1
and 2.2 (Qwen).

Three stages: the MLP alone (1e-3), all but the tower (2e-5), both of the plain model; then experts and routers alone (2e-5), which
`Stage.experts` makes of it (docs/experts.md). Upstream's third stage trains the FFNs between the experts too.

The published code draws the second expert at random in training, and in evaluation as well; here it is the second best. Images stand at a
token that these turns leave free; upstream uses a number outside of the vocabulary. Phi-2's tokenizer has none: give yours with
<image> added to it, for which the language model has room (51,200 rows). Qwen-1.8B is Qwen2's architecture up to 2,048 tokens; transformers
has no class that reads its weights. From memory: the configs of the three language models.
"""

from __future__ import annotations

from vlmkit.architecture import Architecture
from vlmkit.connectors.mlp import Mlp
from vlmkit.experts import Experts
from vlmkit.fusion.splice import Splice
from vlmkit.language_model import LanguageModel
from vlmkit.layout.run import Run
from vlmkit.layout.template import Template
from vlmkit.preprocess.policies.pad_square import PadSquare
from vlmkit.spec import Settings
from vlmkit.zoo.llava import CLIP_L_336, TINY_CLIP, TINY_LANGUAGE

CURIOUS = Template(
    system=("", " "),
    user=("USER: ", " "),
    assistant=("ASSISTANT:", "<|endoftext|>"),
    before_answer=" ",
    default_system="A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
)
"""`conv_stablelm`, `conv_phi` and `conv_qwen` of MoE-LLaVA: Vicuna's turns, with <|endoftext|> behind an answer."""

FOUR_EXPERTS = Experts(count=4, top=2, layers="even", capacity=1.5, balance=0.01)

STABLELM_2_1_6B = LanguageModel(
    model_type="stablelm",
    checkpoint="stabilityai/stablelm-2-1_6b",
    experts=FOUR_EXPERTS,
    config=Settings(
        vocab_size=100352,
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=24,
        num_attention_heads=32,
        num_key_value_heads=32,
        max_position_embeddings=4096,
        partial_rotary_factor=0.25,
        use_qkv_bias=True,
        layer_norm_eps=1e-5,
        pad_token_id=100280,
        bos_token_id=100257,
        eos_token_id=100257,
    ),
)
"""<|reg0|> fills rows up, as upstream has it."""

PHI_2 = LanguageModel(
    model_type="phi",
    checkpoint="microsoft/phi-2",
    experts=FOUR_EXPERTS,
    config=Settings(
        vocab_size=51200,
        hidden_size=2560,
        intermediate_size=10240,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        max_position_embeddings=2048,
        partial_rotary_factor=0.4,
        hidden_act="gelu_new",
        layer_norm_eps=1e-5,
        pad_token_id=50256,
        bos_token_id=50256,
        eos_token_id=50256,
    ),
)

QWEN_1_8B = LanguageModel(
    model_type="qwen2",
    tokenizer="Qwen/Qwen-1_8B",
    experts=FOUR_EXPERTS,
    config=Settings(
        vocab_size=151936,
        hidden_size=2048,
        intermediate_size=5504,
        num_hidden_layers=24,
        num_attention_heads=16,
        num_key_value_heads=16,
        max_position_embeddings=2048,
        rms_norm_eps=1e-6,
        pad_token_id=151646,
        bos_token_id=151643,
        eos_token_id=151643,
    ),
)

MOE_LLAVA_STABLELM = Architecture(
    name="moe-llava-stablelm-1.6b-4e",
    policy=PadSquare(size=336, fill="mean"),
    encoder=CLIP_L_336,
    connector=Mlp(depth=2),
    layout=Run(template=CURIOUS, placeholder="<|extra0|>", after_image="\n"),
    fusion=Splice(),
    language_model=STABLELM_2_1_6B,
)

MOE_LLAVA_PHI2 = MOE_LLAVA_STABLELM.replace(
    name="moe-llava-phi2-2.7b-4e",
    layout=Run(template=CURIOUS, placeholder="<image>", after_image="\n"),
    language_model=PHI_2,
)

MOE_LLAVA_QWEN = MOE_LLAVA_STABLELM.replace(
    name="moe-llava-qwen-1.8b-4e",
    layout=Run(template=CURIOUS, placeholder="<|extra_1|>", after_image="\n"),
    language_model=QWEN_1_8B,
)

MOE_LLAVA_TINY = MOE_LLAVA_PHI2.replace(
    name="moe-llava-tiny",
    policy=PadSquare(size=28, fill="mean"),
    encoder=TINY_CLIP,
    language_model=LanguageModel(
        model_type="phi",
        tokenizer="bytes",
        experts=FOUR_EXPERTS,
        config=TINY_LANGUAGE
        | {
            "num_hidden_layers": 4,
            "num_key_value_heads": 4,
            "partial_rotary_factor": 0.5,
            "hidden_act": "gelu_new",
            "bos_token_id": None,
            "eos_token_id": 257,
        },
    ),
)

MODELS = (MOE_LLAVA_STABLELM, MOE_LLAVA_PHI2, MOE_LLAVA_QWEN, MOE_LLAVA_TINY)
