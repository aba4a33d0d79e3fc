"""Qwen-VL (Bai et al. 2023, arXiv:2308.12966): OpenCLIP ViT-bigG/14 at 448 pixels -> 256 queries on a grid -> Qwen-7B; boxes in words.

Numbers and modules as the code beside the weights has them (visual.py, modeling_qwen.py and tokenization_qwen.py of Qwen/Qwen-VL and
Qwen/Qwen-VL-Chat): 9,655,886,592 parameters, and the published files another 1,048,576 with the table of the queries' positions, which is
computed here. The tower has no class token and a table of positions for 224 pixels, resampled bicubic; its weights began as laion's, and
are trained. An image stands between <img> and </img>, in 256 places of <imgpad>. Upstream writes the image's address there instead,
filled up with <imgpad>; nobody reads these embeddings.

The chat model is asked in ChatML, "Picture 1: " before an image and a line break behind it; pictures are counted through the conversation.
The base model reads a text with images in it, and answers to its end. Boxes are thousandths of the picture:
`vlmkit.pointing` parses and writes them (style "qwen").

The language model is Qwen1, which transformers has no class for. Qwen2's is the same computation up to 2048 tokens, the length of training:
beyond, upstream scales queries and turns keys by other angles (`use_logn_attn`, `use_dynamic_ntk`), and this model does not.

The first of three stages trains tower and resampler at 224 pixels (`policy=Squash(size=224)`), the second everything at 448, the third all
but the tower.
"""

from __future__ import annotations

from vlmkit.architecture import Architecture
from vlmkit.connectors.resampler import Resampler
from vlmkit.encoders.open_clip import OpenClip
from vlmkit.fusion.splice import Splice
from vlmkit.language_model import LanguageModel
from vlmkit.layout.bracketed import Bracketed
from vlmkit.layout.template import CHATML, Template
from vlmkit.preprocess.policies.squash import Squash
from vlmkit.spec import Settings
from vlmkit.zoo.llava import TINY_LANGUAGE

PLAIN = Template(user=("", ""), assistant=("", "<|endoftext|>"))
"""A text that goes on, of the base model."""
QWEN_CHAT = CHATML.replace(default_system="You are a helpful assistant.")

BIGG_448 = OpenClip(
    width=1664,
    layers=48,
    patch=14,
    image_size=224,
    heads=16,
    mlp_ratio=4.9231,
    activation="gelu",
    norm_eps=1e-6,
    final_norm=False,
    class_token="none",
    positions="bicubic",
)
"""1,842,770,688 parameters. `image_size` is that of its table of positions."""

QWEN_7B = LanguageModel(
    model_type="qwen2",
    tokenizer="Qwen/Qwen-VL",
    config=Settings(
        vocab_size=151936,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        max_position_embeddings=2048,
        rope_theta=10000.0,
        rms_norm_eps=1e-6,
        bos_token_id=None,
        eos_token_id=151643,
        pad_token_id=151643,
    ),
)
"""7,721,324,544 parameters. Upstream's `intermediate_size` counts both halves of the gated MLP."""

QWEN_VL = Architecture(
    name="qwen-vl-9.6b",
    policy=Squash(size=448),
    encoder=BIGG_448,
    connector=Resampler(),
    layout=Bracketed(template=PLAIN, placeholder="<imgpad>", start="<img>", end="</img>"),
    fusion=Splice(),
    language_model=QWEN_7B,
)

QWEN_VL_CHAT = QWEN_VL.replace(
    name="qwen-vl-chat-9.6b",
    layout=Bracketed(template=QWEN_CHAT, placeholder="<imgpad>", start="<img>", end="</img>", label="Picture {}: ", after_image="\n"),
    language_model=QWEN_7B.replace(tokenizer="Qwen/Qwen-VL-Chat", config=QWEN_7B.config | {"eos_token_id": [151645, 151644]}),
)

QWEN_VL_TINY = QWEN_VL_CHAT.replace(
    name="qwen-vl-tiny",
    policy=Squash(size=56),
    encoder=BIGG_448.replace(width=48, layers=2, heads=4, mlp_ratio=2.0, image_size=28),
    connector=Resampler(side=2, heads=4),
    language_model=LanguageModel(
        model_type="qwen2",
        tokenizer="bytes",
        config=TINY_LANGUAGE | {"num_key_value_heads": 4, "bos_token_id": None, "eos_token_id": [259, 258]},
    ),
)

MODELS = (QWEN_VL, QWEN_VL_CHAT, QWEN_VL_TINY)
