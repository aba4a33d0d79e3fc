"""Which of the conversations of github.com/haotian-liu/LLaVA (llava/conversation.py) and Yi-VL a directory's model was trained in.

No file of a directory says it. Upstream's programs go by the directory's name, or are told (`--conv-mode`). Here:

    mm_projector_type ends with _Norm       mm_default, Yi-VL's
    mm_use_im_start_end                     llava_v1, images between <im_start> and <im_end>
    LlavaMistralForCausalLM                 mistral_instruct
    <|im_start|> is a token                 chatml_direct, of LLaVA-1.6 34B
    else                                    vicuna_v1, of LLaVA-1.5 and 1.6

A chat template beside the tokenizer is the language model's own, and upstream never reads it. One that writes images is not: it wins. So a
model that was trained in another conversation (`llava_llama_2`, say) is read with one that is put into tokenizer_config.json.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from vlmkit.checkpoints.chat import prompt_of, source_of
from vlmkit.layout.base import TokenLayout
from vlmkit.layout.bracketed import Bracketed
from vlmkit.layout.jinja_source import Prompt
from vlmkit.layout.reading import added_around
from vlmkit.layout.run import Run
from vlmkit.layout.template import Template
from vlmkit.layout.unpadded_rows import UnpaddedRows
from vlmkit.spec import SpecError
from vlmkit.zoo.llava import VICUNA_V1
from vlmkit.zoo.llava_next import CHATML_DIRECT
from vlmkit.zoo.llava_v1 import CONV_LLAVA_V1
from vlmkit.zoo.yi_vl import MM_DEFAULT

if TYPE_CHECKING:
    from vlmkit.processor import VLMProcessor

START, END, PATCH = "<im_start>", "<im_end>", "<im_patch>"
VICUNA = VICUNA_V1.replace(
    system=("", " "),
    default_system="A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
)
"""`vicuna_v1`, in which LLaVA-1.5 was trained."""
MISTRAL = Template(begin="<s>", system=("", "\n\n"), user=("[INST] ", " [/INST]"), assistant=("", " </s>"), before_answer=" ")
"""`mistral_instruct`. It has no system message; one of the conversation's own is put before the turns."""
PLACES = ("<image>", PATCH, "<|im_sep|>")
"""Tokens that no turn writes, the first of which stands where visual tokens are; else the unknown token."""


def conversation_of(config: dict[str, Any], tokenizer: Any) -> Template:
    """The turns that a directory's model was trained in, begun as its tokenizer begins a text."""
    if str(config.get("mm_projector_type")).endswith("_Norm"):
        found = MM_DEFAULT
    elif config.get("mm_use_im_start_end"):
        found = CONV_LLAVA_V1
    elif config["model_type"] == "llava_mistral":
        found = MISTRAL
    elif "<|im_start|>" in tokenizer.get_vocab():
        found = CHATML_DIRECT
    else:
        found = VICUNA
    return found.replace(begin=added_around(tokenizer).before)


def layout_of(config: dict[str, Any], tokenizer: Any) -> TokenLayout:
    """Raises SpecError for images that are merged as vlmkit does not, and for tokens that the tokenizer lacks."""
    vocabulary = tokenizer.get_vocab()
    placeholder = next((token for token in PLACES if token in vocabulary), tokenizer.unk_token)
    if placeholder is None:
        raise SpecError(f"the tokenizer has neither {', '.join(PLACES)} nor an unknown token to stand where visual tokens are; add one")
    prompt: Prompt = (conversation_of(config, tokenizer), "\n")
    if tokenizer.chat_template and "image" in str(tokenizer.chat_template):
        brackets = (START, END) if config.get("mm_use_im_start_end") else ("", "")
        own = SimpleNamespace(chat_template=None, tokenizer=tokenizer)
        prompt = prompt_of(own, placeholder.join(brackets), [(conversation_of(config, tokenizer), "\n")])
    common: dict[str, Any] = {"template": prompt[0], "placeholder": placeholder, "after_image": prompt[1]}
    merged, tiled = config.get("mm_patch_merge_type", "flat"), config.get("image_aspect_ratio") == "anyres"
    if config.get("mm_use_im_start_end"):
        if merged != "flat":
            raise SpecError(f"config.json.mm_patch_merge_type: {merged!r} is not built beside mm_use_im_start_end; expected 'flat'")
        return Bracketed(start=START, end=END, **common)
    if merged == "spatial_unpad" and tiled:
        if config.get("mm_vision_select_feature", "patch") != "patch":
            raise SpecError("config.json.mm_vision_select_feature: tiles are laid side by side without class tokens; expected 'patch'")
        return UnpaddedRows(begins_anew=True, **common)
    if merged != "flat" and (tiled or merged != "spatial"):
        beside = f"image_aspect_ratio {config.get('image_aspect_ratio')!r}"
        raise SpecError(
            f"config.json.mm_patch_merge_type: {merged!r} is not built beside {beside}; expected 'flat', or 'spatial_unpad' with 'anyres'"
        )
    return Run(begins_anew=True, **common)


def chat_template_of(config: dict[str, Any], processor: VLMProcessor) -> str | None:
    """A chat template where another conversation is written than the directory would be read with, else the tokenizer's own."""
    layout = processor.spec.layout
    own: str | None = processor.tokenizer.chat_template
    if own and "image" in str(own):
        own = None
    if layout.template == conversation_of(config, processor.tokenizer) and layout.after_image == "\n":
        return own
    return source_of(processor)
