"""Attention within the samples of packed rows: each sample attends to itself, and no mask of a whole row is ever made.

A row of S tokens that holds samples of n_1, n_2, ... needs n_1^2 + n_2^2 + ... scores; under a mask of S x S all S^2 are computed and most
thrown away. Here a language model is told where samples begin, as kernels of variable length are (FlashAttention 2, Dao 2023,
arXiv:2307.08691), and its own attention function is called once a sample:

    a token, of rows that stand one behind the other     a a a a | b b b | c c c c c | - -
    boundaries                                            0         4       7           12   14

    "by_sample"          over transformers' "sdpa"
    "by_sample_eager"    over the model's own "eager": where it caps scores or has sinks (Gemma 2)

are names of transformers' AttentionInterface. Without boundaries both are what they stand over, masks included. Language models that can
are built with one of them unless another attention is asked for; whoever asks for "sdpa" or "eager" has masks of S x S.

On a GPU the same boundaries go to one kernel: torch's varlen_attn where it takes the heads, FlexAttention elsewhere, and attention by
sample where neither does. There was no GPU: varlen_attn was never run, FlexAttention on a CPU, forward.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.weak import WeakIdKeyDictionary
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from vlmkit.encoders.segments import fits_the_kernel

BY_SAMPLE = {"sdpa": "by_sample", "eager": "by_sample_eager"}
"""The names, by what they stand over."""

PLAIN_LAYERS = {"full_attention", "sliding_attention"}
"""transformers' types of layers whose masks say nothing but how far a token looks back."""


def attends_by_sample(language_model: PreTrainedModel) -> bool:
    """Whether its attention takes boundaries of samples, under one of the names here."""
    return language_model.config._attn_implementation in BY_SAMPLE.values()


def attend_by_sample(language_model: PreTrainedModel) -> None:
    """Give it the attention of packed rows in place of its "sdpa" or "eager", if it can: boundaries and windows have to reach its
    attention, and its masks have to be causal, through a window or not."""
    config = language_model.config
    if (
        config._attn_implementation in BY_SAMPLE
        and language_model._supports_attention_backend
        and PLAIN_LAYERS.issuperset(getattr(config, "layer_types", None) or ())
        and getattr(config, "is_causal", True)
        and not getattr(config, "use_bidirectional_attention", False)
        and hands_on(language_model, getattr(config, "sliding_window", None) is not None)
    ):
        language_model.set_attn_implementation(BY_SAMPLE[config._attn_implementation])


def hands_on(language_model: PreTrainedModel, windows: bool) -> bool:
    """Whether further arguments reach its attention, and whether that says its window: transformers promises both of classes that support
    backends, and not all keep it (Nemotron's layers, PhiMoE's windows). Their text is read."""
    attending = [name for name, module in language_model.named_modules() if "attention_interface(" in forward_text(module)]
    above = {name.rsplit(".", depth)[0] for name in attending for depth in range(1, name.count(".") + 1)}
    modules = [language_model, *map(language_model.get_submodule, {*attending, *above})]
    texts = {forward_text(module) for module in modules if not isinstance(module, nn.ModuleList | nn.ModuleDict)}
    called = [language_model.get_submodule(name) for name in attending]
    return (
        bool(called)
        and all(text.count("**kwargs") > 1 for text in texts)
        and all(hasattr(sys.modules[type(module).__module__], "eager_attention_forward") for module in called)
        and (not windows or all("sliding_window" in forward_text(module) for module in called))
    )


def forward_text(module: nn.Module) -> str:
    """The source of its forward; empty where there is none to read."""
    try:
        return _source(type(module).forward)
    except (OSError, TypeError):
        return ""


_source = functools.cache(inspect.getsource)


def no_mask(prefixes: Tensor | None, device: torch.device) -> Tensor:
    """What stands where a language model takes its mask, so that it makes none: (1, 1, 1, S), whether a token is in its sample's prefix,
    which is seen in both directions; (1, 1, 1, 0) where there are no prefixes."""
    empty = torch.zeros(1, 1, 1, 0, dtype=torch.bool, device=device)
    return empty if prefixes is None else (prefixes >= 0).view(1, 1, 1, -1)


def by_sample(
    own: Callable[..., Any], masked: bool, module: Any, qkv: Sequence[Tensor], mask: Any, ends: Sequence[int], **options: Any
) -> Tensor:
    """Queries, keys and values (1, heads, N, d) -> (1, N, heads, d), by one call of the model's own attention function a sample.

    mask: of `no_mask`, or None. masked: whether the function needs a mask to be causal. ends: (P + 1,).
    """
    lengths = [stop - start for start, stop in pairwise(ends)]
    queries = qkv[0]
    window = options.get("sliding_window")
    prefix = mask[0, 0, 0].split(lengths) if mask is not None and mask.shape[-1] else None
    limit = max(lengths) if window is None or prefix is not None else 2 * window
    blocks = [length > limit for length in lengths]
    widest = max((length for length, blocked in zip(lengths, blocks, strict=True) if not blocked), default=0)
    needed = masked or prefix is not None or (window is not None and widest > window)
    causal = looks_back(widest, widest, window, queries.device) if needed else None
    out = []
    for number, stretch in enumerate(zip(*(tensor.split(lengths, dim=2) for tensor in qkv), strict=True)):  # type: ignore[no-untyped-call]
        if blocks[number]:
            out.append(through_a_window(own, masked, module, stretch, **options))
            continue
        seen = None if causal is None else causal[: lengths[number], : lengths[number]]
        if seen is not None and prefix is not None:
            seen = seen | (prefix[number][:, None] & prefix[number])
        elif not masked and (window is None or lengths[number] <= window):
            seen = None  # plainly causal: the function has a kernel for that
        out.append(own(module, *stretch, None if seen is None else as_mask(seen, masked, queries.dtype)[None, None], **options)[0])
    return torch.cat(out, dim=1)


def _outside_graphs(
    own: Callable[..., Any], masked: bool, module: Any, qkv: Sequence[Tensor], mask: Any, ends: Tensor, **options: Any
) -> Tensor:
    return by_sample(own, masked, module, qkv, mask, ends.tolist(), **options)


by_sample_outside_graphs: Callable[..., Tensor] = torch.compiler.disable(_outside_graphs)  # type: ignore[no-untyped-call]
"""As `by_sample`, with a tensor of boundaries. Graphs of compiled blocks end here and go on behind: inside, there would be another one for
every batch."""


def through_a_window(own: Callable[..., Any], masked: bool, module: Any, stretch: Sequence[Tensor], **options: Any) -> Tensor:
    """Queries, keys and values (1, heads, n, d) of a sample that is longer than two windows -> (1, n, heads, d).

    It is cut into blocks of one window, and each block looks at itself and at the one before: 2 n w scores, not n^2.
    """
    length, window = stretch[0].shape[2], int(options["sliding_window"])
    count = -(-length // window)
    queries, keys, values = (
        functional.pad(tensor[0], (0, 0, 0, count * window - length)).view(tensor.shape[1], count, window, -1).transpose(0, 1)
        for tensor in stretch
    )
    keys, values = (torch.cat([functional.pad(blocks, (0, 0, 0, 0, 0, 0, 1, 0))[:-1], blocks], dim=2) for blocks in (keys, values))
    seen = looks_back(window, 2 * window, window, queries.device).expand(count, 1, window, 2 * window)
    begins = torch.arange(count, device=queries.device)[:, None, None, None] > 0
    seen = seen & (begins | (torch.arange(2 * window, device=queries.device) >= window))  # nothing stands before the first block
    found: Tensor = own(module, queries, keys, values, as_mask(seen, masked, queries.dtype), **options)[0]
    return found.flatten(0, 1)[None, :length]


def looks_back(queries: int, keys: int, window: int | None, device: torch.device) -> Tensor:
    """(queries, keys): whether a token sees another one, where the last of both are the same token."""
    back = torch.arange(keys - queries, keys, device=device)[:, None] - torch.arange(keys, device=device)
    return (back >= 0) if window is None else (back >= 0) & (back < window)


def as_mask(seen: Tensor, added: bool, dtype: torch.dtype) -> Tensor:
    """As sdpa takes it, or what is added to scores."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min) if added else seen


def of_variable_length(qkv: Sequence[Tensor], begins: Tensor, longest: int, window: int | None, scale: float | None) -> Tensor:
    """(1, heads, N, d) -> (1, N, heads, d), by one call of torch's kernel for packed sequences.

    begins (P + 1,) int32 on the GPU; longest: no sample has more tokens.
    """
    from torch.nn.attention.varlen import varlen_attn

    queries, keys, values = (tensor[0].transpose(0, 1) for tensor in qkv)
    back = -1 if window is None else window - 1  # the kernel does not count the token itself
    grouped = queries.shape[1] != keys.shape[1]
    found: Any = varlen_attn(
        queries, keys, values, begins, begins, longest, longest, scale=scale, window_size=(back, 0), enable_gqa=grouped
    )
    attended: Tensor = found[None]
    return attended


_BLOCK_MASKS: Any = WeakIdKeyDictionary()
"""Block masks, by the tensor of boundaries that they were made of: all layers of a forward share it."""


def block_mask(begins: Tensor, length: int, window: int | None, prefix: Tensor | None) -> Any:
    """FlexAttention's mask of rows (N,) that begin at (P + 1,): a bit a block of 128 x 128, and none a pair of tokens."""
    from torch.nn.attention.flex_attention import create_block_mask

    kept = _BLOCK_MASKS.setdefault(begins, {})
    if window not in kept:
        sample = torch.bucketize(torch.arange(length, device=begins.device), begins[1:], right=True)

        def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            seen = query >= key
            if window is not None:
                seen = seen & (query - key < window)
            if prefix is not None:
                seen = seen | (prefix[query] & prefix[key])
            return seen & (sample[query] == sample[key])

        kept[window] = create_block_mask(sees, None, None, length, length, device=str(begins.device))
    return kept[window]


def through_blocks(module: Any, qkv: Sequence[Tensor], begins: Tensor, prefix: Tensor | None, **options: Any) -> Tensor:
    """(1, heads, N, d) -> (1, N, heads, d), by FlexAttention. prefix: (N,), or None. Compiled by Triton on a GPU, where it was never run;
    on a CPU, where torch has its forward pass alone, it was compared with attention by sample."""
    from transformers.integrations.flex_attention import flex_attention_forward

    blocks = block_mask(begins, qkv[0].shape[2], options.get("sliding_window"), prefix)
    attended: Tensor = flex_attention_forward(module, *qkv, blocks, **options)[0]
    return attended


def _over(name: str) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """transformers' attention function `name` that takes boundaries beside."""

    def forward(
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any,
        **options: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """(1, heads, N, d) -> (1, N, heads, d). boundaries (P + 1,) as numbers or on the CPU, or `cu_seq_lens_q` (P + 1,) on the device,
        which by sample is read back. Without them any (B, heads, S, d), under the mask."""
        own = sdpa_attention_forward if name == "sdpa" else sys.modules[type(module).__module__].eager_attention_forward
        boundaries: Sequence[int] | Tensor | None = options.pop("boundaries", None)
        cu_seq_lens_q: Tensor | None = options.pop("cu_seq_lens_q", None)
        max_length_q: int | None = options.pop("max_length_q", None)
        if boundaries is None and cu_seq_lens_q is None:
            if isinstance(attention_mask, Tensor) and attention_mask.shape[-1] < key.shape[2]:
                raise ValueError(
                    f"{type(module).__name__} is given a row of packed samples without their boundaries, which its language model keeps to "
                    'itself; call language_model.set_attn_implementation("sdpa"), which makes masks'
                )
            attended: tuple[Tensor, Tensor | None] = own(module, query, key, value, attention_mask, **options)
            return attended
        if query.is_cuda and cu_seq_lens_q is not None and not options.get("dropout"):
            window, scale = options.get("sliding_window"), options.get("scaling")
            prefix = attention_mask[0, 0, 0] if attention_mask is not None and attention_mask.shape[-1] else None
            if name == "sdpa" and prefix is None and fits_the_kernel(query):
                longest = max_length_q or query.shape[2]
                return of_variable_length((query, key, value), cu_seq_lens_q, longest, window, scale), None
            if query.shape[-1] == value.shape[-1]:
                return through_blocks(module, (query, key, value), cu_seq_lens_q, prefix, **options), None
        told = cu_seq_lens_q if boundaries is None else boundaries
        assert told is not None
        attend: Callable[..., Tensor] = by_sample_outside_graphs if isinstance(told, Tensor) else by_sample
        return attend(own, name == "eager", module, (query, key, value), attention_mask, told, **options), None

    return forward


AttentionInterface.register(BY_SAMPLE["sdpa"], _over("sdpa"))
AttentionInterface.register(BY_SAMPLE["eager"], _over("eager"))
AttentionMaskInterface.register(BY_SAMPLE["sdpa"], sdpa_mask)
AttentionMaskInterface.register(BY_SAMPLE["eager"], eager_mask)
