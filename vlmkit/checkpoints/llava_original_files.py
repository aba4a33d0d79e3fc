"""What is written of a processor in the layout of github.com/haotian-liu/LLaVA: the tokenizer, which upstream reads with transformers 4 and
`use_fast=False`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmkit.checkpoints.llava_original_prompt import chat_template_of
from vlmkit.checkpoints.llava_original_tower import Tower
from vlmkit.checkpoints.published import read_json, write_json
from vlmkit.tokenizer import with_all_told

if TYPE_CHECKING:
    from vlmkit.processor import VLMProcessor


class Files:
    """A processor to write, and the tower beside it."""

    chat_template = None
    """Upstream has none: its code writes turns."""

    def __init__(self, tower: Tower, ours: VLMProcessor) -> None:
        self.tower, self.ours = tower, ours

    def save(self, directory: str, config: dict[str, Any]) -> None:
        """The tokenizer, with a chat template where no conversation of upstream's writes the same. The sentencepiece model that it was read
        of is copied; without one, the class is named that transformers 4 reads of tokenizer.json alone."""
        tokenizer = with_all_told(self.ours.tokenizer)
        before = tokenizer.chat_template
        tokenizer.chat_template = chat_template_of(config, self.ours)
        try:
            tokenizer.save_pretrained(directory)
        finally:
            tokenizer.chat_template = before
        model = Path(str(tokenizer.name_or_path), "tokenizer.model")
        kept = model.is_file()
        told = {"tokenizer_class": "LlamaTokenizer" if kept else "PreTrainedTokenizerFast"}
        write_json(directory, "tokenizer_config.json", read_json(directory, "tokenizer_config.json") | told)
        if kept:
            shutil.copy(model, directory)
            words = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False)
            if added := {token: number for token, number in tokenizer.get_added_vocab().items() if token not in words}:
                write_json(directory, "added_tokens.json", added)
