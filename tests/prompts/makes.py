"""Published makes of conversations: turns, a tokenizer of their kind, and the class that holds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prompts.turns import (
    ASSISTANT,
    BEGIN,
    CHATML,
    COHERE,
    DEEPSEEK_LLM,
    DEEPSEEK_R1,
    DEEPSEEK_V3,
    END,
    GEMMA,
    GEMMA_3,
    GENERATION,
    GLM_4,
    GRANITE,
    IDEFICS,
    IMAGES_FIRST,
    JANUS,
    KIMI,
    LLAMA_2,
    LLAMA_3,
    LLAMA_3_2_VISION,
    MISTRAL_TEKKEN,
    MISTRAL_V1,
    MISTRAL_V2,
    MISTRAL_V3,
    MISTRAL_V7,
    OLMO_2,
    OPENCHAT,
    OWN_SENTENCES,
    PALIGEMMA,
    PHI_3,
    QWEN_2_5,
    QWEN_2_VL,
    QWEN_3,
    SMOLLM_2,
    USER,
    VICUNA_0,
    VICUNA_1_5,
    YI,
    ZEPHYR,
)
from prompts.words import byte_level, llama, ordinary, sentencepiece, stripping, unigram


@dataclass(frozen=True)
class Make:
    """A row of the table."""

    title: str
    template: str | None
    tokenizer: Callable[[], Any]
    family: str = "llava"
    """The function of `published.directories` that puts a model around it."""
    image: str = "<image>"
    """The image token, as the tokenizer spells it."""
    language: str = "llama"
    """`model_type` of its language model."""
    processor: Mapping[str, Any] = field(default_factory=dict)
    """Further settings of its processor."""
    supervised: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Kind of conversation -> what is supervised of it, written by hand: each answer with the end of its turn."""

    @property
    def name(self) -> str:
        return "-".join(self.title.lower().replace(",", "").replace("(", "").replace(")", "").replace(".", "").split())


def answers(end: str) -> dict[str, tuple[str, ...]]:
    """What is supervised where each answer ends with `end`; a blank before it is another test's."""
    return {"three turns": (f"A boat.{end}", f"The sun.{end}"), "answered": (f"The first one.{end}",)}


IM = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
CHATML_ROLES = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
LLAMA_3_TOKENS = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
TEKKEN = ("<s>", "</s>", "[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]")
TURNS = ("<BOS_TOKEN>", *(f"<|{name}_TOKEN|>" for name in ("START_OF_TURN", "END_OF_TURN", "USER", "CHATBOT", "SYSTEM")))
VISION = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")


def deepseek() -> Any:
    """Its marks of roles are added tokens that are not special, as are those around thoughts."""
    ordinary_ones = (ordinary(token) for token in (USER, ASSISTANT, "<think>", "</think>"))
    return byte_level("<image>", BEGIN, END, *ordinary_ones, begins=BEGIN, bos_token=BEGIN, eos_token=END)


def janus() -> Any:
    image = {"image_token": "<image_placeholder>", "boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>"}
    marks = (*image.values(), "<|User|>", "<|Assistant|>", BEGIN, END)
    return byte_level(*marks, begins=BEGIN, bos_token=BEGIN, eos_token=END, extra_special_tokens=image)


MAKES: tuple[Make, ...] = (
    Make("Vicuna 0", VICUNA_0, lambda: sentencepiece("<image>", scheme="normalizer")),
    Make("Vicuna 1, images first", IMAGES_FIRST, lambda: sentencepiece("<image>", scheme="normalizer"), supervised=answers("")),
    Make("Vicuna 1, images first, legacy", IMAGES_FIRST, lambda: llama("<image>", legacy=True)),
    Make("Vicuna 1, images first, not legacy", IMAGES_FIRST, lambda: llama("<image>", legacy=False)),
    Make("Vicuna 1.5", VICUNA_1_5, lambda: llama("<image>", legacy=False), supervised=answers("</s>")),
    Make("Vicuna 1.5, LLaVA-NeXT", VICUNA_1_5, lambda: sentencepiece("<image>", scheme="always"), "llava_next"),
    Make("Mistral v1", MISTRAL_V1, lambda: llama("<image>", legacy=True), language="mistral", supervised=answers("</s>")),
    Make("Mistral v1, LLaVA-NeXT", MISTRAL_V1, lambda: llama("<image>", legacy=False), "llava_next", language="mistral"),
    Make("Mistral v2", MISTRAL_V2, lambda: sentencepiece("<image>", scheme="first"), language="mistral"),
    Make("Mistral v3", MISTRAL_V3, lambda: llama("<image>", "[INST]", "[/INST]", legacy=False), language="mistral"),
    Make(
        "Mistral v3 Tekken",
        MISTRAL_TEKKEN,
        lambda: byte_level(*TEKKEN, begins="<s>", splits="llama3", bos_token="<s>", eos_token="</s>"),
        "pixtral",
        "[IMG]",
        "mistral",
        supervised=answers("</s>"),
    ),
    Make(
        "Mistral v7",
        MISTRAL_V7,
        lambda: byte_level(*TEKKEN, splits="llama3", bos_token="<s>", eos_token="</s>"),
        "pixtral",
        "[IMG]",
        "mistral",
        supervised=answers("</s>"),
    ),
    Make("Llama 2", LLAMA_2, lambda: llama("<image>", legacy=True)),
    Make("Llama 2, not legacy", LLAMA_2, lambda: llama("<image>", legacy=False)),
    Make(
        "Llama 3",
        LLAMA_3,
        lambda: byte_level(
            "<image>", *LLAMA_3_TOKENS, begins=LLAMA_3_TOKENS[0], splits="llama3", bos_token=LLAMA_3_TOKENS[0], eos_token="<|eot_id|>"
        ),
        supervised=answers("<|eot_id|>"),
    ),
    Make(
        "Llama 3.2-Vision",
        LLAMA_3_2_VISION,
        lambda: byte_level(
            "<|image|>", *LLAMA_3_TOKENS, begins=LLAMA_3_TOKENS[0], splits="llama3", bos_token=LLAMA_3_TOKENS[0], eos_token="<|eot_id|>"
        ),
        "mllama",
        "<|image|>",
    ),
    Make("ChatML", CHATML, lambda: byte_level("<image>", *IM, **CHATML_ROLES), language="qwen2", supervised=answers("<|im_end|>")),
    Make("Qwen 2.5", QWEN_2_5, lambda: byte_level("<image>", *IM, **CHATML_ROLES), language="qwen2", supervised=answers("<|im_end|>")),
    Make(
        "Qwen 3",
        QWEN_3,
        lambda: byte_level("<image>", *IM, *map(ordinary, ("<think>", "</think>")), **CHATML_ROLES),
        language="qwen3",
        supervised=answers("<|im_end|>"),
    ),
    Make(
        "ChatML with generation blocks",
        GENERATION,
        lambda: byte_level("<image>", *IM, splits="llama3", **CHATML_ROLES),
        language="qwen2",
        supervised=answers("<|im_end|>"),
    ),
    Make("Qwen2-VL", QWEN_2_VL, lambda: byte_level(*IM, *VISION, **CHATML_ROLES), "qwen2_vl", "<|image_pad|>"),
    Make("Yi", YI, lambda: llama("<image>", *IM, legacy=True, **CHATML_ROLES), "llava_next"),
    Make(
        "SmolLM 2",
        SMOLLM_2,
        lambda: byte_level("<image>", *IM, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"),
        supervised=answers("<|im_end|>"),
    ),
    Make(
        "Gemma",
        GEMMA,
        lambda: sentencepiece("<image>", "<bos>", "<start_of_turn>", "<end_of_turn>", scheme="never", begins="<bos>", bos_token="<bos>"),
        language="gemma",
        supervised=answers("<end_of_turn>"),
    ),
    Make(
        "Gemma 3",
        GEMMA_3,
        lambda: sentencepiece("<image>", "<bos>", "<start_of_turn>", "<end_of_turn>", scheme="never", begins="<bos>", bos_token="<bos>"),
        language="gemma2",
    ),
    Make(
        "Phi 3",
        PHI_3,
        lambda: llama(
            "<image>",
            "<|endoftext|>",
            *(stripping(f"<|{name}|>", right=True) for name in ("user", "assistant", "system", "end")),
            legacy=False,
            eos_token="<|endoftext|>",
            begins=False,
        ),
        language="phi3",
    ),
    Make(
        "Cohere",
        COHERE,
        lambda: byte_level("<image>", *TURNS, begins="<BOS_TOKEN>", bos_token="<BOS_TOKEN>", eos_token="<|END_OF_TURN_TOKEN|>"),
        language="cohere",
        supervised=answers("<|END_OF_TURN_TOKEN|>"),
    ),
    Make("DeepSeek LLM", DEEPSEEK_LLM, lambda: byte_level("<image>", BEGIN, END, begins=BEGIN, bos_token=BEGIN, eos_token=END)),
    Make("DeepSeek V3", DEEPSEEK_V3, deepseek, supervised=answers(END)),
    Make("DeepSeek R1", DEEPSEEK_R1, deepseek, supervised=answers(END)),
    Make(
        "OLMo 2",
        OLMO_2,
        lambda: byte_level("<image>", *IM, splits="llama3", bos_token="<|endoftext|>", eos_token="<|endoftext|>", pad_token="<|im_end|>"),
        language="olmo2",
        supervised=answers("<|endoftext|>"),
    ),
    Make(
        "GLM 4",
        GLM_4,
        lambda: byte_level(
            "<image>",
            *("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|endoftext|>"),
            splits="llama3",
            eos_token="<|endoftext|>",
        ),
        language="glm4",
    ),
    Make(
        "Kimi-VL",
        KIMI,
        lambda: byte_level(
            "<image>",
            *("[BOS]", "[EOS]", "<|im_end|>", "<|im_user|>", "<|im_assistant|>", "<|im_system|>", "<|im_middle|>"),
            *("<|media_start|>", "<|media_content|>", "<|media_end|>"),
            bos_token="[BOS]",
            eos_token="[EOS]",
        ),
        "llava_next",
        supervised=answers("<|im_end|>"),
    ),
    Make(
        "OpenChat",
        OPENCHAT,
        lambda: llama("<image>", "<|end_of_turn|>", legacy=True, eos_token="<|end_of_turn|>"),
        language="mistral",
        supervised=answers("<|end_of_turn|>"),
    ),
    Make("Vicuna 1.5, unigram", VICUNA_1_5, lambda: unigram("<image>"), supervised=answers("</s>")),
    Make("Yi, blanks before words", YI, lambda: byte_level("<image>", *IM, blank=True, **CHATML_ROLES)),
    Make("Zephyr", ZEPHYR, lambda: sentencepiece("<image>", ordinary("<box>"), scheme="normalizer"), language="mistral"),
    Make("Own sentences", OWN_SENTENCES, lambda: byte_level("<image>", "</s>", ordinary("<think>"), ordinary("<box>"), eos_token="</s>")),
    Make(
        "Granite",
        GRANITE,
        lambda: byte_level(
            "<image>", "<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>", bos_token="<|end_of_text|>", eos_token="<|end_of_text|>"
        ),
        "llava_next",
        language="granite",
    ),
    Make(
        "Idefics2",
        IDEFICS,
        lambda: llama("<image>", "<fake_token_around_image>", "<end_of_utterance>", legacy=False),
        "idefics2",
        language="mistral",
    ),
    Make(
        "Idefics2, legacy",
        IDEFICS,
        lambda: llama("<image>", "<fake_token_around_image>", "<end_of_utterance>", legacy=True),
        "idefics2",
        language="mistral",
    ),
    Make(
        "Idefics3",
        "<|begin_of_text|>" + IDEFICS,
        lambda: byte_level(
            "<image>",
            "<fake_token_around_image>",
            "<end_of_utterance>",
            *LLAMA_3_TOKENS,
            begins=LLAMA_3_TOKENS[0],
            splits="llama3",
            bos_token=LLAMA_3_TOKENS[0],
            eos_token="<|eot_id|>",
        ),
        "idefics3",
    ),
    Make(
        "SmolVLM",
        "<|im_start|>" + IDEFICS,
        lambda: byte_level(
            "<image>",
            "<fake_token_around_image>",
            "<end_of_utterance>",
            "<global-img>",
            *(f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)),
            *IM,
            bos_token="<|im_start|>",
            eos_token="<end_of_utterance>",
        ),
        "smolvlm",
    ),
    Make(
        "PaliGemma with turns",
        PALIGEMMA,
        lambda: sentencepiece("<image>", "<bos>", "<eos>", scheme="never", begins="<bos>", bos_token="<bos>", eos_token="<eos>"),
        "paligemma",
        language="gemma",
    ),
    Make("Janus", JANUS, janus, "janus", "<image_placeholder>", processor={"use_default_system_prompt": False}),
    Make("Janus, default system message", JANUS, janus, "janus", "<image_placeholder>", processor={"use_default_system_prompt": True}),
)
