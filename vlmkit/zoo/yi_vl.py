"""Yi-VL (01.AI 2024, arXiv:2403.04652): CLIP ViT-H/14 at 448 pixels -> MLP with layer norms -> Yi-Chat, English and Chinese.

Numbers as github.com/01-ai/Yi (VL/) and the cards of 01-ai/Yi-VL-6B and -34B state them: the image padded to a square of its mean colour,
the last block but one without its class token, 1024 visual tokens; Linear, LayerNorm, GELU, Linear, LayerNorm; turns "### Human:" and
"### Assistant:" behind a system message in both languages. An answer ends at "###".

The first of three stages trains tower and MLP at 224 pixels (256 visual tokens), the others go on at 448 with the tower's table of
positions resampled: `recipes/yi_vl/stages.yaml`.

From memory: the padding, and <|im_sep|>, a token of Yi's vocabulary that these turns leave free. Images stand there; upstream uses a
number outside of the vocabulary.
"""

from __future__ import annotations

from vlmkit.architecture import Architecture
from vlmkit.connectors.mlp import Mlp
from vlmkit.encoders.clip import Clip
from vlmkit.fusion.splice import Splice
from vlmkit.language_model import LanguageModel
from vlmkit.layout.run import Run
from vlmkit.layout.template import Template
from vlmkit.preprocess.policies.pad_square import PadSquare
from vlmkit.spec import Settings
from vlmkit.zoo.llava import TINY_LANGUAGE

MM_DEFAULT = Template(
    system=("", "\n\n###"),
    user=(" Human: ", "\n###"),
    assistant=(" Assistant:", "\n###"),
    before_answer=" ",
    default_system="This is a chat between an inquisitive human and an AI assistant. Assume the role of the AI assistant. "
    "Read all the images carefully, and respond to the human's questions with informative, helpful, detailed and polite answers. "
    "这是一个好奇的人类和一个人工智能助手之间的对话。"
    "假设你扮演这个AI助手的角色。仔细阅读所有的图像，并对人类的问题做出信息丰富、有帮助、详细的和礼貌的回答。",  # noqa: RUF001
)
"""`mm_default` of Yi-VL."""

CLIP_H_448 = Clip(
    checkpoint="laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    width=1280,
    layers=32,
    heads=16,
    mlp=5120,
    image_size=448,
    activation="gelu",
    layer=-2,
    keep_unused=True,
)
"""631,749,120 parameters. Yi-VL publishes its own, trained weights of it in a folder beside the language model's."""

YI_6B = LanguageModel(
    model_type="llama",
    checkpoint="01-ai/Yi-6B-Chat",
    config=Settings(
        vocab_size=64000,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=4,
        max_position_embeddings=4096,
        rope_theta=5000000.0,
        rms_norm_eps=1e-5,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    ),
)

YI_VL_6B = Architecture(
    name="yi-vl-6b",
    policy=PadSquare(size=448, fill="mean"),
    encoder=CLIP_H_448,
    connector=Mlp(depth=2, norm_between="layer_norm", norm_out="layer_norm"),
    layout=Run(template=MM_DEFAULT, placeholder="<|im_sep|>", after_image="\n", begins_anew=True),
    fusion=Splice(),
    language_model=YI_6B,
)

YI_VL_34B = YI_VL_6B.replace(
    name="yi-vl-34b",
    language_model=YI_6B.replace(
        checkpoint="01-ai/Yi-34B-Chat",
        config=YI_6B.config
        | {"hidden_size": 7168, "intermediate_size": 20480, "num_hidden_layers": 60, "num_attention_heads": 56, "num_key_value_heads": 8},
    ),
)

YI_VL_TINY = YI_VL_6B.replace(
    name="yi-vl-tiny",
    policy=PadSquare(size=56, fill="mean"),
    encoder=Clip(width=32, layers=3, heads=4, mlp=64, image_size=56, activation="gelu", layer=-2, keep_unused=True),
    language_model=LanguageModel(model_type="llama", tokenizer="bytes", config=TINY_LANGUAGE | {"bos_token_id": None, "eos_token_id": 257}),
)

MODELS = (YI_VL_6B, YI_VL_34B, YI_VL_TINY)
