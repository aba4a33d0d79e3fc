"""Small directories as LLaVA's own code and Yi-VL's saved them, rebuilt from the numbers of llava_upstream.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from families.system import Conversation, images_of, patchify, user
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from tests.tiny import assistant
from vlmkit.encoders.base import CLIP_MEAN, CLIP_STD

HERE = Path(__file__).parent
KEPT: dict[str, Any] = json.loads((HERE / "llava_upstream.json").read_text(encoding="utf-8"))
CASES = [name for name in KEPT if name != "made"]
TOKENIZER: dict[str, Any] = json.loads((HERE / "llava_tokenizer.json").read_text(encoding="utf-8"))
ADDED = ("<im_patch>", "<im_start>", "<im_end>")
VIT = "vit/tiny-clip"


def weights(shapes: dict[str, list[int]], seed: int) -> dict[str, Tensor]:
    """In the order of names ~N(0, 0.15), weights of norms ~N(1, 0.1), by a generator whose numbers numpy never changes."""
    chance = np.random.RandomState(seed)
    found = {}
    for name, shape in sorted(shapes.items()):
        noise = chance.standard_normal(shape).astype(np.float32)
        norm = name.endswith("weight") and noise.ndim == 1 and ("norm" in name.lower() or ".mm_projector." in name)
        found[name] = torch.from_numpy(1 + 0.1 * noise if norm else 0.15 * noise).float()
    return found


def write(directory: Path, case: str, **changes: Any) -> Path:
    """The directory of a case, its tower within it; fields of config.json changed, or left out where they are None."""
    kept = KEPT[case]
    config = kept["config"] | changes
    (directory / VIT).mkdir(parents=True, exist_ok=True)
    said = {name: value for name, value in config.items() if name not in changes or value is not None}
    files = {
        "config.json": said,
        "generation_config.json": kept["generation"],
        "tokenizer_config.json": {
            "tokenizer_class": "LlamaTokenizer",
            "legacy": False,
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
        },
        "tokenizer.json": tokenizer(ADDED if config["mm_use_im_start_end"] else ()),
        f"{VIT}/config.json": kept["tower"]["config"],
        f"{VIT}/preprocessor_config.json": kept["tower"]["preprocessor"],
    }
    for name, each in files.items():
        (directory / name).write_text(json.dumps(each), encoding="utf-8")
    save_file(weights(kept["shapes"], 0), directory / "model.safetensors", {"format": "pt"})
    save_file(weights(kept["tower"]["shapes"], 1), directory / VIT / "model.safetensors", {"format": "pt"})
    return directory


def tokenizer(added: tuple[str, ...]) -> dict[str, Any]:
    first = TOKENIZER["added_tokens"][0]
    more = [first | {"id": 320 + number, "content": token} for number, token in enumerate(added)]
    return TOKENIZER | {"added_tokens": TOKENIZER["added_tokens"] + more}


def picture(seed: int, height: int, width: int) -> Image.Image:
    coarse = np.random.RandomState(seed).randint(0, 256, (6, 6, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


PICTURES = (picture(0, 40, 52), picture(1, 64, 33), picture(2, 28, 28))


def asked(number: int) -> Conversation:
    """One picture; two pictures; a second question."""
    one, two, three = PICTURES
    first = user("What is this?", one)
    return [[first], [user("Where is it?", two, three)], [first, assistant("A cat."), user("And why?")]][number]


def seen(case: str, image: Image.Image) -> Tensor:
    """What upstream's preprocessing makes of an image by PIL, normalised: (views, 3, H, W)."""
    config, side = KEPT[case]["config"], KEPT[case]["tower"]["preprocessor"]["crop_size"]["height"]
    ratio = config["image_aspect_ratio"]
    if ratio == "anyres":
        views = [image.resize((side, side)), *_tiles(image, config["image_grid_pinpoints"], side)]
    elif ratio == "pad":
        long = max(image.size)
        square = Image.new("RGB", (long, long), (122, 116, 104))
        square.paste(image, ((long - image.width) // 2, (long - image.height) // 2))
        views = [square.resize((side, side))]
    else:
        short = min(image.size)
        resized = image.resize((side * image.width // short, side * image.height // short))
        left, top = (resized.width - side) // 2, (resized.height - side) // 2
        views = [resized.crop((left, top, left + side, top + side))]
    pixels = torch.stack([torch.from_numpy(np.array(view)).permute(2, 0, 1) for view in views]) / 255
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (CLIP_MEAN, CLIP_STD))
    return (pixels - mean) / std


def _tiles(image: Image.Image, points: list[list[int]], side: int) -> list[Image.Image]:
    def kept(point: list[int]) -> tuple[int, int]:
        scale = min(point[0] / image.width, point[1] / image.height)
        return min(int(image.width * scale) * int(image.height * scale), image.width * image.height), -point[0] * point[1]

    width, height = max(points, key=kept)
    across, down = width / image.width, height / image.height
    picture = (width, min(-(-image.height * width // image.width), height))
    if across >= down:
        picture = (min(-(-image.width * height // image.height), width), height)
    canvas = Image.new("RGB", (width, height), (0, 0, 0))
    canvas.paste(image.resize(picture), ((width - picture[0]) // 2, (height - picture[1]) // 2))
    return [canvas.crop((left, top, left + side, top + side)) for top in range(0, height, side) for left in range(0, width, side)]


def patches(case: str, conversation: Conversation) -> Tensor:
    """Normalised patches of all views of a conversation's images, as a batch of vlmkit has them."""
    images = images_of([message for message in conversation if message["role"] == "user"])
    return torch.cat([patchify(view, 14) for image in images for view in seen(case, image)])


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(value.equal(other[name]) for name, value in one.items())
