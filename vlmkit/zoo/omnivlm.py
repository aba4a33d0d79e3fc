"""OmniVLM (Nexa AI 2024, arXiv:2412.11475): SigLIP So400m/14-384 -> nine tokens folded into one -> MLP -> Qwen2.5-0.5B.

968,400,704 parameters are published, 81 visual tokens an image. 15,238,352 of them are SigLIP's pooling head, which nobody reads and
vlmkit does not build: it has 953,162,352. Numbers and turns as the published runner (NexaAI/llama.cpp, examples/omni-vlm,
`vlm-81-instruct`) has them; there is no published code in PyTorch. The MLP's width, 4096, follows from the count of parameters. The runner
writes the image before the question and begins the answer right behind the user's <|im_end|>, without a line for the assistant. Its bicubic
filter leaves out pixels where an image shrinks, and says of itself that PIL's is meant, which is what vlmkit has. From memory: the numbers
of Qwen2.5-0.5B's config.json that no count shows. Weights are published as pairs of GGUF files (vlmkit/checkpoints/omnivlm.py).
"""

from __future__ import annotations

from vlmkit.architecture import Architecture
from vlmkit.connectors.sequence_fold import SequenceFold
from vlmkit.encoders.siglip import Siglip
from vlmkit.fusion.splice import Splice
from vlmkit.language_model import LanguageModel
from vlmkit.layout.bracketed import Bracketed
from vlmkit.layout.template import Template
from vlmkit.preprocess.policies.squash import Squash
from vlmkit.spec import Settings
from vlmkit.zoo.llava import TINY_LANGUAGE

NANO_OMNI = Template(
    system=("<|im_start|>system\n", "<|im_end|>\n"),
    user=("<|im_start|>user\n\n", "<|im_end|>"),
    assistant=("", "<|im_end|>"),
    default_system="You are Nano-Omni-VLM, created by Nexa AI. You are a helpful assistant.",
)

QWEN2_5_500M = LanguageModel(
    model_type="qwen2",
    checkpoint="Qwen/Qwen2.5-0.5B-Instruct",
    config=Settings(
        vocab_size=151936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        max_position_embeddings=32768,
        rope_theta=1000000.0,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        pad_token_id=151643,
        bos_token_id=151643,
        eos_token_id=151645,
    ),
)

OMNIVLM = Architecture(
    name="omnivlm-968m",
    policy=Squash(size=384, view=378),
    encoder=Siglip(checkpoint="google/siglip-so400m-patch14-384"),
    connector=SequenceFold(fold=9, hidden=4096),
    layout=Bracketed(template=NANO_OMNI, placeholder="<|image_pad|>", start="<|vision_start|>", end="<|vision_end|>"),
    fusion=Splice(),
    language_model=QWEN2_5_500M,
)

OMNIVLM_TINY = OMNIVLM.replace(
    name="omnivlm-tiny",
    policy=Squash(size=38, view=36),
    encoder=Siglip(width=32, layers=2, heads=4, mlp=64, patch=4, image_size=38),
    connector=SequenceFold(fold=9, hidden=48),
    language_model=LanguageModel(
        model_type="qwen2",
        tokenizer="bytes",
        config=TINY_LANGUAGE | {"tie_word_embeddings": True, "bos_token_id": None, "eos_token_id": 259},
    ),
)

MODELS = (OMNIVLM, OMNIVLM_TINY)
