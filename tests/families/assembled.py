"""Systems whose reference is assembled from published parts: a tower and a decoder that are classes of transformers, the projector's
equations, the prompt of the published code. What the rows of the table share that are compared so."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from families.system import System
from PIL import Image
from torch import Tensor, nn

from vlmkit.architecture import Architecture
from vlmkit.model import VLM
from vlmkit.tokenizer import bytes_tokenizer


def no_whole() -> NoReturn:
    raise LookupError("there is no published whole to compare with")


@dataclass(frozen=True, eq=False)
class Assembled:
    """A row, and how its reference computes."""

    row: System
    tower: type[Any]
    """transformers' vision model."""
    features: Callable[[Any], Tensor]
    """What is read of the tower's output with all hidden states: (views, tokens, D_v)."""
    projector: Callable[[Mapping[str, Tensor], Tensor], Tensor]
    """(the connector's weights, (views, tokens, D_v)) -> (views, visual tokens, D_lm), by its equations."""
    decoder: type[Any]
    """transformers' causal language model."""
    pixels: Callable[[Image.Image], Tensor]
    """The published preprocessing of the largest model: (3, H, W), or several views (V, 3, H, W), normalised."""
    prompt: Callable[[str, str], str]
    """(the image's places, a question) -> the published prompt."""
    answered: Callable[[str, str, str], str]
    """(the image's places, a question, an answer) -> what is trained on."""
    visual_tokens: int
    specials: tuple[str, ...] = ()
    roles: Mapping[str, str] | None = None
    beside: Callable[[], int] = lambda: 0
    """Parameters that the published count has and vlmkit does not build."""

    def tokenizer(self) -> Any:
        return bytes_tokenizer(self.specials, **(self.roles or {}))

    def empty_tower(self, architecture: Architecture) -> nn.Module:
        """The published tower of a named model, on the current default device."""
        found: nn.Module = self.tower(self.tower.config_class(**architecture.encoder.numbers()))  # type: ignore[attr-defined]
        return found

    def published_tower(self, vision: VLM) -> Any:
        """transformers' tower with the weights of vlmkit's."""
        theirs = self.empty_tower(vision.config.spec).eval()
        inner = getattr(theirs, "vision_model", theirs)
        missing, unexpected = inner.load_state_dict(vision.encoder.state_dict(), strict=False)
        assert not unexpected
        assert all("head." in name for name in missing), missing
        return theirs

    def logits(self, vision: VLM, views: Tensor, ids: Tensor, sizes: Sequence[tuple[int, int]]) -> tuple[Tensor, Any, Tensor]:
        """Of normalised views (n, 3, S, S) and one conversation's ids: logits, the decoder and its embeddings. sizes: height and width of
        each image, for references that have to know whose view is whose."""
        spec = vision.config.spec
        decoder = self.decoder(spec.language_model.transformers_config()).eval()
        decoder.load_state_dict(vision.language_model.state_dict())
        placeholder = self.tokenizer().convert_tokens_to_ids(spec.layout.placeholder)
        with torch.no_grad():
            features = self.features(self.published_tower(vision)(views, output_hidden_states=True))
            visual = self.projector(vision.connector.state_dict(), features)
            embeddings = decoder.get_input_embeddings()(ids)
            embeddings[ids == placeholder] = visual.flatten(0, 1)
            return decoder(inputs_embeds=embeddings[None]).logits[0], decoder, embeddings[None]
