"""Attention within views of any sizes that stand in one row: each view attends to itself, and no mask of the whole row is ever made.

Views of one size are rows of a batch, as any library has them. Views of different sizes stand one behind the other in a single row, so that
every block of a tower is called once whatever the sizes are: ranks whose weights are sharded have to call each block equally often.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from vlmkit.features import View

Attend = Callable[..., Tensor]
"""Queries, keys and values (V, heads, n, d) -> (V, heads, n, d). `scale` multiplies the scores; None for d ** -0.5."""


class Segments:
    """What attends to itself. It is neither a tuple nor a dataclass: a compiled block would look how long a tuple is, and be compiled again
    for each number; FSDP2 makes a dataclass anew before every block."""

    def __init__(self, lengths: tuple[int, ...], equal: bool, prefixes: tuple[int, ...] | None = None) -> None:
        """lengths: tokens of each. equal: whether they are rows of a batch (V, n, D), equally long; otherwise they are stretches of one row
        (1, N, D). prefixes: of each view, how many tokens all of it sees; those behind are seen by themselves and by later ones. None: all
        see all."""
        self.lengths, self.equal, self.prefixes = lengths, equal, prefixes
        self.plain = equal and prefixes is None
        """Whether one call for a whole batch will do."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Segments) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    segments: Segments,
    one_size: Attend = scaled_dot_product_attention,
    scale: float | None = None,
) -> Tensor:
    """Queries, keys and values (V, heads, n, d), or (1, heads, N, d) with different segments -> the same shape.

    one_size: attention of a batch of equally long rows. On a GPU in half precision different segments go to one kernel of variable
    length (never run: there was no GPU); elsewhere `one_size` is called once for each length that occurs.
    """
    if segments.plain:
        return one_size(queries, keys, values, scale=scale)
    return _outside_graphs(queries, keys, values, segments, one_size, scale)


def _of_different_sizes(queries: Tensor, keys: Tensor, values: Tensor, segments: Segments, one_size: Attend, scale: float | None) -> Tensor:
    if segments.prefixes is not None:
        return behind_prefixes(queries, keys, values, segments, segments.prefixes, scale)
    if one_size is scaled_dot_product_attention and fits_the_kernel(queries):
        return of_variable_length(queries, keys, values, segments, scale)
    members: defaultdict[int, list[int]] = defaultdict(list)
    for number, length in enumerate(segments.lengths):
        members[length].append(number)
    stretches = [tensor.split(segments.lengths, dim=2) for tensor in (queries, keys, values)]  # type: ignore[no-untyped-call]
    out: list[Tensor] = [queries] * len(segments.lengths)
    for numbers in members.values():
        together = [torch.cat([stretch[number] for number in numbers]) for stretch in stretches]
        for number, attended in zip(numbers, one_size(*together, scale=scale), strict=True):
            out[number] = attended[None]
    return torch.cat(out, dim=2)


_outside_graphs: Callable[..., Tensor] = torch.compiler.disable(_of_different_sizes)  # type: ignore[no-untyped-call]
"""Graphs of compiled blocks end here and go on behind: the sizes are numbers, and inside there would be another graph for each batch."""


def behind_prefixes(
    queries: Tensor, keys: Tensor, values: Tensor, segments: Segments, prefixes: tuple[int, ...], scale: float | None
) -> Tensor:
    """Attention within views, both ways within each one's prefix and backwards behind it: AIM's, of which masks of n x n are made."""
    places = {length: torch.arange(length, device=queries.device) for length in set(segments.lengths)}
    masks = [
        (place[None] < prefix) | (place[None] <= place[:, None])
        for place, prefix in ((places[length], prefix) for length, prefix in zip(segments.lengths, prefixes, strict=True))
    ]
    if segments.equal:
        return scaled_dot_product_attention(queries, keys, values, torch.stack(masks)[:, None], scale=scale)
    of_queries, of_keys, of_values = (torch.split(tensor, list(segments.lengths), dim=2) for tensor in (queries, keys, values))
    out = [
        scaled_dot_product_attention(*view[:3], view[3], scale=scale) for view in zip(of_queries, of_keys, of_values, masks, strict=True)
    ]
    return torch.cat(out, dim=2)


def fits_the_kernel(queries: Tensor) -> bool:
    """Whether torch's kernel for packed sequences, which is FlashAttention 2, takes them: half precision, 8 to 256 channels a head in
    steps of 8, and a GPU of 2020 or later."""
    channels = queries.shape[-1]
    return (
        queries.is_cuda
        and queries.dtype in (torch.float16, torch.bfloat16)
        and channels <= 256
        and channels % 8 == 0
        and torch.cuda.get_device_capability(queries.device) >= (8, 0)
    )


def of_variable_length(queries: Tensor, keys: Tensor, values: Tensor, segments: Segments, scale: float | None = None) -> Tensor:
    """(1, heads, N, d) -> the same, by one call of torch's kernel for packed sequences. Never run: there was no GPU."""
    from torch.nn.attention.varlen import varlen_attn

    ends = pad(torch.tensor(segments.lengths).cumsum(0), (1, 0)).to(queries.device, torch.int32, non_blocking=True)
    longest = max(segments.lengths)
    # Releases of torch whose kernel has no `scale` have the usual one.
    unusual: dict[str, Any] = {} if scale in (None, queries.shape[-1] ** -0.5) else {"scale": scale}
    row_of_queries, row_of_keys, row_of_values = (tensor[0].transpose(0, 1) for tensor in (queries, keys, values))
    out: Any = varlen_attn(row_of_queries, row_of_keys, row_of_values, ends, ends, longest, longest, **unusual)
    attended: Tensor = out.transpose(0, 1)[None]
    return attended


def eager(queries: Tensor, keys: Tensor, values: Tensor, scale: float | None = None) -> Tensor:
    """Attention written out."""
    scores = queries @ keys.transpose(-1, -2) * (queries.shape[-1] ** -0.5 if scale is None else scale)
    attended: Tensor = scores.softmax(dim=-1, dtype=torch.float32).to(values.dtype) @ values
    return attended


def _over(name: str) -> Callable[..., tuple[Tensor, None]]:
    """An attention function of transformers over its own one of that name, that takes Segments where a mask would stand: every layer
    hands its mask on as it is."""
    from transformers.integrations.flash_attention import flash_attention_forward
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def forward(module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Segments, **options: Any) -> tuple[Tensor, None]:
        """(V, heads, n, d) -> (V, n, heads, d), as transformers asks."""

        def theirs(queries: Tensor, keys: Tensor, values: Tensor, scale: float | None) -> Tensor:
            function = sdpa_attention_forward if name == "sdpa" else flash_attention_forward
            out: Tensor = function(module, queries, keys, values, None, **(options | {"scaling": scale}))[0]
            return out.transpose(1, 2)

        attention: Attend = eager if name == "eager" else theirs
        if name == "sdpa" and not attention_mask.equal:
            attention = scaled_dot_product_attention
        return attend(query, key, value, attention_mask, attention, options.get("scaling")).transpose(1, 2).contiguous(), None

    return forward


@functools.cache
def by_segments(name: str) -> str:
    """What transformers knows its attention function `name` ("sdpa", "eager", "flash_attention_2") under where it takes segments."""
    from transformers import AttentionInterface

    own = f"vlmkit_{name}"
    AttentionInterface.register(own, _over(name))
    return own


def segments_of(views: Sequence[View], prefix: int = 0, prefixes: tuple[int, ...] | None = None) -> Segments:
    """Each view attends to itself, with `prefix` tokens before its patches. Views of one grid are rows of a batch."""
    return Segments(tuple(view.grid.tokens + prefix for view in views), len({view.grid for view in views}) == 1, prefixes)
