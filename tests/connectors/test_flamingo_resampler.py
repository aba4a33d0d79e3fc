import pytest
import torch
from transformers import IdeficsConfig
from transformers.models.idefics.perceiver import IdeficsPerceiverResampler

import vlmkit
from vlmkit.checkpoints.family import translate
from vlmkit.checkpoints.idefics1 import RESAMPLER
from vlmkit.connectors import connectors
from vlmkit.features import Features, Grid
from vlmkit.spec import SpecError

FlamingoResampler = connectors["flamingo_resampler"]
TINY = dict(latents=4, depth=2, heads=4, head_dim=8)
NAMES = (
    *((f"layers.{n}.{ours}", f"blocks.{n}.{theirs}") for n in range(2) for ours, theirs in RESAMPLER),
    ("norm.", "layer_norm."),
)


@pytest.mark.parametrize("qk_norm", [False, True])
def test_it_computes_what_transformers_idefics_resampler_computes(qk_norm):
    """Measured 2e-6 in tokens of size 3."""
    config = IdeficsConfig(vision_config={"embed_dim": 8}, perceiver_config={"qk_layer_norms_perceiver": qk_norm})
    published = IdeficsPerceiverResampler(config, 8, depth=2, n_heads=4, head_dim=8, n_latents=4).eval()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in published.named_parameters():
        parameter.data.normal_(1.0 if "norm" in name else 0.0, 0.1 if "norm" in name else 0.3, generator=generator)
    module = FlamingoResampler(**TINY, qk_norm=qk_norm).build(8, 8)
    module.load_state_dict({translate(name, NAMES, to_ours=True): value for name, value in published.state_dict().items()})
    views = torch.randn(3, 12, 8, generator=generator)
    with torch.no_grad():
        out = module(Features(views.flatten(0, 1), (Grid(1, 3, 4),) * 3))
        torch.testing.assert_close(out.tokens, published(views).flatten(0, 1), rtol=1e-5, atol=1e-5)


def test_another_width_is_a_linear_layer_behind_it():
    same, other = FlamingoResampler(**TINY).build(8, 8), FlamingoResampler(**TINY).build(8, 16)
    sizes = [sum(parameter.numel() for parameter in module.parameters()) for module in (same, other)]
    assert sizes[1] - sizes[0] == 8 * 16 + 16


def test_it_serves_another_system():
    llava = vlmkit.architecture("llava-1.5-7b").replace(connector=FlamingoResampler(latents=32, depth=1)).validate()
    assert llava.tokens(vlmkit.Size(480, 640)) == 32


def test_no_latent_is_refused():
    with pytest.raises(SpecError, match=r"flamingo_resampler\.latents: expected 1 or more, got 0"):
        FlamingoResampler(latents=0)
