"""Generation beside transformers' own class on the same weights, and eight questions about one image beside eight generations.

    python benchmarks/generate.py --family llava --json generate.json
    python benchmarks/generate.py --family qwen2_vl --rounds 7

The model is a small one with random weights, of a size where arithmetic takes most of the time; `vlmkit.checkpoints.export` writes it and
transformers' class loads it. Both generate from the batch that their own processor made of the same picture and question, and have to say
the same tokens; how long it takes to make that batch is compared too. They take turns, in a new order each round, so that a busy machine
slows them alike; a ratio is the median of the ratios within a round, over 1 where vlmkit is faster. On a CPU the clock is the processor's,
on a GPU the wall's.

Sizes: the picture is a photograph of COCO's size, 640 x 480, which VQA v2 asks about. LLaVA-1.5 looks at it in 336 x 336, as the published
model does: 576 visual tokens. Qwen2-VL keeps its size: 391. Answers have 8 tokens: those of VQA v2 are one to three words. The tokenizer is
one of bytes, so that about 40 tokens stand behind the image where a trained tokenizer has 15.

What sharing can save is bounded: with the seconds A of n generations, and b for the image and all that stands before a question, which
`about` computes once, n questions take A - (n - 1) b at least. So no way of sharing is faster than A / (A - (n - 1) b) times, and with
answers that are long enough decoding takes all. The bound is printed beside what was reached; a batch may pass it, for it shares the
reading of weights too.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForImageTextToText
from transformers.utils.logging import disable_progress_bar

import vlmkit
from vlmkit.architecture import Architecture
from vlmkit.checkpoints import export

DECODER = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 4}
TOWERS: dict[str, dict[str, Any]] = {
    "llava": {"width": 256, "layers": 6, "heads": 4, "mlp": 1024, "image_size": 336},
    "qwen2_vl": {"width": 256, "layers": 6, "heads": 4, "mlp": 1024},
}
QUESTIONS = (
    "What is in the picture?",
    "How many are there?",
    "What colour is the largest of them?",
    "Where does it stand?",
    "Is anybody looking at it?",
    "What does the sign behind it say?",
    "What time of the day is it?",
    "Who took the picture, and why?",
)


def architecture(family: str) -> Architecture:
    """The family's tiny model with larger numbers."""
    tiny = vlmkit.architecture({"llava": "llava-1.5-tiny", "qwen2_vl": "qwen2-vl-tiny"}[family])
    words = tiny.language_model
    config = words.config | DECODER
    if family == "qwen2_vl":
        config |= {"rope_parameters": dict(words.config["rope_parameters"]) | {"mrope_section": [8, 12, 12]}}
    tower = {name: value for name, value in TOWERS[family].items() if hasattr(tiny.encoder, name)}
    policy = tiny.policy.replace(size=336) if family == "llava" else tiny.policy.replace(min_pixels=56 * 56, max_pixels=1280 * 28 * 28)
    return tiny.replace(
        name=f"{family}-small", policy=policy, encoder=tiny.encoder.replace(**tower), language_model=words.replace(config=config)
    )


def timed(run: Callable[[], Any]) -> float:
    """Seconds: of the processor, which others that use it do not slow, or where a GPU works of the wall, once it is done."""
    if not torch.cuda.is_available():
        begun = time.process_time()
        run()
        return time.process_time() - begun
    torch.cuda.synchronize()
    begun = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - begun


def in_turns(ways: dict[str, Callable[[], Any]], rounds: int, seed: int = 0) -> dict[str, list[float]]:
    """Seconds of each way in each round, after one that warms up."""
    order, found = random.Random(seed), {name: [] for name in ways}
    for number in range(rounds + 1):
        for name in order.sample(list(ways), len(ways)):
            seconds = timed(ways[name])
            if number:
                found[name].append(seconds)
    return found


def ratio(other: list[float], own: list[float]) -> float:
    return round(statistics.median(one / two for one, two in zip(other, own, strict=True)), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", choices=sorted(TOWERS), default="llava")
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--answer-tokens", type=int, default=8, help="of each of the eight answers")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    disable_progress_bar()
    arch = architecture(arguments.family)
    model, processor = vlmkit.build(arch, seed=0, device=arguments.device).eval(), vlmkit.build_processor(arch)
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "exported"
        export(model, processor, target)
        theirs = AutoModelForImageTextToText.from_pretrained(target, dtype=torch.float32).to(arguments.device).eval()
        from transformers import AutoProcessor

        their_processor = AutoProcessor.from_pretrained(target)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8))
    results = {"family": arguments.family, "parameters": sum(each.numel() for each in model.parameters()), "device": arguments.device}
    results |= beside_transformers(model, processor, theirs, their_processor, picture, arguments)
    results |= eight_questions(model, processor, theirs, their_processor, picture, arguments)
    table = Table("what", "figure", title=f"{arguments.family}, {results['parameters'] / 1e6:.0f} million parameters")
    for name, value in results.items():
        table.add_row(name, str(value))
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps({"torch": torch.__version__, "results": results}, indent=2) + "\n")


def conversation(picture: Image.Image, question: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": question}]}]


def prompt(their_processor: Any, asked: list[dict[str, Any]], device: str) -> Any:
    """As users of transformers write it."""
    how = {"tokenize": True, "add_generation_prompt": True, "return_dict": True, "return_tensors": "pt"}
    return their_processor.apply_chat_template([asked], **how).to(device)


def beside_transformers(
    model: Any, processor: Any, theirs: Any, their_processor: Any, picture: Image.Image, arguments: Any
) -> dict[str, Any]:
    asked = conversation(picture, QUESTIONS[0])
    own, given = processor([asked]).to(arguments.device), prompt(their_processor, asked, arguments.device)
    new = arguments.new_tokens

    def run(which: Any, batch: Any, tokens: int) -> Any:
        with torch.no_grad():
            return which.generate(**batch, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)

    assert own["input_ids"].tolist() == given["input_ids"].tolist(), "the prompts differ"
    said = [run(which, batch, new)[0, -new:].tolist() for which, batch in ((model, own), (theirs, given))]
    assert said[0] == said[1], "the answers differ"
    # A first token takes a fraction of an answer, and is measured the more often.
    first = in_turns({"own": lambda: run(model, own, 1), "theirs": lambda: run(theirs, given, 1)}, 4 * arguments.rounds)
    whole = in_turns({"own": lambda: run(model, own, new), "theirs": lambda: run(theirs, given, new)}, arguments.rounds)
    ways = {"own": lambda: processor([asked]).to(arguments.device), "theirs": lambda: prompt(their_processor, asked, arguments.device)}
    batches = in_turns(ways, 8 * arguments.rounds)
    return {
        "prompt tokens": own["input_ids"].shape[1],
        "ms to a batch": round(1e3 * statistics.median(batches["own"]), 2),
        "picture and question to a batch, times transformers'": ratio(batches["theirs"], batches["own"]),
        "ms to the first token": round(1e3 * statistics.median(first["own"]), 1),
        "tokens a second": round(new / statistics.median(whole["own"]), 1),
        "first token, times transformers'": ratio(first["theirs"], first["own"]),
        "tokens a second, times transformers'": ratio(whole["theirs"], whole["own"]),
    }


def eight_questions(model: Any, processor: Any, theirs: Any, their_processor: Any, picture: Image.Image, arguments: Any) -> dict[str, Any]:
    """Pictures are opened and rendered in all ways, as `chat` does."""
    how = {"max_new_tokens": arguments.answer_tokens, "min_new_tokens": arguments.answer_tokens}

    def transformers() -> list[str]:
        said = []
        for question in QUESTIONS:
            batch = prompt(their_processor, conversation(picture, question), arguments.device)
            ids = theirs.generate(**batch, **how, do_sample=False)[0, batch["input_ids"].shape[1] :]
            said.append(str(their_processor.decode(ids, skip_special_tokens=True)).strip())
        return said

    def alone() -> list[str]:
        return [model.chat(processor, picture, question, **how) for question in QUESTIONS]

    def one_by_one() -> list[str]:
        asked = model.about(processor, picture)
        return [asked.ask(question, **how) for question in QUESTIONS]

    def together() -> list[str]:
        return list(model.about(processor, picture).ask(QUESTIONS, **how))

    def beginning() -> None:
        model.about(processor, picture)

    assert transformers() == alone() == one_by_one() == together(), "the answers differ"
    ways = {"transformers": transformers, "alone": alone, "one by one": one_by_one, "together": together, "beginning": beginning}
    seconds = in_turns(ways, max(3, arguments.rounds // 2))
    most = [whole - (len(QUESTIONS) - 1) * begun for whole, begun in zip(seconds["alone"], seconds["beginning"], strict=True)]
    return {
        "tokens computed once": model.about(processor, picture).shared_tokens,
        "s, eight generations": round(statistics.median(seconds["alone"]), 3),
        "s, what they share": round(statistics.median(seconds["beginning"]), 3),
        "eight generations, times transformers'": ratio(seconds["transformers"], seconds["alone"]),
        "about one image, one by one, times": ratio(seconds["alone"], seconds["one by one"]),
        "the most that sharing can give, times": ratio(seconds["alone"], most),
        "about one image, in one batch, times": ratio(seconds["alone"], seconds["together"]),
        "about one image, one by one, times transformers'": ratio(seconds["transformers"], seconds["one by one"]),
        "about one image, in one batch, times transformers'": ratio(seconds["transformers"], seconds["together"]),
    }


if __name__ == "__main__":
    main()
