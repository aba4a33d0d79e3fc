"""Functions of the task local.yaml, which lmms-eval imports: a question of TextVQA's with its picture beside it as a file."""

from lmms_eval.tasks.textvqa.utils import textvqa_process_results
from PIL import Image


def doc_to_visual(doc):
    return [Image.open(doc["picture"]).convert("RGB")]


def doc_to_text(doc, lmms_eval_specific_kwargs=None):
    return doc["prompt"]


def process_results(doc, result):
    return {"exact_match": textvqa_process_results(doc, result)["exact_match"]}
