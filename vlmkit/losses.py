"""Losses of a language model that answers about pictures: the next token, and what its experts' router adds."""

from __future__ import annotations

import sys
from typing import Any

from torch import Tensor
from torch.nn import functional

from vlmkit.layout.laid_out import IGNORE


def supervised_columns(labels: Tensor) -> Tensor:
    """(K,): columns whose next token some row of labels (B, S) supervises. Reads values back from the device: a batch that states them
    spares that."""
    return (labels[:, 1:] != IGNORE).any(dim=0).nonzero().squeeze(1)


def spoken(labels: Tensor, vocabulary: int, unspoken: int) -> Tensor:
    """Labels (B, S) without ids behind the vocabulary that are read and never said: they have no logit, so whoever copies ids as labels
    means others. Ids behind these stay, for the loss to refuse."""
    if not unspoken:
        return labels
    return labels.masked_fill((labels >= vocabulary) & (labels < vocabulary + unspoken), IGNORE)


def next_token_loss(
    logits: Tensor, labels: Tensor, kept: int | Tensor, items: Tensor | int | None, weights: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy of the next token over supervised positions, each by its weight; over `items` where the caller counts them.

    logits: (B, S, vocabulary), or (B, K, vocabulary) of the K columns in `kept`. labels, weights: (B, S), of the token itself.
    """
    columns = kept + 1 if isinstance(kept, Tensor) else slice(1, None)
    targets = labels[:, columns].to(logits.device)
    logits = logits if isinstance(kept, Tensor) else logits[:, :-1]
    scores = logits.flatten(0, 1).float()
    if weights is None:
        total = functional.cross_entropy(scores, targets.flatten(), ignore_index=IGNORE, reduction="sum")
        return total / (items if items is not None else (targets != IGNORE).sum().clamp(min=1))
    counted = weights[:, columns].to(logits.device) * (targets != IGNORE)
    each = functional.cross_entropy(scores, targets.flatten(), ignore_index=IGNORE, reduction="none")
    whole = counted.sum()
    return (each * counted.flatten()).sum() / (items if items is not None else whole.where(whole > 0, 1.0))


def supervised_weight(labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """(): what the supervised tokens of labels (B, S) count together, float32: as many as there are, or the sum of their weights."""
    counted = labels[:, 1:] != IGNORE
    return counted.float().sum() if weights is None else (weights[:, 1:] * counted).sum()


def router_loss(outputs: Any, language_model: Any, held: Tensor | None = None, balance: Tensor | None = None) -> Tensor | None:
    """What a mixture of experts adds so that its tokens spread, by its own coefficient; None where its config asks for none
    (`output_router_logits`), or it has no experts. balance: the same of experts that FFNs were turned into.

    held: where packed rows (B, S) hold a token. They come without a mask by which the language model could leave padding out, so experts
    are counted anew, by its own function; a language model that has none counts padding as well.
    """
    auxiliary = getattr(outputs, "aux_loss", None)
    if not isinstance(auxiliary, Tensor):
        return balance
    count = getattr(sys.modules[type(language_model).__module__], "load_balancing_loss_func", None)
    if held is not None and count is not None and hasattr(language_model, "num_experts_per_tok"):
        auxiliary = count(outputs.router_logits, language_model.num_experts, language_model.num_experts_per_tok, held)
    weighted: Tensor = language_model.config.router_aux_loss_coef * auxiliary
    return weighted
