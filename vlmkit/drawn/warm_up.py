"""What small parts learn before the published stages: what a published tower and language model would know already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    import vlmkit
    from vlmkit.training.engines.base import Batch
    from vlmkit.training.stage import Stage


def begin(model: vlmkit.VLM) -> None:
    """Embeddings as large as the positions that are added to them, where transformers draws them fifty times smaller."""
    import torch

    embedding: Any = model.get_input_embeddings()
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        embedding.weight.normal_(0, 1.0)


def trainer_arguments(stage: Stage, model: vlmkit.VLM) -> dict[str, Any]:
    """What the trainer is given beside a stage of warming up: a loss, and a module that is thrown away afterwards."""
    if stage.name == "warmup-text":
        return {"loss": _typed_loss}
    if stage.name != "warmup-tower":
        return {}
    import torch
    from torch.nn import functional

    from vlmkit.connectors.blocks import merge_blocks

    with torch.random.fork_rng():
        torch.manual_seed(0)
        reader = torch.nn.Linear(4 * model.config.spec.encoder.dim_out, 256).to(model.device)

    def loss(model: Any, batch: Batch) -> Tensor:
        """Cross-entropy of the character in each cell, read from its 2 x 2 patches by one linear layer."""
        features = model.encoder(batch["pixel_values"], batch["grids"])
        return functional.cross_entropy(reader(merge_blocks(features, 2, "dh dw c")), batch["cells"])

    return {"loss": loss, "head": reader}


def _typed_loss(model: Any, batch: Batch) -> Tensor:
    """The model's own loss on typed pages: each character at its place on the page, as the connector would put it."""
    import torch

    from vlmkit.connectors.positions import sincos_2d

    embeddings = model.get_input_embeddings()(batch["input_ids"])
    tables = [sincos_2d(rows, columns, embeddings.shape[-1], device=embeddings.device) for _, rows, columns in batch["grids"].tolist()]
    places = batch["visual_index"]
    positions = torch.cat(tables)[places.clamp(min=0)] * (places >= 0)[..., None]
    others = {name: batch[name] for name in ("attention_mask", "position_ids", "labels")}
    loss: Tensor = model(inputs_embeds=embeddings + positions, **others).loss
    return loss
