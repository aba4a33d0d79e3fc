"""The model: what a row sees does not depend on how it is batched, and every loss is the same loss."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import vlmkit
from tests.tiny import CONVERSATIONS, LANGUAGE_MODELS, PROMPTS, apart, architecture, assistant, encoded_views, model, picture, shared, user
from vlmkit.batch.sample import PreparedSample
from vlmkit.fusion.incoming import FusionError
from vlmkit.language_model import LanguageModel
from vlmkit.layout.laid_out import IGNORE
from vlmkit.model import VLM
from vlmkit.recompute import recompute
from vlmkit.spec import Settings

ATTENTION = ("eager", "sdpa")
TOLERANCE = 1e-4
"""Of logits in float32, the largest of which is between 1 and 10."""


def with_attention(implementation: str, language: str) -> VLM:
    built = model(architecture(language=language))
    built.set_attn_implementation(implementation)
    assert built.language_model.config._attn_implementation == implementation
    return built


@pytest.mark.parametrize(
    ("attention", "language"),
    [(attention, language) for attention in ATTENTION for language in LANGUAGE_MODELS if (attention, language) != ("sdpa", "gemma2")],
)
def test_a_row_has_the_same_logits_alone_padded_on_either_side_and_packed(attention: str, language: str) -> None:
    """Sliding windows of Olmo3 and Gemma 2 are 8 tokens, every row is longer. Gemma 2 caps its attention, which sdpa cannot."""
    built = with_attention(attention, language)
    processor = vlmkit.build_processor(built.spec)
    with torch.no_grad():
        alone = [built(**processor(conversation)).logits[0] for conversation in CONVERSATIONS]
        packed = built(**without_labels(processor(CONVERSATIONS, pack=True))).logits[0]
        assert apart(packed, torch.cat(alone)) < TOLERANCE  # measured 3e-6
        for side in ("left", "right"):
            batch = processor(CONVERSATIONS, padding_side=side)
            padded = built(**batch).logits[batch["attention_mask"].bool()]
            assert apart(padded, torch.cat(alone)) < TOLERANCE  # measured 3e-6
    assert min(len(row) for row in alone) > 8
    assert max(float(row.abs().max()) for row in alone) > 1


def without_labels(batch: Any) -> dict[str, Any]:
    return {name: value for name, value in batch.items() if name != "labels"}


@pytest.mark.parametrize("attention", ATTENTION)
def test_packed_samples_do_not_see_each_other_whatever_the_mode(attention: str) -> None:
    built, processor = with_attention(attention, "olmo3"), shared()[1]
    other = [[user("Something else altogether, without any picture"), assistant("No.")], *CONVERSATIONS[1:]]
    sizes = [processor(conversation)["input_ids"].shape[1] for conversation in (CONVERSATIONS[0], other[0])]
    for training in (False, True):
        built.train(training)
        ends = [
            built(**without_labels(processor(rows, pack=True))).logits[0, size:]
            for rows, size in zip((CONVERSATIONS, other), sizes, strict=True)
        ]
        assert apart(*ends) < TOLERANCE  # measured 1e-6; 3.6 with a cache


STATEFUL = {
    "recurrent_gemma": {"lru_width": 64},
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
}


@pytest.mark.parametrize("model_type", STATEFUL)
def test_a_language_model_with_a_state_trains_and_is_not_packed(model_type: str) -> None:
    """Its state goes on from one sample of a row to the next, wherever positions start again."""
    tiny = vlmkit.architecture("univa-vl-tiny")
    size = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 1}
    config = Settings(STATEFUL[model_type] | size, vocab_size=tiny.language_model.vocabulary)
    language_model = LanguageModel(model_type=model_type, config=config, tokenizer="bytes")
    built = vlmkit.build(tiny, language_model=language_model, seed=0).train()
    processor = vlmkit.build_processor(tiny)
    built(**processor(CONVERSATIONS)).loss.backward()
    assert next(built.connector.parameters()).grad is not None
    with pytest.raises(FusionError, match=f"'{model_type}' carries a state .* leave packing out"):
        built(**processor(CONVERSATIONS, pack=True))


def test_packed_rows_with_a_mask_or_a_cache_are_refused() -> None:
    built, processor = shared()
    packed = processor(CONVERSATIONS, pack=True)
    with pytest.raises(FusionError, match=r"packed samples .* take neither attention_mask nor a cache"):
        built(**packed, attention_mask=torch.ones_like(packed["input_ids"]))
    with pytest.raises(FusionError, match="packed samples"):
        built.generate(**processor(PROMPTS, pack=True), max_new_tokens=1)


def test_logits_move_when_the_image_moves_and_only_behind_it() -> None:
    built, processor = shared()
    with torch.no_grad():
        first, second = (built(**processor([user("ab", picture(seed=seed), "cd")])) for seed in (1, 2))
    index = processor([user("ab", picture(), "cd")])["visual_index"][0]
    start = int((index >= 0).nonzero()[0])
    assert torch.equal(first.logits[:, :start], second.logits[:, :start])
    assert apart(first.logits[:, -1], second.logits[:, -1]) > 0.1


def test_several_conversations_about_one_image_are_each_as_alone_and_the_image_is_encoded_once() -> None:
    built, processor = model(), shared()[1]
    conversations = [[user(picture(), question), assistant(answer)] for question, answer in (("one?", "1"), ("and the second?", "22"))]
    first = processor.sample(conversations[0])
    sample = PreparedSample(first.images, (*first.layouts, processor.lay_out(conversations[1], first.images)))
    with torch.no_grad():
        alone = torch.cat([built(**processor(conversation)).logits[0] for conversation in conversations])
        seen = encoded_views(built)
        batch = processor.collate([sample])
        together = built(**batch).logits[batch["attention_mask"].bool()]
        packed = built(**processor.pack([sample])).logits[0]
    assert seen == [1, 1]
    assert apart(together, alone) < TOLERANCE  # measured 1e-6
    assert apart(packed, alone) < TOLERANCE


def by_hand(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE)


def test_the_loss_is_the_cross_entropy_of_the_next_supervised_token_in_either_mode() -> None:
    built, processor = model(), shared()[1]
    batch = processor(CONVERSATIONS)
    evaluated = built(**batch)
    trained = built.train()(**batch)
    assert apart(evaluated.loss, by_hand(evaluated.logits, batch["labels"])) < 1e-5  # measured 0
    assert apart(trained.loss, evaluated.loss) < 1e-5  # measured 0
    assert trained.logits is None
    assert evaluated.logits.shape == (*batch["input_ids"].shape, 264)


def test_in_training_only_supervised_positions_go_through_the_head() -> None:
    built, processor = model(), shared()[1]
    batch = processor(CONVERSATIONS)
    shapes: list[tuple[int, ...]] = []
    built.get_output_embeddings().register_forward_hook(lambda module, inputs, logits: shapes.append(tuple(logits.shape)))
    built.train()(**batch)
    assert shapes == [(4, int((batch["labels"][:, 1:] != IGNORE).any(dim=0).sum()), 264)]
    assert shapes[0][1] < batch["input_ids"].shape[1] // 2


def test_the_packed_loss_is_the_mean_over_tokens_of_the_separate_losses_and_so_are_its_gradients() -> None:
    built, processor = model(), shared()[1]
    for training in (False, True):
        built.train(training)
        built.zero_grad()
        total = 0
        for conversation in CONVERSATIONS:
            alone = processor(conversation)
            tokens = int((alone["labels"][:, 1:] != IGNORE).sum())
            (built(**alone).loss * tokens).backward()
            total += tokens
        separate = {name: parameter.grad / total for name, parameter in built.named_parameters() if parameter.grad is not None}
        built.zero_grad()
        loss = built(**processor(CONVERSATIONS, pack=True)).loss
        loss.backward()
        padded = built(**processor(CONVERSATIONS)).loss
        assert apart(loss, padded) < 1e-5
        gradients = {name: parameter.grad for name, parameter in built.named_parameters() if parameter.grad is not None}
        assert gradients.keys() == separate.keys()
        relative = [apart(gradients[name], separate[name]) / (float(separate[name].abs().max()) + 1e-3) for name in gradients]
        assert max(relative) < 1e-3  # measured 6e-7


def test_num_items_in_batch_takes_the_place_of_the_count() -> None:
    built, processor = model(), shared()[1]
    batch = processor(CONVERSATIONS)
    count = int((batch["labels"][:, 1:] != IGNORE).sum())
    for training in (False, True):
        built.train(training)
        mean = built(**batch).loss
        for items in (2 * count, torch.tensor(2 * count)):
            assert apart(built(**batch, num_items_in_batch=items).loss, mean / 2) < 1e-6


def test_a_batch_without_a_supervised_token_has_loss_zero_and_gradients_of_zero() -> None:
    built, processor = model(), shared()[1]
    batch = processor(CONVERSATIONS[0])
    batch["labels"][:] = IGNORE
    for training in (False, True):
        loss = built.train(training)(**batch).loss
        assert loss.item() == 0
        loss.backward()
        assert all(float(parameter.grad.abs().max()) == 0 for parameter in built.parameters() if parameter.grad is not None)


def test_one_training_step_of_transformers_trainer() -> None:
    """The way of transformers users: a data set of conversations, the processor as collator; the loss of two small batches
    accumulated is the loss of one."""
    from transformers import Trainer, TrainingArguments

    processor = shared()[1]
    data: Any = [{"conversation": conversation} for conversation in CONVERSATIONS]

    def collate(samples: list[dict[str, Any]]) -> Any:
        return dict(processor([sample["conversation"] for sample in samples]))

    weights = []
    for size, steps in ((4, 1), (2, 2)):
        built = model()
        arguments = TrainingArguments(
            output_dir="unused",
            per_device_train_batch_size=size,
            gradient_accumulation_steps=steps,
            max_steps=1,
            learning_rate=0.1,
            optim="sgd",
            max_grad_norm=1e9,
            remove_unused_columns=False,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            lr_scheduler_type="constant",
        )
        before = built.language_model.lm_head.weight.detach().clone()
        Trainer(model=built, args=arguments, train_dataset=data, data_collator=collate).train()
        weights.append(built.language_model.lm_head.weight.detach())
        assert apart(before, weights[-1]) > 1e-3
    assert apart(*weights) < 1e-5  # measured 3e-8


def test_recomputed_activations_change_memory_and_nothing_else() -> None:
    processor = shared()[1]
    batch = processor(CONVERSATIONS)
    gradients = []
    for checkpointed in (False, True):
        built = model().train()
        if checkpointed:
            recompute(built)
        calls: list[str] = []
        built.language_model.model.layers[0].mlp.register_forward_pre_hook(lambda *_, calls=calls: calls.append("language model"))
        built.encoder.transformer.resblocks[0].register_forward_pre_hook(lambda *_, calls=calls: calls.append("encoder"))
        built(**batch).loss.backward()
        assert calls.count("language model") == 1 + checkpointed
        assert calls.count("encoder") == 1 + checkpointed, "whatever the sizes of the images"
        gradients.append({name: parameter.grad for name, parameter in built.named_parameters()})
    assert all(apart(gradients[0][name], gradients[1][name]) < 1e-6 for name in gradients[0])  # measured 0
    recompute(built, False)
    assert not any(getattr(module, "gradient_checkpointing", False) for module in built.modules())


def test_every_part_gets_a_gradient_and_a_float_image_too() -> None:
    built, processor = model().train(), shared()[1]
    batch = processor(CONVERSATIONS)
    batch["pixel_values"] = built.encoder.normalise(batch["pixel_values"]).detach().requires_grad_()
    built(**batch).loss.backward()
    assert all(parameter.grad is not None and float(parameter.grad.abs().max()) > 0 for parameter in built.parameters())
    assert float(batch["pixel_values"].grad.abs().amax(dim=1).min()) > 0, "every patch has a gradient"


def test_normalised_floats_are_the_same_image_as_bytes() -> None:
    built, processor = shared()
    batch = processor(PROMPTS)
    floats = {**batch, "pixel_values": built.encoder.normalise(batch["pixel_values"])}
    assert torch.equal(built(**batch).logits, built(**floats).logits)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_lora_on_the_language_model_trains_and_is_saved_and_loaded(tmp_path: Any) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model

    processor = shared()[1]
    batch = processor(CONVERSATIONS)
    adapted = get_peft_model(model(), LoraConfig(r=2, target_modules=r".*language_model.*\.(q_proj|v_proj)", lora_dropout=0.0))
    assert {name.split(".")[-4] for name, parameter in adapted.named_parameters() if parameter.requires_grad} == {"q_proj", "v_proj"}
    optimizer = torch.optim.AdamW([parameter for parameter in adapted.parameters() if parameter.requires_grad], lr=0.01)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = adapted.train()(**batch).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[0]
    adapted.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(model(), str(tmp_path)).eval()
    assert torch.equal(again(**batch).logits, adapted.eval()(**batch).logits)


def test_get_image_features_gives_visual_tokens_and_their_grids() -> None:
    built, processor = shared()
    batch = processor(CONVERSATIONS)
    features = built.get_image_features(batch["pixel_values"], batch["grids"])
    assert features.tokens.shape == (sum(grid.tokens for grid in features.grids), 32)
    assert len(features.grids) == len(batch["grids"])
    assert torch.equal(built(**batch).visual, features.tokens)


def test_a_copy_and_a_pickle_are_the_same_model() -> None:
    built, processor = shared()
    batch = processor(PROMPTS)
    wanted = built(**batch).logits
    for again in (copy.deepcopy(built), pickle.loads(pickle.dumps(built))):
        assert torch.equal(again(**batch).logits, wanted)
        assert again.config.spec == built.config.spec
    assert copy.deepcopy(built.config).spec == pickle.loads(pickle.dumps(built.config)).spec == built.config.spec


def test_half_precision_and_modes_reach_every_part() -> None:
    built, processor = model(), shared()[1]
    batch = processor(PROMPTS)
    exact = built(**batch).logits
    half = built.to(torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    rounded = half(**batch).logits
    assert rounded.dtype == torch.bfloat16
    assert 0 < apart(rounded, exact) < 0.5  # measured 0.1
    assert all(module.training for module in half.train().modules())
    assert not any(module.training for module in half.eval().modules())


def test_a_tuple_is_returned_where_it_is_asked_for() -> None:
    built, processor = shared()
    batch = processor(CONVERSATIONS)
    loss, logits, *_ = built(**batch, return_dict=False)
    output = built(**batch)
    assert torch.equal(loss, output.loss)
    assert torch.equal(logits, output.logits)


def test_batches_with_something_left_out_are_refused() -> None:
    built, processor = shared()
    batch = dict(processor(PROMPTS))
    for missing in ("grids", "visual_index"):
        with pytest.raises(FusionError, match="pixel_values need grids and visual_index beside them"):
            built(**{name: value for name, value in batch.items() if name != missing})
    with pytest.raises(FusionError, match="visual_index refers to images, but the batch has no pixel_values"):
        built(**{name: value for name, value in batch.items() if name not in ("pixel_values", "grids")})


def test_chat_answers_one_question_with_or_without_an_image() -> None:
    built, processor = shared()
    for image in (picture(), None):
        answer = built.chat(processor, image, "What is it?", max_new_tokens=4)
        content = [] if image is None else [image]
        ids = built.generate(**processor([user(*content, "What is it?")]), max_new_tokens=4, do_sample=False)
        prompt = processor([user(*content, "What is it?")])["input_ids"].shape[1]
        assert answer == processor.decode(ids[0, prompt:], skip_special_tokens=True).strip()


def test_chat_stops_where_the_template_ends_the_turn_even_if_the_language_model_does_not_know_it() -> None:
    built, processor = model(architecture(language="llama")), shared()[1]
    built.generation_config.eos_token_id = None
    end = processor.stop_token_ids[0]
    steps: list[int] = []

    def only_the_end(ids: Tensor, scores: Tensor) -> Tensor:
        steps.append(1)
        forced = torch.full_like(scores, -torch.inf)
        forced[:, end if len(steps) == 3 else ord("a")] = 0
        return forced

    assert built.chat(processor, None, "?", max_new_tokens=9, logits_processor=[only_the_end]) == "aa"


def test_the_model_is_one_that_transformers_takes_for_a_vision_language_model() -> None:
    built, _ = shared()
    assert built.can_generate()
    assert built.get_input_embeddings() is built.language_model.get_input_embeddings()
    assert built.get_output_embeddings() is built.language_model.get_output_embeddings()
    assert vlmkit.VLM is type(built)
