"""NVLM by parts. D: InternVLVisionModel, pixel shuffle, LayerNorm, Linear, GELU, Linear, Qwen2ForCausalLM, the prompt of the published
code's `chat`. X and H: the same with the paper's gated cross-attention, written out token by token before a layer of the decoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from families.assembled import Assembled, no_whole
from families.system import System
from PIL import Image
from torch import Tensor
from torch.nn import functional
from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

from vlmkit.architecture import Parameters
from vlmkit.model import VLM

D = System(
    title="NVLM-D",
    counts={"nvlm-d-72b": Parameters(5_536_496_000, 620_717_056, 0, 72_706_203_648)},
    tiny="nvlm-d-tiny",
    reference=no_whole,
    compared_with="by parts: InternVLVisionModel, the projector's equations and Qwen2ForCausalLM put together by hand, pixels with "
    "GotOcr2ImageProcessor's patches, numbers of tiles with those of the published `dynamic_preprocess`, ids with the prompt that "
    "`NVLM_D_Model.chat` writes",
)

TURN = "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n"
A_VIEW = 4
"""Visual tokens of a view of the tiny model."""


def shuffled(features: Tensor) -> Tensor:
    """(V, n * n, D) -> (V, n * n / 4, 4 D), as the published `pixel_shuffle` of version 2 does: columns first, then rows."""
    views, tokens, dim = features.shape
    side = round(tokens**0.5)
    merged = features.reshape(views, side, side // 2, 2 * dim).transpose(1, 2)
    return merged.reshape(views, side // 2, side // 2, 4 * dim).transpose(1, 2).flatten(1, 2)


def projector(weights: Mapping[str, Tensor], features: Tensor) -> Tensor:
    merged = shuffled(features)
    mean, variance = merged.mean(-1, keepdim=True), merged.var(-1, keepdim=True, correction=0)
    normed = (merged - mean) / (variance + 1e-5).sqrt() * weights["inner.layers.0.weight"] + weights["inner.layers.0.bias"]
    return functional.linear(functional.gelu(functional.linear(normed, weights["inner.layers.1.weight"])), weights["inner.layers.3.weight"])


def pixels(image: Image.Image) -> Tensor:
    processor = transformers.GotOcr2ImageProcessor(
        size={"height": 448, "width": 448},
        crop_to_patches=True,
        min_patches=1,
        max_patches=6,
        image_mean=(0.485, 0.456, 0.406),
        image_std=(0.229, 0.224, 0.225),
    )
    found: Tensor = processor(image, return_tensors="pt")["pixel_values"]
    return found


def tagged(image: str) -> str:
    """The places of an image with the tags before those of each view."""
    token = "<|vision_pad|>" * A_VIEW
    views = image.count("<|vision_pad|>") // A_VIEW
    tags = [*(f"<tile_{number}>" for number in range(1, views)), "<tile_global_thumbnail>"]
    return f"<Image>{''.join(tag + token for tag in tags)}</Image>"


def prompt(image: str, question: str) -> str:
    return f"{TURN}{tagged(image)}\n{question}<|im_end|><|im_start|>assistant\n"


PARTS = Assembled(
    row=D,
    tower=transformers.InternVLVisionModel,
    features=lambda output: output.hidden_states[-1][:, 1:],
    projector=projector,
    decoder=transformers.Qwen2ForCausalLM,
    pixels=pixels,
    prompt=prompt,
    answered=lambda image, question, answer: f"{prompt(image, question)}{answer}<|im_end|>",
    visual_tokens=1792,
    specials=("<|vision_pad|>",),
)


GATED = 10 * (2 * 8192 + 2 * 8192 * 8192 + 2 * 8192 * 1024 + 3 * 8192 * 29568 + 2)
"""Ten layers of two norms, queries and output, keys and values of eight heads, an MLP of three, two gates."""

X = System(
    title="NVLM-X",
    counts={"nvlm-x-72b": Parameters(5_536_496_000, 2 * 12800 + 12800 * 8192, GATED, 72_706_203_648)},
    tiny="nvlm-x-tiny",
    reference=no_whole,
    compared_with="by parts: InternVLVisionModel, one linear layer and Qwen2ForCausalLM with the paper's gated cross-attention written out "
    "beside it, token by token, tags looking at their own tiles; there are neither weights nor code",
)
H = System(
    title="NVLM-H",
    counts={"nvlm-h-72b": Parameters(5_536_496_000, 620_717_056, GATED, 72_706_203_648)},
    tiny="nvlm-h-tiny",
    reference=no_whole,
    compared_with="by parts: InternVLVisionModel, NVLM-D's projector and Qwen2ForCausalLM with the paper's gated cross-attention written "
    "out beside it, to tiles and to embeddings of their tags; there are neither weights nor code",
)


def tiles_of(size: tuple[int, int]) -> int:
    """Of an image of the tiny models; 0 where it is one view."""
    columns, rows = get_optimal_tiled_canvas(tuple(size), (56, 56), 1, 4)
    return columns * rows if columns * rows > 1 else 0


def one_linear_layer(weights: Mapping[str, Tensor], features: Tensor) -> Tensor:
    merged = shuffled(features)
    mean, variance = merged.mean(-1, keepdim=True), merged.var(-1, keepdim=True, correction=0)
    normed = (merged - mean) / (variance + 1e-5).sqrt() * weights["inner.layers.0.weight"] + weights["inner.layers.0.bias"]
    return functional.linear(normed, weights["inner.layers.1.weight"])


def rms(values: Tensor, weight: Tensor) -> Tensor:
    return values / (values.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def gated(weights: Mapping[str, Tensor], hidden: Tensor, seen: Sequence[Tensor]) -> Tensor:
    """One layer over (S, D), of whose tokens each looks at rows of its own (n, D), or at none; four heads of queries, two of keys."""
    of = {name.removeprefix("layers.0."): value for name, value in weights.items()}
    out = []
    for token, rows in zip(hidden, seen, strict=True):
        if len(rows):
            queries = (of["attention.q_proj.weight"] @ rms(token, of["norm_attention.weight"])).view(4, 8)
            keys, values = ((rows @ of[f"attention.{name}_proj.weight"].T).view(-1, 2, 8) for name in "kv")
            heads = [((keys[:, head // 2] @ queries[head]) / 8**0.5).softmax(0) @ values[:, head // 2] for head in range(4)]
            token = token + of["gate_attention"].tanh() * (of["attention.o_proj.weight"] @ torch.cat(heads))
        normed = rms(token, of["norm_mlp.weight"])
        fed = functional.silu(of["mlp.gate_proj.weight"] @ normed) * (of["mlp.up_proj.weight"] @ normed)
        out.append(token + of["gate_mlp"].tanh() * (of["mlp.down_proj.weight"] @ fed))
    return torch.stack(out)


@dataclass(frozen=True, eq=False)
class Looking(Assembled):
    """With cross-attention before the second of the decoder's two layers."""

    beside_words: bool = False
    """NVLM-H: the whole image is among the words."""

    def said(self, ids: Tensor, sizes: Sequence[tuple[int, int]], visual: Tensor, embed: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """The ids in runs, and what each run looks at, (n, D): by the paper's words, from the text."""
        tokenizer, nothing = self.tokenizer(), visual[0, :0]

        def tokens(text: str) -> Tensor:
            return torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"])

        left, views, looks = ids, iter(visual), nothing
        for size in sizes:
            tags = [f"<tile_{number + 1}>" for number in range(tiles_of(size))]
            seen = [next(views) for _ in tags]
            whole = next(views)
            image = tokens("<Image>")
            begin = next(at for at in range(len(left)) if torch.equal(left[at : at + len(image)], image))
            yield left[:begin], looks
            left = left[begin:]
            if self.beside_words:
                looks = torch.cat([nothing, *(row for tag, tile in zip(tags, seen, strict=True) for row in (embed(tokens(tag)), tile))])
                yield left[: len(image)], looks
                left = left[len(image) :]
                continue
            runs = [("<Image>", looks), *zip([*tags, "<tile_global_thumbnail>"], [*seen, whole], strict=True)]
            for text, rows in runs:
                length = len(tokens(text))
                assert torch.equal(left[:length], tokens(text))
                yield left[:length], rows
                left = left[length:]
            looks = torch.cat([*seen, whole])
        yield left, looks

    def logits(self, vision: VLM, views: Tensor, ids: Tensor, sizes: Sequence[tuple[int, int]]) -> tuple[Tensor, Any, Tensor]:
        spec = vision.config.spec
        decoder = self.decoder(spec.language_model.transformers_config()).eval()
        decoder.load_state_dict(vision.language_model.state_dict())
        weights = vision.fusion.state_dict()
        with torch.no_grad():
            visual = self.projector(
                vision.connector.state_dict(), self.features(self.published_tower(vision)(views, output_hidden_states=True))
            )
            embed = decoder.get_input_embeddings()
            seen = [rows for run, rows in self.said(ids, sizes, visual, embed) for _ in run]
            assert len(seen) == len(ids)
            embeddings = embed(ids)
            if self.beside_words:
                ends = torch.tensor([tiles_of(size) + 1 for size in sizes]).cumsum(0) - 1
                placeholder = self.tokenizer().convert_tokens_to_ids(spec.layout.placeholder)
                embeddings[ids == placeholder] = visual[ends].flatten(0, 1)

        def before(layer: Any, given: Any, named: dict[str, Any]) -> Any:
            hidden = given[0]
            rows = seen if hidden.shape[1] == len(seen) else seen[-1:]
            return (gated(weights, hidden[0], rows)[None], *given[1:]), named

        decoder.model.layers[1].register_forward_pre_hook(before, with_kwargs=True)
        with torch.no_grad():
            return decoder(inputs_embeds=embeddings[None]).logits[0], decoder, embeddings[None]


def written(beside_words: bool) -> Any:
    """(the image's places, a question) -> the prompt."""

    def prompt(image: str, question: str) -> str:
        text = tagged(image).replace("<|vision_pad|>", "")
        if beside_words:
            text = f"<Image>{'<|vision_pad|>' * A_VIEW}</Image>"
        return f"{TURN}{text}\n{question}<|im_end|><|im_start|>assistant\n"

    return prompt


def looking(row: System, beside_words: bool) -> Looking:
    prompt = written(beside_words)
    return Looking(
        row=row,
        tower=transformers.InternVLVisionModel,
        features=PARTS.features,
        projector=projector if beside_words else one_linear_layer,
        decoder=transformers.Qwen2ForCausalLM,
        pixels=pixels,
        prompt=prompt,
        answered=lambda image, question, answer: f"{prompt(image, question)}{answer}<|im_end|>",
        visual_tokens=1792,
        specials=("<|vision_pad|>",),
        beside_words=beside_words,
    )


X_PARTS, H_PARTS = looking(X, False), looking(H, True)
