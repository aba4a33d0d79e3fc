"""LLaVA-1.5 (Liu et al. 2023, arXiv:2310.03744): CLIP ViT-L/14-336 -> 2-layer MLP -> Vicuna; BakLLaVA: the same over Mistral.

Sizes as llava-hf/llava-1.5-7b-hf, llava-1.5-13b-hf and bakLlava-v1-hf publish them. The paper pads an image to a square of
its mean colour; the processor of those checkpoints cuts the middle out, which is what `vlmkit.load` then follows.

Their class, LlavaForConditionalGeneration, holds any decoder and puts one linear layer behind it, whatever the decoder's own class does
there: the scale of logits of Cohere and Granite, Gemma 2's cap and Phi's bias are left out. `vlmkit.load` gives the logits of the
published class (`LanguageModel.plain_head`) and says so; where config.json has `"vlmkit_own_head": true`, those of the decoder's own
class. That mark is in what vlmkit exports of a model with its decoder's own head. A bias of the head cannot be exported.
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

VICUNA_V1 = Template(begin="<s>", user=("USER: ", " "), assistant=("ASSISTANT:", "</s>"), before_answer=" ")
"""The turns of Vicuna v1.1 without its system message, as the published processors write them."""

CLIP_L_336 = Clip(checkpoint="openai/clip-vit-large-patch14-336", layer=-2, keep_unused=True)
"""303,507,456 parameters: the features come from the last block but one, the checkpoints hold the last one too."""

VICUNA_7B = LanguageModel(
    model_type="llama",
    checkpoint="lmsys/vicuna-7b-v1.5",
    tokenizer="llava-hf/llava-1.5-7b-hf",
    config=Settings(
        vocab_size=32064,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
        pad_token_id=32001,
    ),
)
"""The vocabulary of the checkpoints: 32,000 words, <image>, <pad>, filled up to a multiple of 64."""

LLAVA_1_5_7B = Architecture(
    name="llava-1.5-7b",
    policy=PadSquare(size=336, fill="mean"),
    encoder=CLIP_L_336,
    connector=Mlp(depth=2),
    layout=Run(template=VICUNA_V1, placeholder="<image>", after_image="\n"),
    fusion=Splice(),
    language_model=VICUNA_7B,
)

LLAVA_1_5_13B = LLAVA_1_5_7B.replace(
    name="llava-1.5-13b",
    language_model=VICUNA_7B.replace(
        checkpoint="lmsys/vicuna-13b-v1.5",
        tokenizer="llava-hf/llava-1.5-13b-hf",
        config=VICUNA_7B.config
        | {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40, "num_key_value_heads": 40},
    ),
)

BAKLLAVA = LLAVA_1_5_7B.replace(
    name="bakllava-7b",
    language_model=LanguageModel(
        model_type="mistral",
        checkpoint="mistralai/Mistral-7B-v0.1",
        tokenizer="llava-hf/bakLlava-v1-hf",
        config=Settings(
            vocab_size=32064,
            hidden_size=4096,
            intermediate_size=14336,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=8,
            max_position_embeddings=32768,
            sliding_window=4096,
            rms_norm_eps=1e-5,
            pad_token_id=32001,
        ),
    ),
)

TINY_CLIP = Clip(width=32, layers=3, heads=4, mlp=64, image_size=28, layer=-2, keep_unused=True)
TINY_LANGUAGE = Settings(
    vocab_size=320,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=2048,
    pad_token_id=256,
    bos_token_id=264,
    eos_token_id=265,
)
"""For the byte-level tokenizer: <image>, <s> and </s> follow its own special tokens, from 263 on."""

LLAVA_1_5_TINY = LLAVA_1_5_7B.replace(
    name="llava-1.5-tiny",
    policy=PadSquare(size=28, fill="mean"),
    encoder=TINY_CLIP,
    language_model=LanguageModel(model_type="llama", tokenizer="bytes", config=TINY_LANGUAGE),
)

BAKLLAVA_TINY = LLAVA_1_5_TINY.replace(
    name="bakllava-tiny",
    language_model=LanguageModel(model_type="mistral", tokenizer="bytes", config=TINY_LANGUAGE | {"sliding_window": None}),
)

MODELS = (LLAVA_1_5_7B, LLAVA_1_5_13B, BAKLLAVA, LLAVA_1_5_TINY, BAKLLAVA_TINY)
