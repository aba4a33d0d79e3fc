"""Attention by segment beside attention under a mask of the whole row."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from vlmkit.encoders import segments as module
from vlmkit.encoders.segments import Segments, attend, by_segments, eager, segments_of
from vlmkit.features import Grid, View

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=7).map(tuple)
SCALES = st.sampled_from([None, 8**-0.5, 0.1, 1.0])


def row(lengths, seed=0):
    """Queries, keys and values (1, heads, N, d)."""
    return torch.randn(3, 1, 2, sum(lengths), 8, generator=torch.Generator().manual_seed(seed)).unbind()


def under_a_mask(queries, keys, values, lengths, scale):
    number = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    return scaled_dot_product_attention(queries, keys, values, attn_mask=number[:, None] == number, scale=scale)


@pytest.mark.parametrize("one_size", [scaled_dot_product_attention, eager])
@given(lengths=LENGTHS, scale=SCALES, seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_each_segment_attends_to_itself_alone(one_size, lengths, scale, seed):
    """Measured 6e-7."""
    given_ = row(lengths, seed)
    found = attend(*given_, Segments(lengths, equal=False), one_size, scale)
    assert (found - under_a_mask(*given_, lengths, scale)).abs().max() < 5e-6


@given(lengths=LENGTHS, scale=SCALES)
@settings(max_examples=40, deadline=None)
def test_gradients_stay_within_a_segment(lengths, scale):
    tensors = [tensor.clone().requires_grad_() for tensor in row(lengths)]
    attend(*tensors, Segments(lengths, equal=False), scale=scale)[:, :, : lengths[0]].square().sum().backward()
    for tensor in tensors[1:]:
        assert (tensor.grad[:, :, lengths[0] :] == 0).all()
    assert tensors[2].grad[:, :, : lengths[0]].abs().max() > 0


@pytest.mark.parametrize("name", ["sdpa", "eager"])
@pytest.mark.parametrize("scale", [None, 0.1])
def test_equal_segments_are_one_batch_bit_for_bit_whether_they_stand_in_a_row_or_not(name, scale):
    batch = torch.randn(3, 5, 2, 7, 8, generator=torch.Generator().manual_seed(1)).unbind()
    one_row = [tensor.transpose(0, 1).reshape(1, 2, 35, 8) for tensor in batch]
    one_size = eager if name == "eager" else scaled_dot_product_attention
    together = attend(*batch, Segments((7,) * 5, equal=True), one_size, scale)
    assert torch.equal(together, one_size(*batch, scale=scale))
    in_a_row = attend(*one_row, Segments((7,) * 5, equal=False), one_size, scale)
    assert torch.equal(in_a_row.view(2, 5, 7, 8).transpose(0, 1), together)


@pytest.mark.parametrize("name", ["sdpa", "eager"])
@pytest.mark.parametrize("scale", [None, 8**-0.5, 0.1])
@pytest.mark.parametrize("lengths", [(4, 4), (3, 5, 3)], ids=str)
def test_layers_of_transformers_get_it_with_the_scale_that_they_ask_for(name, scale, lengths):
    """Measured 3e-7."""
    equal = len(set(lengths)) == 1
    tensors = row(lengths)
    given_ = [tensor.view(2, 2, 4, 8).transpose(0, 1) for tensor in tensors] if equal else tensors
    layer = SimpleNamespace(is_causal=False, training=False)
    function = AttentionInterface()[by_segments(name)]
    found, weights = function(layer, *given_, Segments(lengths, equal), scaling=scale, dropout=0.0)
    expected = under_a_mask(*tensors, lengths, scale).transpose(1, 2)
    assert weights is None
    assert found.shape == ((2, 4, 2, 8) if equal else (1, 11, 2, 8))
    if equal:
        one_by_one = [scaled_dot_product_attention(*(tensor[number, None] for tensor in given_), scale=scale) for number in range(2)]
        expected = torch.cat(one_by_one).transpose(1, 2)
    assert (found - expected).abs().max() < 5e-6


def test_views_of_one_grid_are_a_batch_and_others_a_row():
    wide, high = View(Grid(1, 2, 3)), View(Grid(1, 3, 2))
    assert segments_of((wide, wide), prefix=1) == Segments((7, 7), equal=True)
    assert segments_of((wide, high)) == Segments((6, 6), equal=False)
    assert segments_of((wide._replace(image=3), wide)).equal


@pytest.mark.parametrize("scale", [None, 0.1])
def test_torchs_kernel_takes_what_it_is_given_on_a_gpu(monkeypatch, scale):
    """Shapes alone, by tensors that hold nothing: its numbers were never seen."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    taken = []
    of_variable_length = module.of_variable_length
    monkeypatch.setattr(module, "of_variable_length", lambda *given_: (taken.append(given_[3]), of_variable_length(*given_))[1])
    with FakeTensorMode(allow_non_fake_inputs=True):
        for dtype, channels in ((torch.bfloat16, 72), (torch.float16, 64), (torch.float32, 64), (torch.bfloat16, 4), (torch.bfloat16, 264)):
            tensors = [torch.empty(1, 4, 10, channels, device="cuda", dtype=dtype) for _ in range(3)]
            out = attend(*tensors, Segments((3, 7), equal=False), scale=scale)
            assert out.shape == (1, 4, 10, channels)
            assert out.dtype == dtype
    assert len(taken) == 2
