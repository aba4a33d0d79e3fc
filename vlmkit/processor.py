"""The processor: conversations with images in, the batch of tensors that the model takes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from transformers import AutoProcessor, PreTrainedTokenizerBase, ProcessorMixin

from vlmkit.architecture import Architecture
from vlmkit.auto_map import AUTO_MAP, Referred, write_code
from vlmkit.batch.batch import Batch
from vlmkit.batch.calls import as_conversations, read_call
from vlmkit.batch.collate import Entries, packed, padded
from vlmkit.batch.image_processor import ImageProcessor
from vlmkit.batch.portable import listed, portable
from vlmkit.batch.rendering import Renders
from vlmkit.batch.sample import PreparedSample, RenderedImage, limited
from vlmkit.batch.tags import Tags
from vlmkit.config import VLMConfig
from vlmkit.conversation import Conversation, Film, Medium, read_conversation
from vlmkit.files import writing
from vlmkit.layout.laid_out import IGNORE, Layout, Turn
from vlmkit.spec import SpecError
from vlmkit.tokenizer import PlainTokenizer, check_specials, with_all_told


class VLMProcessor(Referred, Renders, ProcessorMixin):  # type: ignore[misc]
    """Images and conversations -> tensors, as the architecture's policy, encoder, connector and layout say.

    trusts_text: whether `text=` is whole prompts, as if every call said `trusted=True`: for libraries that hand back what
    `apply_chat_template(tokenize=False)` gave them (TRL's DPO and GRPO). False; set it where nobody else's texts come in.
    """

    trusts_text: bool = False

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **options: Any) -> Self:
        """As transformers. Code that lies beside a tokenizer is not run, and nobody is asked on the terminal whether it may be, unless
        the caller passes trust_remote_code=True."""
        options.setdefault("trust_remote_code", False)
        loaded: Self = super().from_pretrained(pretrained_model_name_or_path, **options)
        return loaded

    def __init__(self, tokenizer: PreTrainedTokenizerBase, architecture: dict[str, Any] | None = None) -> None:
        if architecture is None:
            raise SpecError("a processor needs its architecture: VLMProcessor(tokenizer, architecture=arch.to_dict())")
        super().__init__(with_all_told(tokenizer))
        self.tokenizer.padding_side = "left"  # read by those who pad prompts themselves, such as transformers' pipelines
        self.architecture = architecture
        self.spec = Architecture.from_dict(architecture)
        required = self.spec.layout.required_specials()
        self.plain_tokenizer = PlainTokenizer(tokenizer, required)
        vocabulary = self.spec.language_model.vocabulary
        if any(self.plain_tokenizer.specials.get(token, 0) >= vocabulary for token in required):
            vocabulary = self.spec.language_model.readable()
        check_specials(self.plain_tokenizer, required, vocabulary)
        layout, fusion = self.spec.layout, self.spec.fusion
        self.entries = Entries(
            pad=self.pad_token_id,
            learned=bool(layout.learned),
            prefix=fusion.needs_prefix,
            places=any(tower.encoder.reads_places for tower in self.spec.towers),
            visible=fusion.needs_visible,
            neighbours_together=layout.neighbours_together,
            tags=Tags(layout, self.plain_tokenizer) if fusion.reads_tags and layout.tags_views else None,
            three=self.spec.language_model.positions == "three",
        )

    @property
    def pad_token_id(self) -> int:
        """Id that fills rows up; it is masked, so any will do where the tokenizer has none."""
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else self.plain_tokenizer.specials[self.spec.layout.placeholder])

    @property
    def stop_token_ids(self) -> list[int]:
        """Ids of the special tokens that end an assistant's turn."""
        pieces = self.plain_tokenizer.specials.split(self.spec.layout.template.stop)
        return [piece for piece in pieces if isinstance(piece, int)][:1]

    @property
    def image_token(self) -> str:
        """The reserved token whose id fills the places of visual tokens."""
        return self.spec.layout.placeholder

    @property
    def image_token_id(self) -> int:
        return self.plain_tokenizer.specials[self.image_token]

    @property
    def image_processor(self) -> ImageProcessor:
        """Images without text."""
        return ImageProcessor(self)

    def lay_out(self, conversation: Conversation, images: Sequence[RenderedImage], *, add_generation_prompt: bool = False) -> Layout:
        """Token ids, labels and spans of a conversation whose images are rendered already."""
        turns, _ = read_conversation(conversation)
        return self._lay_out(turns, images, add_generation_prompt=add_generation_prompt)

    def sample(self, conversation: Conversation, *, add_generation_prompt: bool = False) -> PreparedSample:
        """Render and lay out one conversation."""
        return self._sample(*read_conversation(conversation), add_generation_prompt=add_generation_prompt)

    def _sample(self, said: Sequence[Turn] | str, media: Sequence[Medium], **how: bool) -> PreparedSample:
        images = tuple(self.render(medium) for medium in media)
        return PreparedSample(images, (self._lay_out(said, images, **how),))

    def _lay_out(self, said: Sequence[Turn] | str, images: Sequence[RenderedImage], bare: bool = False, **how: bool) -> Layout:
        layout, tokens = self.spec.layout, [image.tokens for image in images]
        if isinstance(said, str):
            return layout.lay_out_text(said, tokens, self.plain_tokenizer, bare=bare)
        return layout.lay_out(said, tokens, self.plain_tokenizer, **how)

    def __call__(
        self,
        conversations: Any = None,
        *,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        trusted: bool | None = None,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool = False,
        max_length: int | None = None,
        truncation: bool = False,
        pack: bool = False,
        padding: bool | str = True,
        padding_side: str | None = None,
        pad_to_multiple_of: int | None = None,
        add_special_tokens: bool = True,
        portable_form: bool | None = None,
        return_tensors: str | None = "pt",
    ) -> Batch:
        """Tensors for `model(**batch)` or `model.generate(**batch)`.

        conversations: one conversation or a list of them; or `images` and `text`, one question a row. `trusted`: each text is a whole
        prompt instead, such as "USER: <image>\\nWho is this? ASSISTANT:", in which special tokens and the places of images are meant;
        never pass what somebody else typed. Where the last message is the user's (the default of `add_generation_prompt`) the rows
        end where the answer begins and are padded on the left; otherwise they carry labels and are padded on the right.
        `continue_final_message`: rows end with the words of the last message, for generation to go on from there. `pack` puts all
        conversations into one row with positions that start again. `max_length`: with `truncation` the end is dropped, images only whole;
        without, or where an answer is to be generated at the end, a longer conversation raises LayoutError. `padding`: True or
        'longest', or 'max_length'; False where rows are equally long by themselves. `add_special_tokens=False`: a trusted text has what
        it spells, and nothing is put before or behind it. `portable_form`: the batch in the form that other libraries pad, cut and
        extend (vlmkit.batch.portable); that of a call with `text`, if nothing is said. `return_tensors=None`: rows as lists without
        padding, in the portable form; images stay tensors.
        """
        if return_tensors not in ("pt", None):
            raise ValueError(f"return_tensors={return_tensors!r}: the batch is made of PyTorch tensors, use 'pt', or None for lists of ids")
        if text is not None and trusted is None:
            trusted = self.trusts_text
        if padding_side not in (None, "left", "right"):
            raise ValueError(f"padding_side={padding_side!r}: expected 'left' or 'right'")
        if padding not in (True, False, "longest", "max_length") or (padding == "max_length" and max_length is None):
            raise ValueError(f"padding={padding!r}: expected True, False, 'longest', or 'max_length' beside max_length=")
        call = read_call(
            conversations,
            text,
            images,
            trusted=trusted,
            placeholder=self.spec.layout.placeholder,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
        )
        generate = call.generates
        how = {"add_generation_prompt": call.add_generation_prompt, "continue_final_message": continue_final_message}
        if trusted:
            how["bare"] = not add_special_tokens
        samples = [self._sample(said, media, **how) for said, media in call.rows]
        if max_length is not None:
            samples = [limited(sample, number, max_length, truncation, generate) for number, sample in enumerate(samples)]
        side = padding_side or ("left" if generate else "right")
        lengths = {len(layout.ids) for sample in samples for layout in sample.layouts}
        if not (padding or pack) and len(lengths) > 1:
            raise ValueError(
                f"padding=False: rows of {min(lengths)} to {max(lengths)} tokens make no tensor; leave it out, or pass pack=True"
            )
        length = max_length if padding == "max_length" else None
        if pad_to_multiple_of is not None and not pack:
            length = -(-(length or max(lengths)) // pad_to_multiple_of) * pad_to_multiple_of
        batch = self.pack_rows([samples], length) if pack else self.collate(samples, padding_side=side, length=length)
        if generate:
            del batch["labels"], batch["supervised"]
        if not pack and (return_tensors is None or (text is not None if portable_form is None else portable_form)):
            layouts = [layout for sample in samples for layout in sample.layouts]
            batch = portable(batch, layouts, side, self.spec)
        return batch if return_tensors else listed(batch)

    def collate(self, samples: Sequence[PreparedSample], *, padding_side: str = "right", length: int | None = None) -> Batch:
        """One row a conversation, padded to `length`, or to the longest. Raises LayoutError where a row is longer."""
        return padded(samples, self.entries, side=padding_side, length=length)

    def pack(self, samples: Sequence[PreparedSample]) -> Batch:
        """All conversations in one row, one after the other, positions starting again; there is no attention mask: `segments` tells where
        samples end. The first token of a sample is nobody's target."""
        return self.pack_rows([samples])

    def pack_rows(self, rows: Sequence[Sequence[PreparedSample]], length: int | None = None) -> Batch:
        """Rows of packed samples, each filled up to `length` (the longest row's, if none is given) with tokens that no sample sees.
        Raises LayoutError where a row holds more."""
        return packed(rows, self.entries, length)

    def apply_chat_template(
        self,
        conversation: Any,
        chat_template: str | None = None,
        *,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool = False,
        tokenize: bool = True,
        return_dict: bool = True,
        return_tensors: str | None = None,
        return_assistant_tokens_mask: bool = False,
        tools: Any = None,
        processor_kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """The habit of transformers users, of its pipelines and of TRL: as calling the processor with conversations, and the batch in the
        portable form (vlmkit.batch.portable), which others may pad, cut and extend.

        Without `return_tensors` rows are lists of ids, as transformers has it. `tokenize=False`: the string, or a list of strings, in
        which special tokens and images are spelled; {"type": "image"} alone will do there. `return_assistant_tokens_mask`:
        `assistant_masks` (B, S), 1 where an answer stands.
        Raises LayoutError where a text spells a special token and a string is asked for, and ValueError for a template or tools of the
        caller's.
        """
        if chat_template is not None or tools:
            raise ValueError("the chat template of a vlmkit model is its layout's: pass neither chat_template nor tools")
        how = {"add_generation_prompt": add_generation_prompt, "continue_final_message": continue_final_message}
        if not tokenize:
            asks = {"add_generation_prompt": bool(add_generation_prompt), "continue_final_message": continue_final_message}
            texts = [self._spelled(row, **asks) for row in as_conversations(conversation)]
            return texts[0] if conversation and isinstance(conversation[0], Mapping) else texts
        if not return_dict:
            raise ValueError("return_dict=False: ids alone do not say where images stand; leave it out and read ['input_ids']")
        options |= {**(processor_kwargs or {}), **how}
        batch = self(conversation, return_tensors="pt", portable_form=True, **options)
        if return_assistant_tokens_mask:
            batch["assistant_masks"] = (batch["labels"] != IGNORE).long()
        return batch if return_tensors else listed(batch)

    def _spelled(self, conversation: Conversation, **how: bool) -> str:
        turns, media = read_conversation(conversation, unnamed=True)
        return self.spec.layout.spell(turns, [isinstance(medium, Film) for medium in media], self.plain_tokenizer.specials, **how)

    def to_dict(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        told: dict[str, Any] = super().to_dict(*arguments, **options)
        return told | {"auto_map": AUTO_MAP}

    def save_pretrained(self, save_directory: Any, *arguments: Any, **options: Any) -> list[str]:
        """As transformers, with the lines of code that `auto_map` names."""
        with writing(save_directory):
            written: list[str] = super().save_pretrained(save_directory, *arguments, **options)
            write_code(save_directory)
        return written

    @property
    def model_input_names(self) -> list[str]:
        rows = ["attention_mask", *self.entries.blank(1, 1)]
        further = [f"{name}_{number}" for number in range(1, len(self.spec.cutters)) for name in ("pixel_values", "grids")]
        places = ["places"] if self.entries.places else []
        tags = ["tags"] if self.entries.tags is not None else []
        return [name for name in rows if name != "labels"] + ["pixel_values", "grids", *places, *tags, *further]


AutoProcessor.register(VLMConfig, VLMProcessor)
