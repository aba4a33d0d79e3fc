from __future__ import annotations

import pytest
import torch

import vlmkit
from tests.training.conftest import DATA, small
from vlmkit.architecture import PARTS
from vlmkit.training.muon import Muon, orthogonal
from vlmkit.training.optimizers import build_optimizers
from vlmkit.training.stage import Stage


@pytest.mark.parametrize("shape", [(8, 8), (24, 8), (8, 24)])
def test_an_update_has_singular_values_near_one(shape):
    """Measured 0.68 to 1.14 over these shapes; the iteration promises no more."""
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonal(torch.randn(shape))) / max(1, shape[0] / shape[1]) ** 0.5
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_the_same_directions_as_torchs_own():
    """torch's iterates in bfloat16: measured 0.02 apart in weights that moved by about 0.1, allowed 0.05."""
    torch.manual_seed(0)
    start, gradients = torch.randn(16, 8), [torch.randn(16, 8) for _ in range(3)]
    ends = []
    for kind in (Muon, torch.optim.Muon):
        parameter = torch.nn.Parameter(start.clone())
        optimizer = kind([parameter], lr=0.1, weight_decay=0.1, momentum=0.95)
        for gradient in gradients:
            parameter.grad = gradient.clone()
            optimizer.step()
        ends.append(parameter.detach())
    assert (ends[0] - ends[1]).abs().max() < 0.05
    assert (ends[0] - start).abs().max() > 0.1


def test_fused_projections_are_pieces_and_the_rest_is_adamws():
    model = vlmkit.build(small(), device="meta")
    stage = Stage(name="s", steps=1, batch_size=1, optimizer="muon", encoder=1e-3, connector=1e-3, language_model=1e-3, data=DATA)
    adamw, muon = build_optimizers(stage, {part: getattr(model, part) for part in PARTS}, fused=False)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    pieces = {names[id(parameter)]: group["pieces"] for group in muon.param_groups for parameter in group["params"]}
    assert pieces["encoder.transformer.resblocks.0.attn.in_proj_weight"] == 3
    assert pieces["language_model.model.layers.0.mlp.up_proj.weight"] == 1
    assert pieces["connector.mlp.0.weight"] == 1
    others = {names[id(parameter)] for group in adamw.param_groups for parameter in group["params"]}
    assert {"encoder.conv1.weight", "encoder.positional_embedding", "language_model.lm_head.weight"} <= others
    assert "language_model.model.embed_tokens.weight" in others
    assert len(pieces) + len(others) == len(names)
