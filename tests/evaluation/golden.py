"""What others' metrics say to the drawn inputs: python tests/evaluation/golden.py writes tests/evaluation/golden.json.

Run it in an environment with the packages below, such as that of tests/evaluation/harness/environment.sh; nothing of vlmkit is imported.
The caption tokenizer of pycocoevalcap takes a Java machine.

    lmms-eval 0.7.3       VQA accuracy (textvqa), the answers' normal form, exact match as GQA's task asks for it, ANLS
    anls 0.0.2            ANLS with the boundary dropped
    torchmetrics 1.9.0    F1 of words (SQuAD)
    pycocoevalcap 1.2     words of captions, CIDEr-D, BLEU-4, ROUGE-L
    rouge-score 0.1.2     precision and recall of ROUGE-L
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import drawn

FILE = Path(__file__).with_name("golden.json")


def vqa_accuracy() -> list[float]:
    from lmms_eval.tasks.textvqa.utils import textvqa_process_results

    rows = [({"answers": list(answers), "question_id": 0}, [said]) for said, answers in drawn.asked()]
    return [float(textvqa_process_results(*row)["exact_match"]) for row in rows]


def vqa_normalise() -> list[str]:
    from lmms_eval.tasks._task_utils.vqa_eval_metric import EvalAIAnswerProcessor

    return [EvalAIAnswerProcessor()(said) for said, _ in drawn.asked()]


def gqa_match() -> list[float]:
    from lmms_eval.api.metrics import exact_match_hf_evaluate

    # It leaves the blanks that stood beside punctuation: what stands around the text is ignored by its own option for that.
    signs = r"[\s!-/:-@\[-`{-~]+"
    options = {"ignore_case": True, "ignore_punctuation": True, "regexes_to_ignore": [f"^{signs}|{signs}$"]}
    rows = [([said], [answers[0]]) for said, answers in drawn.asked()]
    return [float(exact_match_hf_evaluate(*row, **options)["exact_match"]) for row in rows]


def anls_kept() -> list[float]:
    from lmms_eval.api.metrics import anls

    return [float(anls(references=answers, predictions=[said])["anls"]) for said, answers in drawn.near()]


def anls_dropped() -> list[float]:
    from anls import anls_score

    return [anls_score(said, answers) for said, answers in drawn.near()]


def word_f1() -> list[float]:
    from torchmetrics.functional.text import squad

    def one(said: str, right: str) -> float:
        target = {"answers": {"answer_start": [0], "text": [right]}, "id": "0"}
        return float(squad([{"prediction_text": said, "id": "0"}], [target])["f1"]) / 100

    return [one(*pair) for pair in drawn.words()]


def caption_words() -> list[str]:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    found = PTBTokenizer().tokenize({number: [{"caption": text}] for number, text in enumerate(drawn.captions())})
    return [found[number][0] for number in range(drawn.CASES)]


def _published() -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    rows = drawn.captioned()
    return {n: references for n, (_, references) in enumerate(rows)}, {n: [said] for n, (said, _) in enumerate(rows)}


def cider_d() -> list[float]:
    from pycocoevalcap.cider.cider import Cider

    return [float(one) for one in Cider().compute_score(*_published())[1]]


def bleu4() -> list[float]:
    """Of the first 2, 3, ... pairs."""
    from pycocoevalcap.bleu.bleu import Bleu

    right, said = _published()
    found = []
    for count in range(2, drawn.CASES + 2, 1):
        kept = range(min(count, drawn.CASES))
        found.append(float(Bleu(4).compute_score({n: right[n] for n in kept}, {n: said[n] for n in kept}, verbose=0)[0][3]))
    return found


def rouge_l() -> list[float]:
    from pycocoevalcap.rouge.rouge import Rouge

    return [float(one) for one in Rouge().compute_score(*_published())[1]]


def rouge_l_of_one() -> list[list[float]]:
    """Precision and recall beside the first reference."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])
    scores = [scorer.score(references[0], said)["rougeL"] for said, references in drawn.captioned()]
    return [[one.precision, one.recall] for one in scores]


REFERENCES: tuple[Callable[[], Any], ...] = (
    *(vqa_accuracy, vqa_normalise, gqa_match, anls_kept, anls_dropped, word_f1, caption_words, cider_d, bleu4, rouge_l, rouge_l_of_one),
)


def fingerprint(rows: Any) -> str:
    """Of drawn inputs, so that a golden value never stands beside another input."""
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


if __name__ == "__main__":
    told = {reference.__name__: reference() for reference in REFERENCES}
    told["inputs"] = {name: fingerprint(draw()) for name, draw in drawn.DRAWS.items()}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(values)}" for name, values in told.items())
    FILE.write_text("{\n" + lines + "\n}\n", encoding="utf-8")
