import pytest
import torch
from torch.nn import functional

from vlmkit.connectors import connectors
from vlmkit.features import Features, Grid, GridError
from vlmkit.spec import SpecError

SequenceFold = connectors["sequence_fold"]


def test_nine_patches_of_27_in_a_row_are_one_token_and_no_window():
    """What the linear layer sees of a 27 x 27 grid whose two channels are a patch's number and its row."""
    seen = []
    module = SequenceFold(fold=9, hidden=3).build(2, 4)
    module.mlp[0].register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    patches = torch.arange(729.0)
    out = module(Features(torch.stack([patches, patches // 27], dim=1), (Grid(1, 27, 27),)))
    assert out.grids == (Grid(1, 27, 3),)
    (folded,) = seen
    assert folded.shape == (81, 18)
    assert folded[:, 0::2].flatten().tolist() == patches.tolist()
    assert (folded[:, 1::2] == folded[:, 1:2]).all(), "a token is of one row"


def test_it_is_reshape_linear_gelu_linear_view_by_view():
    module = SequenceFold(fold=3, hidden=10).build(4, 6)
    first, up, second, down = module.state_dict().values()
    views = [torch.randn(2 * 6, 4), torch.randn(9, 4)]
    expected = [
        functional.linear(functional.gelu(functional.linear(view.reshape(-1, 12), first, up), approximate="tanh"), second, down)
        for view in views
    ]
    out = module(Features(torch.cat(views), (Grid(1, 2, 6), Grid(3, 1, 3))))
    torch.testing.assert_close(out.tokens, torch.cat(expected), rtol=1e-6, atol=1e-6)
    assert out.grids == (Grid(1, 2, 2), Grid(3, 1, 1))


def test_omnivlms_has_46_million_parameters():
    with torch.device("meta"):
        module = SequenceFold(fold=9, hidden=4096).build(1152, 896)
    assert sum(parameter.numel() for parameter in module.parameters()) == 46_142_336


def test_a_row_that_does_not_divide_and_a_class_token_are_refused():
    with pytest.raises(GridError, match=r"^sequence_fold merges 9 patches of a row, but the grid is 24x24$"):
        SequenceFold(fold=9).grid_out(Grid(1, 24, 24))
    with pytest.raises(GridError, match=r"the grid is 27x27 \+ 1; drop the class token, it has no neighbours$"):
        SequenceFold(fold=9).grid_out(Grid(1, 27, 27, prefix=1))


@pytest.mark.parametrize(("fields", "said"), [({"fold": 0}, r"fold: expected 1 or more, got 0"), ({"hidden": 0}, r"hidden: .*got 0")])
def test_numbers_that_cannot_be_are_refused(fields, said):
    with pytest.raises(SpecError, match=rf"^sequence_fold\.{said}"):
        SequenceFold(**fields)
