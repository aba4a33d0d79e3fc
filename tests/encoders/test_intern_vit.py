"""InternViT's tower beside transformers' InternVLVisionModel, and under OpenGVLab's names."""

import json

import pytest
import torch
from beside import NUMBERS, features, filled, images
from drawn import draw, tiny
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from transformers import InternVLVisionConfig, InternVLVisionModel

from vlmkit.encoders.intern_vit import InternViT
from vlmkit.encoders.intern_vit_names import from_opengvlab, to_opengvlab
from vlmkit.features import Grid
from vlmkit.spec import SpecError

LARGE = {"norm_type": "rms_norm", "use_qk_norm": True}
"""InternViT-6B's kind; without it InternViT-300M's."""
SMALL = {"attention_bias": True}
NATIVE = Grid(1, 5, 5)
both_kinds = pytest.mark.parametrize("form", [LARGE, SMALL], ids=["6B", "300M"])


def theirs(**changes):
    model = draw(InternVLVisionModel(InternVLVisionConfig(**(NUMBERS | changes))))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "q_norm" in name or "k_norm" in name:
                parameter.add_(1)
    return model


def ours(model, **changes):
    return filled(InternViT.from_config(model.config, **changes), model.state_dict())


@both_kinds
def test_features_are_transformers(form):
    """Measured 4e-7 in features of size 4."""
    model = theirs(**form)
    with torch.no_grad():
        out = model(images(NATIVE), output_hidden_states=True)
    for layer in (-1, -2, 1):
        assert (features(ours(model, layer=layer), NATIVE) - out.hidden_states[layer][:, 1:]).abs().max() < 1e-5
    kept = ours(model, class_token="keep")
    assert (features(kept, NATIVE) - out.last_hidden_state).abs().max() < 1e-5


def test_the_table_at_another_grid_is_transformers_bicubic():
    model, grid = theirs(**LARGE), Grid(1, 3, 7)
    with torch.no_grad():
        out = model(images(grid)).last_hidden_state[:, 1:]
    assert (features(ours(model, positions="bicubic"), grid) - out).abs().max() < 1e-5


def test_a_norm_behind_the_last_block_is_there_where_the_config_has_it():
    model = theirs(use_mean_pooling=False)
    tower = ours(model)
    assert tower.spec.final_norm
    with torch.no_grad():
        out = model(images(NATIVE)).last_hidden_state[:, 1:]
    assert (features(tower, NATIVE) - out).abs().max() < 1e-5
    assert ours(theirs()).spec.final_norm is False


def test_numbers_of_the_published_models():
    """OpenGVLab/InternViT-6B-448px-V1-5 and InternViT-300M-448px."""
    with torch.device("meta"):
        large, small = (
            tower.build()
            for tower in (
                InternViT(),
                InternViT(width=1024, layers=24, heads=16, mlp=4096, norm="layer_norm", qk_norm=False, qkv_bias=True),
            )
        )
    assert [sum(parameter.numel() for parameter in tower.parameters()) for tower in (large, small)] == [5_536_496_000, 304_012_288]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"patch_size": [4, 2]}, "patch_size"),
        ({"use_absolute_position_embeddings": False}, "use_absolute"),
        ({"use_mask_token": True}, "mask"),
    ],
)
def test_a_config_of_another_tower_is_refused_by_name(changes, named):
    with pytest.raises(SpecError, match=named):
        InternViT.from_config(InternVLVisionConfig(**(NUMBERS | changes)))


class Published(nn.Module):
    """A block of OpenGVLab's class, by its equations, with heads that were added: `added` channels."""

    def __init__(self, weights, number, width, heads, added):
        super().__init__()
        self.of = {name.removeprefix(f"encoder.layers.{number}."): value for name, value in weights.items() if f"layers.{number}." in name}
        self.width, self.head, self.added = width, width // heads, added

    def rms(self, values, name, over=None):
        part = values if over is None else values[..., :over]
        return values * (part.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt() * self.of[name]

    def forward(self, hidden):
        normed = self.rms(hidden, "norm1.weight")
        queries, keys, values = functional.linear(normed, self.of["attn.qkv.weight"]).chunk(3, -1)
        queries, keys = self.rms(queries, "attn.q_norm.weight", self.width), self.rms(keys, "attn.k_norm.weight", self.width)
        split = [part.unflatten(-1, (-1, self.head)).transpose(1, 2) for part in (queries, keys, values)]
        scores = (split[0] * self.head**-0.5 @ split[1].transpose(-1, -2)).softmax(-1)
        attended = (scores @ split[2]).transpose(1, 2).flatten(-2)
        hidden = hidden + self.of["ls1"] * functional.linear(attended, self.of["attn.proj.weight"], self.of["attn.proj.bias"])
        fed = functional.gelu(functional.linear(self.rms(hidden, "norm2.weight"), self.of["mlp.fc1.weight"], self.of["mlp.fc1.bias"]))
        return hidden + self.of["ls2"] * functional.linear(fed, self.of["mlp.fc2.weight"], self.of["mlp.fc2.bias"])


@pytest.mark.parametrize("added", [0, 24])
def test_under_opengvlabs_names_with_added_heads_a_tower_computes_the_same(added):
    """Three heads of eight channels more, as NVLM-D adds seven to InternViT-6B: what they give is nothing. Measured 1e-6."""
    model = theirs(**LARGE)
    weights = to_opengvlab(model.state_dict(), added)
    generator = torch.Generator().manual_seed(1)
    for name, value in weights.items():
        if added and name.endswith("attn.qkv.weight"):  # queries and keys of added heads may be anything
            for begin in (32, 56 + 32):
                value[begin : begin + 24] = torch.randn(24, 32, generator=generator)
    patches = functional.conv2d(
        images(NATIVE), weights["embeddings.patch_embedding.weight"], weights["embeddings.patch_embedding.bias"], stride=4
    )
    tokens = torch.cat([weights["embeddings.class_embedding"].expand(2, -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
    tokens = tokens + weights["embeddings.position_embedding"]
    for number in range(3):
        tokens = Published(weights, number, 32, 4, added)(tokens)
    assert (features(ours(model), NATIVE) - tokens[:, 1:]).abs().max() < 1e-5


@both_kinds
@pytest.mark.parametrize("added", [0, 24])
def test_opengvlabs_names_there_and_back_are_the_same_weights(form, added):
    weights = theirs(**form).state_dict()
    again = from_opengvlab(to_opengvlab(weights, added), 32)
    assert weights.keys() == again.keys()
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_added_heads_that_give_something_are_refused():
    weights = to_opengvlab(theirs(**LARGE).state_dict(), 24)
    weights["encoder.layers.1.attn.qkv.weight"] = torch.ones(3 * 56, 32)
    from_opengvlab(weights, 32)  # what they give is multiplied by zeros
    weights["encoder.layers.1.attn.proj.weight"] = torch.ones(32, 56)
    with pytest.raises(SpecError, match=r"encoder\.layers\.1\.attn\.qkv\.weight has 56 channels of heads where the tower has 32"):
        from_opengvlab(weights, 32)


OPENGVLAB = {
    "model_type": "intern_vit_6b",
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "patch_size": 4,
    "image_size": 20,
    "hidden_act": "gelu",
    "norm_type": "rms_norm",
    "layer_norm_eps": 1e-6,
    "qk_normalization": True,
    "qkv_bias": False,
}


@pytest.mark.parametrize("layer", [-1, -2])
@pytest.mark.parametrize("published", ["transformers", "opengvlab"])
def test_load_pretrained_from_a_directory(tmp_path, published, layer):
    model = theirs(**LARGE)
    if published == "transformers":
        model.save_pretrained(tmp_path)
    else:
        save_file(to_opengvlab(model.state_dict(), 24), tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(json.dumps(OPENGVLAB))
    spec = tiny("intern_vit", checkpoint=str(tmp_path), layer=layer)
    tower = spec.build().eval()
    spec.load_pretrained(tower)
    assert torch.equal(features(tower, NATIVE), features(ours(model, layer=layer), NATIVE))
    with pytest.raises(SpecError, match="norm_type"):
        tiny("intern_vit", checkpoint=str(tmp_path), norm="layer_norm").load_pretrained(tower)


def test_scales_of_branches_begin_at_their_number():
    tower = tiny("intern_vit", scale=0.25).build()
    assert all(bool((layer.lambda_1 == 0.25).all()) for layer in tower.layers)
    with pytest.raises(SpecError, match=r"intern_vit\.scale: expected more than 0, got 0\.0"):
        tiny("intern_vit", scale=0.0)
