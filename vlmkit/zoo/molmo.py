"""Molmo (Deitke et al. 2024, arXiv:2409.17146): overlapping crops -> two layers of CLIP L/14-336 -> attention pooling -> features added to
the patch tokens of Qwen2, OLMo or OLMoE.

Numbers as github.com/allenai/molmo states them (launch_scripts/utils.py and olmo/model.py), for allenai/Molmo-7B-D-0924, -7B-O-0924,
-72B-0924 and MolmoE-1B-0924. Upstream has 23 blocks of CLIP's 24, computes all of them and reads the 22nd and the 15th. Behind the words of
a language model stand 128 tokens that have an embedding and no logit, five of them in use.

Turns are "User: ... Assistant:", each set off by a space, an answer by another one; the token that ends an answer also begins a sequence.
Styles (`long_caption:`) begin a question's words and are the data's to write. A system message is vlmkit's own way: upstream has none.

Upstream packs several annotations of an image behind one copy of it, such that none sees another and each is counted on from the image.
vlmkit lays each out as a conversation of its own, beside the others in a batch or a packed row, encodes the image once, and gives the same
logits (tests/families/test_molmo.py); the image's places stand there once for each. In its second stage upstream
weighs such a token by one over the root of the number of conversations: `conversations="root"` of a stage.
"""

from __future__ import annotations

from vlmkit.architecture import Architecture
from vlmkit.connectors.attention_pool import AttentionPool
from vlmkit.encoders.clip import Clip
from vlmkit.fusion.scatter_add import ScatterAdd
from vlmkit.language_model import LanguageModel
from vlmkit.layout.stitched_rows import StitchedRows
from vlmkit.layout.template import Template
from vlmkit.preprocess.policies.multicrop import MultiCrop
from vlmkit.spec import Settings
from vlmkit.zoo.llava import TINY_LANGUAGE

ROLES = Template(
    begin="<|endoftext|>", system=(" ", ""), user=(" User: ", ""), assistant=(" Assistant:", "<|endoftext|>"), before_answer=" "
)

MOLMO_7B_D = Architecture(
    name="molmo-7b-d",
    policy=MultiCrop(),
    encoder=Clip(checkpoint="openai/clip-vit-large-patch14-336", layer=(22, 15), kept_blocks=23, padding="next"),
    connector=AttentionPool(width=1024, hidden=18944),
    layout=StitchedRows(template=ROLES, placeholder="<im_patch>", start="<im_start>", end="<im_end>", row_end="<im_col>"),
    fusion=ScatterAdd(),
    language_model=LanguageModel(
        model_type="qwen2",
        checkpoint="Qwen/Qwen2-7B",
        tokenizer="allenai/Molmo-7B-D-0924",
        config=Settings(
            vocab_size=152064,
            hidden_size=3584,
            intermediate_size=18944,
            num_hidden_layers=28,
            num_attention_heads=28,
            num_key_value_heads=4,
            max_position_embeddings=4096,
            rope_theta=1000000.0,
            rms_norm_eps=1e-6,
            bos_token_id=151643,
            eos_token_id=151643,
        ),
        unspoken=128,
    ),
)

MOLMO_72B = MOLMO_7B_D.replace(
    name="molmo-72b",
    connector=AttentionPool(width=1024, hidden=29568),
    language_model=MOLMO_7B_D.language_model.replace(
        checkpoint="Qwen/Qwen2-72B",
        tokenizer="allenai/Molmo-72B-0924",
        config=MOLMO_7B_D.language_model.config
        | {
            "hidden_size": 8192,
            "intermediate_size": 29568,
            "num_hidden_layers": 80,
            "num_attention_heads": 64,
            "num_key_value_heads": 8,
            "rms_norm_eps": 1e-5,
        },
    ),
)

MOLMO_7B_O = MOLMO_7B_D.replace(
    name="molmo-7b-o",
    connector=AttentionPool(width=1024, hidden=11008),
    language_model=LanguageModel(
        model_type="olmo2",
        tokenizer="allenai/Molmo-7B-O-0924",
        config=Settings(
            vocab_size=100352,
            hidden_size=4096,
            intermediate_size=11008,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=32,
            max_position_embeddings=4096,
            rope_theta=500000.0,
            rms_norm_eps=1e-6,
            bos_token_id=100257,
            eos_token_id=100257,
            pad_token_id=100277,
        ),
        unspoken=128,
    ),
)
"""OLMo-7B-1024, a preview of OLMo 2 that was not published by itself: norms behind attention and MLP, and of queries and keys."""

MOLMOE_1B = MOLMO_7B_D.replace(
    name="molmo-1b-e",
    connector=AttentionPool(width=1024, hidden=1024),
    language_model=LanguageModel(
        model_type="olmoe",
        checkpoint="allenai/OLMoE-1B-7B-0924",
        tokenizer="allenai/MolmoE-1B-0924",
        config=Settings(
            vocab_size=50304,
            hidden_size=2048,
            intermediate_size=1024,
            num_hidden_layers=16,
            num_attention_heads=16,
            num_key_value_heads=16,
            num_experts=64,
            num_experts_per_tok=8,
            norm_topk_prob=False,
            max_position_embeddings=4096,
            rope_theta=10000.0,
            rms_norm_eps=1e-5,
            bos_token_id=50279,
            eos_token_id=50279,
            pad_token_id=1,
        ),
        unspoken=128,
    ),
)

MOLMO_TINY = MOLMO_7B_D.replace(
    name="molmo-tiny",
    policy=MultiCrop(size=84, margin=28, crops=4),
    encoder=Clip(width=32, layers=4, heads=4, mlp=64, image_size=84, layer=(2, 1), kept_blocks=3, padding="next"),
    connector=AttentionPool(heads=4, width=32, hidden=64),
    language_model=LanguageModel(
        model_type="qwen2",
        tokenizer="bytes",
        config=TINY_LANGUAGE | {"vocab_size": 263, "bos_token_id": 257, "eos_token_id": 257},
        unspoken=8,
    ),
)

MODELS = (MOLMOE_1B, MOLMO_7B_O, MOLMO_7B_D, MOLMO_72B, MOLMO_TINY)
