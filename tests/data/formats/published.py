"""Small data sets written byte for byte as their authors publish them: what lies where, names of fields, types of values.

Fields that no reader needs are there too. Every maker returns the folder; `READ` says what a reader has to make of it.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def picture(shade: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((12, 16, 3), shade, np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def put(path: Path, content: bytes | str | Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, bytes):
        content = (content if isinstance(content, str) else json.dumps(content)).encode()
    path.write_bytes(content)
    return path


def pictures(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        put(folder / name, picture(number))


def coco(folder: Path) -> Path:
    pictures(folder, "train2017/000000391895.jpg", "train2017/000000522418.jpg")
    fields = {"license": 3, "coco_url": "http://images.cocodataset.org/x.jpg", "height": 360, "width": 640, "date_captured": "2013-11-14"}
    images = [{"file_name": f"{number:012}.jpg", "id": number, **fields} for number in (391895, 522418)]
    captions = [(391895, "A man with a red helmet."), (522418, "A woman cutting a cake."), (391895, "Man riding a motor bike.")]
    annotations = [{"image_id": image, "id": 770337 + number, "caption": text} for number, (image, text) in enumerate(captions)]
    content = {"info": {"year": 2017}, "licenses": [{"id": 3}], "images": images, "annotations": annotations}
    put(folder / "annotations/captions_train2017.json", content)
    put(folder / "annotations/captions_val2017.json", content | {"images": [], "annotations": []})
    put(folder / "annotations/instances_train2017.json", {"images": images, "annotations": []})
    return folder


def redcaps(folder: Path) -> Path:
    pictures(folder, "images/abandoned/guli1.jpg", "images/itookapicture/1bd79.jpg")
    for subreddit, name, caption in (("abandoned", "guli1", "found this house"), ("itookapicture", "1bd79", "itap of <usr> and a fox")):
        row = {"image_id": name, "author": "x", "image_url": "", "raw_caption": caption.title(), "caption": caption, "subreddit": subreddit}
        row |= {"score": 10, "created_utc": 1483237123, "permalink": f"/r/{subreddit}/", "url": f"https://i.redd.it/{name}.jpg"}
        put(folder / f"annotations/{subreddit}_2017.json", {"info": {"version": "v1.0"}, "annotations": [row]})
    return folder


def cells(*items: Any) -> np.ndarray[Any, Any]:
    """A MATLAB cell array (1, N)."""
    row = np.empty((1, len(items)), object)
    for place, item in enumerate(items):
        row[0, place] = item
    return row


def synthtext(folder: Path) -> Path:
    import scipy.io

    pictures(folder, "8/ballet_106_0.jpg", "8/ballet_106_1.jpg")
    rng = np.random.default_rng(0)
    content = {
        "imnames": cells(np.array(["8/ballet_106_0.jpg"]), np.array(["8/ballet_106_1.jpg"])),
        # One word has no axis of words; a text is padded lines, with line breaks of its own.
        "wordBB": cells(rng.random((2, 4, 5)).astype(np.float32), rng.random((2, 4)).astype(np.float32)),
        "charBB": cells(rng.random((2, 4, 21)).astype(np.float32), rng.random((2, 4, 5)).astype(np.float32)),
        "txt": cells(np.array(["Lines:\nI lost", "Kevin   ", "will          "]), np.array(["hello"])),
    }
    scipy.io.savemat(folder / "gt.mat", content)
    return folder


def gqa(folder: Path) -> Path:
    pictures(folder, "images/2405722.jpg", "images/n161313.jpg")
    fields = {"isBalanced": True, "groups": {"global": None}, "entailed": [], "types": {"structural": "query"}, "semantic": []}
    questions = {
        "02930152": {
            "imageId": "2405722",
            "question": "Is the sky dark?",
            "answer": "yes",
            "fullAnswer": "Yes, the sky is dark.",
            **fields,
        },
        "07333408": {"imageId": "n161313", "question": "What is on the wall?", "answer": "pipe", "fullAnswer": "The pipe is.", **fields},
        "07333405": {"imageId": "2405722", "question": "What is red?", "answer": "car", "fullAnswer": "The car is red.", **fields},
    }
    put(folder / "train_balanced_questions.json", questions)
    for number, (name, question) in enumerate(questions.items()):
        put(folder / f"train_all_questions/train_all_questions_{number}.json", {name: question})
    put(folder / "challenge_all_questions.json", {"1": {"imageId": "2405722", "question": "What?", "isBalanced": True}})
    return folder


def textvqa(folder: Path) -> Path:
    pictures(folder, "train_images/0054c91397f2fe05.jpg", "train_images/a1.jpg", "test_images/t.jpg")
    fields = {
        "image_width": 1024,
        "image_height": 730,
        "flickr_original_url": "https://x/y.jpg",
        "image_classes": ["Sign"],
        "set_name": "train",
    }
    answers = ["nokia", "toshiba", "nokia", "nokia", "nokia", "nokia", "nokia", "nokia", "nokia", "nokia"]
    rows = [
        {"question_id": 0, "question": "what is the brand?", "image_id": "0054c91397f2fe05", "question_tokens": [], "answers": answers},
        {"question_id": 1, "question": "what is written?", "image_id": "a1", "answers": ["b", "a", "a", "b"]},
        {"question_id": 2, "question": "what number?", "image_id": "0054c91397f2fe05", "answers": ["7"] * 10},
    ]
    head = {"dataset_type": "train", "dataset_name": "textvqa", "dataset_version": "0.5.1"}
    put(folder / "TextVQA_0.5.1_train.json", head | {"data": [row | fields for row in rows]})
    put(folder / "TextVQA_0.5.1_val.json", head | {"data": [rows[1] | fields]})
    put(folder / "TextVQA_0.5.1_test.json", head | {"data": [{"question_id": 5, "question": "what?", "image_id": "t", **fields}]})
    return folder


def docvqa(folder: Path) -> Path:
    pictures(folder, "spdocvqa_images/xnbl0037_1.png", "spdocvqa_images/mxcj0037_2.png")
    fields = {"docId": 279, "ucsf_document_id": "xnbl0037", "ucsf_document_page_no": "1", "data_split": "train"}
    asked = [
        ("xnbl0037_1", "what is the date?", ["1/8/93", "1/8/1993"]),
        ("mxcj0037_2", "who?", ["Paul"]),
        ("xnbl0037_1", "to?", ["P. Carter"]),
    ]
    rows = [
        {"questionId": 337 + number, "question": question, "question_types": ["form"], "image": f"documents/{page}.png", "answers": answers}
        for number, (page, question, answers) in enumerate(asked)
    ]
    head = {"dataset_name": "SP-DocVQA", "dataset_version": "1.0", "dataset_split": "train"}
    put(folder / "spdocvqa_qas/train_v1.0_withQT.json", head | {"data": [row | fields for row in rows]})
    put(folder / "spdocvqa_qas/val_v1.0_withQT.json", head | {"data": [rows[1] | fields]})
    put(folder / "spdocvqa_qas/test_v1.0.json", head | {"data": [{"questionId": 1, "question": "?", "image": "documents/mxcj0037_2.png"}]})
    return folder


def llava(folder: Path) -> Path:
    pictures(folder, "coco/train2017/000000033471.jpg", "images/00453/004539375.jpg")
    said = [("human", "<image>\nWhat are the colors?"), ("gpt", "White and red."), ("human", "What else?"), ("gpt", "An <img> tag.")]
    turns = [{"from": role, "value": value} for role, value in said]
    caption = [{"from": "human", "value": "Render a clear summary.\n<image>"}, {"from": "gpt", "value": "select luxury furniture"}]
    text = [{"from": "human", "value": "What is a <video></video> in HTML?"}, {"from": "gpt", "value": "Nothing."}]
    rows = [
        {"id": "000000033471", "image": "coco/train2017/000000033471.jpg", "conversations": turns},
        {"id": "004539375", "image": "00453/004539375.jpg", "conversations": caption},
        {"id": "wgByO4Y_0", "model": "", "conversations": text},
    ]
    put(folder / "llava_v1_5_mix665k.json", rows)
    put(folder / "blip_laion_cc_sbu_558k_meta.json", [{"id": "004539375", "blip_caption": "select luxury furniture"}])
    return folder


def parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


URLS = ("https://i.imgur.com/a.jpg", "https://example.org/b.png")


def downloaded(folder: Path) -> None:
    for number, (url, ending) in enumerate(zip(URLS, ("", ".png"), strict=True)):
        put(folder / "pixmo_images" / f"{sha256(url.encode()).hexdigest()}{ending}", picture(number))


def pixmo_cap(folder: Path) -> Path:
    downloaded(folder)
    captions = ("A long description of a.", "A long description of b.")
    rows = [{"image_url": url, "caption": text, "transcripts": ["uh a"]} for url, text in zip(URLS, captions, strict=True)]
    parquet(folder / "data/train-00000-of-00001.parquet", rows)
    return folder


def pixmo_points(folder: Path) -> Path:
    downloaded(folder)
    labelled = [
        (URLS[0], "cups", [{"x": 50.04, "y": 1.0}, {"x": 12.5, "y": 80.0}]),
        (URLS[1], "dog", [{"x": 99.96, "y": 0.0}]),
        (URLS[0], "cats", []),
    ]
    rows = [
        {
            "image_url": url,
            "image_sha256": "0" * 64,
            "points": points,
            "count": len(points),
            "label": label,
            "collection_method": "pointing",
        }
        for url, label, points in labelled
    ]
    parquet(folder / "data/train-00000-of-00001.parquet", rows)
    return folder


def pixmo_count(folder: Path) -> Path:
    """Points are pixels of the pictures, which are 16 pixels wide and 12 high."""
    downloaded(folder)
    counted = [(URLS[0], "cups", [8.0, 2.0], [12.0, 3.0]), (URLS[1], "dogs", [], [])]
    rows = [
        {"image_url": url, "image_sha256": "0" * 64, "count": len(x), "points": {"x": x, "y": y}, "label": label}
        for url, label, x, y in counted
    ]
    parquet(folder / "data/train-00000-of-00001.parquet", rows)
    parquet(folder / "data/test-00000-of-00001.parquet", [{name: row[name] for name in row if name != "points"} for row in rows])
    return folder


def pixmo_clocks(folder: Path) -> Path:
    pictures(folder, "images/w1_0300.jpg", "images/w2_1015")
    fields = {
        "watchface_id": "w",
        "watchface_name": "Diver",
        "watch_time": "2024-01-01 03:00:00",
        "time_format": "12",
        "shows_seconds": True,
    }
    shown = {"hour_visible": 3, "minute_visible": 0, "second_visible": 0}
    rows = [
        {"example_id": name, **fields, **shown, "text": text} for name, text in (("w1_0300", "It is 3:00:00."), ("w2_1015", "10:15 PM."))
    ]
    parquet(folder / "data/train-00000-of-00001.parquet", rows)
    return folder


def cauldron(folder: Path) -> Path:
    turns = [{"user": "What?", "assistant": "A chart.", "source": "x"}, {"user": "And?", "assistant": "A table.", "source": "x"}]
    rows = [
        {"images": [{"bytes": picture(0), "path": None}], "texts": turns},
        {"images": [{"bytes": picture(1), "path": None}, {"bytes": picture(2), "path": "b.png"}], "texts": turns[:1]},
    ]
    parquet(folder / "chart2text/train-00000-of-00001.parquet", rows[:1])
    parquet(folder / "tqa/train-00000-of-00001.parquet", rows[1:])
    return folder


def tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as shard:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            shard.addfile(info, io.BytesIO(data))
    return path


def webdataset(folder: Path) -> Path:
    chat = [
        {"role": "user", "content": [{"type": "image", "image": "0.jpg"}, {"type": "image"}, {"type": "text", "text": "Same?"}]},
        {"role": "assistant", "content": "No."},
    ]
    numbers = [{"type": "image", "image": 0}, {"type": "image", "image": 1}]
    asked = [
        [{"role": "user", "content": [*numbers, {"type": "text", "text": text}]}, {"role": "assistant", "content": text}] for text in "ab"
    ]
    members = [
        *(
            ("000000000.jpg", picture(0)),
            ("000000000.txt", b"a caption"),
            ("000000000.json", b'{"caption": "a caption", "status": "success"}'),
        ),
        *(("two.0.jpg", picture(1)), ("two.1.jpg", picture(2)), ("two.json", json.dumps({"messages": chat}).encode())),
        *(("many.0.jpg", picture(3)), ("many.1.jpg", picture(4)), ("many.json", json.dumps({"conversations": asked}).encode())),
    ]
    tar(folder / "00000.tar", members[:3])
    tar(folder / "00001.tar", members[3:])
    return folder


def chat(folder: Path) -> Path:
    pictures(folder, "images/1.jpg", "images/2.jpg")
    data = "data:image/jpeg;base64,/9j/4AAQ"
    asked = [
        [{"type": "image", "path": "images/1.jpg"}, {"type": "text", "text": "What?"}],
        [{"type": "image_url", "image_url": {"url": data, "detail": "high"}}, {"type": "text", "text": "What?"}],
        "What?",
    ]
    rows = [{"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "A dog, é."}]} for content in asked]
    put(folder / "data.jsonl", "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n\n")
    return folder


MAKERS: dict[str, Callable[[Path], Path]] = {
    maker.__name__: maker
    for maker in (
        cauldron,
        chat,
        coco,
        docvqa,
        gqa,
        llava,
        pixmo_cap,
        pixmo_clocks,
        pixmo_count,
        pixmo_points,
        redcaps,
        synthtext,
        textvqa,
        webdataset,
    )
}
ANNOTATIONS = {
    "cauldron": "chart2text/train-00000-of-00001.parquet",
    "chat": "data.jsonl",
    "coco": "annotations/captions_train2017.json",
    "docvqa": "spdocvqa_qas/train_v1.0_withQT.json",
    "gqa": "train_balanced_questions.json",
    "llava": "llava_v1_5_mix665k.json",
    "pixmo_cap": "data/train-00000-of-00001.parquet",
    "pixmo_clocks": "data/train-00000-of-00001.parquet",
    "pixmo_count": "data/train-00000-of-00001.parquet",
    "pixmo_points": "data/train-00000-of-00001.parquet",
    "redcaps": "annotations/abandoned_2017.json",
    "synthtext": "gt.mat",
    "textvqa": "TextVQA_0.5.1_train.json",
    "webdataset": "00001.tar",
}
"""The file of each that is damaged in tests of damage."""
