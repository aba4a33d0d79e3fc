"""Scores of answers: pure functions of texts and places, which load no torch. Each states what it normalises and where definitions differ.

    errors      exact match, edit distance, character and word error rate
    answers     VQA accuracy, GQA's exact match, ANLS, words whatever their order
    captions    words of captions, CIDEr-D, BLEU-4, ROUGE-L
    places      overlap of boxes, pointing accuracy

Each was compared with implementations of others on drawn inputs: tests/evaluation/golden.py says with which.
"""

from vlmkit.evaluation.metrics.answers import anls, gqa_match, vqa_accuracy, vqa_normalise, word_f1
from vlmkit.evaluation.metrics.captions import bleu4, caption_words, cider_d, rouge_l
from vlmkit.evaluation.metrics.errors import character_error_rate, edit_distance, exact_match, normalise, word_error_rate
from vlmkit.evaluation.metrics.places import box_iou, pointing_accuracy

__all__ = [
    "anls",
    "bleu4",
    "box_iou",
    "caption_words",
    "character_error_rate",
    "cider_d",
    "edit_distance",
    "exact_match",
    "gqa_match",
    "normalise",
    "pointing_accuracy",
    "rouge_l",
    "vqa_accuracy",
    "vqa_normalise",
    "word_error_rate",
    "word_f1",
]
