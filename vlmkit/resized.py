"""A vocabulary of another size: `resize_token_embeddings`, and an architecture that says so, by which the model is loaded again."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel

from vlmkit.architecture import Architecture, ArchitectureError
from vlmkit.spec import SpecError


class Resizes(PreTrainedModel):  # type: ignore[misc]
    """Part of VLM: embeddings and head take another number of rows, and the architecture in the config follows."""

    spec: Architecture
    language_model: PreTrainedModel

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Module:
        """As transformers: the embedding, with `new_num_tokens` rows, rounded up to a multiple where one is given. A language model with
        more embeddings than logits (Llama 3.2-Vision has eight) keeps so many more.

        Raises SpecError for fewer than one, and ArchitectureError where the config names a token that would be gone; nothing is changed
        then.
        """
        embedding: nn.Embedding = self.get_input_embeddings()
        if new_num_tokens is None and pad_to_multiple_of is None:
            return embedding
        described = self.spec.language_model
        rows = described.vocabulary if new_num_tokens is None else new_num_tokens
        multiple = pad_to_multiple_of or 1
        rows = -(-rows // multiple) * multiple
        if rows < 1:
            raise SpecError(f"resize_token_embeddings: expected one token or more, got {rows}")
        spec = self.spec.replace(language_model=described.replace(config=described.config | {"vocab_size": rows}))
        if problems := list(spec.language_model.problems()):
            raise ArchitectureError(f"resize_token_embeddings({rows}): {' '.join(problems)}")
        self._beyond_logits = embedding.num_embeddings - described.vocabulary
        resized: nn.Module = super().resize_token_embeddings(rows, None, mean_resizing)
        self.config.text_config.vocab_size = self.vocab_size = rows
        self.config.architecture, self.spec = spec.to_dict(), spec
        return resized

    def _resize_token_embeddings(self, new_num_tokens: int, pad_to_multiple_of: int | None = None, mean_resizing: bool = True) -> nn.Module:
        # transformers gives head and embedding the same number of rows.
        beyond, head = self._beyond_logits, self.get_output_embeddings()
        embedding: nn.Module = super()._resize_token_embeddings(new_num_tokens + beyond, None, mean_resizing)
        if beyond:
            kept = head.weight.requires_grad
            resized = self._get_resized_lm_head(head, new_num_tokens, mean_resizing=mean_resizing)
            self.set_output_embeddings(resized.requires_grad_(kept))
        return embedding
