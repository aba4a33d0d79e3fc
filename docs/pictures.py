"""Pictures of the generated pages: the way of an image through a model with its shapes, and how a photograph is cut."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import skimage.data
from pieces import described, described_language_model
from PIL import Image

from vlmkit.architecture import Architecture, VisionTower, replan
from vlmkit.preprocess.geometry import ImagePlan, Size
from vlmkit.sheet import alike as grouped
from vlmkit.sheet import draw_sheet
from vlmkit.show import placed

PHOTO = "coffee"
"""A photograph that comes with scikit-image, 600 x 400."""
MOST_BYTES = 60_000
EXAMPLE = Size(480, 640)
"""The image whose shapes the diagrams show."""


def photograph(models: Sequence[Architecture], most_bytes: int = MOST_BYTES) -> bytes:
    """A JPEG of how the models cut the photograph, those that cut alike once; as good as fits into so many bytes."""
    photo = getattr(skimage.data, PHOTO)()
    size = Size(*photo.shape[:2])
    sheet = draw_sheet(photo, grouped([(model, model.image_tokens(model.plan(size))) for model in models]), "photograph")
    for quality in range(85, 10, -5):
        file = io.BytesIO()
        sheet.save(file, "JPEG", quality=quality, optimize=True)
        if file.tell() <= most_bytes:
            break
    return file.getvalue()


def alike(first: bytes, second: bytes) -> bool:
    """Whether two JPEGs show the same, up to their compression."""
    pictures = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int) for data in (first, second)]
    return pictures[0].shape == pictures[1].shape and float(np.abs(pictures[0] - pictures[1]).mean()) < 2


@dataclass(frozen=True)
class Step:
    """A part, what it is, and what comes out of it."""

    role: str
    choice: str
    out: str


def steps(model: Architecture) -> Iterator[Step]:
    plan, dim = model.plan(EXAMPLE), model.language_model.dim
    policies = dict.fromkeys(described(tower.policy) for tower in model.towers)
    views = " and ".join(_views(tower, cut) for tower, cut in model.cuts(plan))
    vocabulary = model.language_model.transformers_config().get_text_config().vocab_size
    yield Step("image", "any file, PIL image or array", f"{EXAMPLE.height} x {EXAMPLE.width} x 3")
    yield Step("policy", " and ".join(policies), views)
    role = "encoder" if len(model.towers) == 1 else f"{len(model.towers)} encoders"
    features = " and ".join(_features(tower, replan(tower.policy, plan)) for tower in model.towers)
    yield Step(role, " and ".join(described(tower.encoder) for tower in model.towers), f"features {features}")
    tokens = model.image_tokens(plan)
    left = int((~placed(model, tokens)).sum())
    without = f", {left:,} of them left out by the layout" if left else ""
    yield Step("connector", described(model.connector), f"visual tokens ({tokens.count:,}, {model.fusion.dim_visual(dim):,}){without}")
    count = model.layout.places(tokens)
    image = f"which looks at {count:,} visual tokens" if model.layout.looked_at else f"{count:,} places of it for the image"
    yield Step("fusion", described(model.fusion), f"sequence (S, {dim:,}), {image}")
    yield Step("language model", described_language_model(model), f"logits (S, {vocabulary:,})")


def _views(tower: VisionTower, plan: ImagePlan) -> str:
    patch = tower.encoder.patch_size
    patches = sum(grid.tokens for grid in plan.grids(patch))
    sizes = dict.fromkeys(f"{view.height} x {view.width}" for view in plan.views)
    views = f"{len(plan.views)} view{'s' if len(plan.views) > 1 else ''} of {' and '.join(sizes)}"
    return f"{views}: uint8 patches ({patches:,}, {3 * patch * patch:,})"


def _features(tower: VisionTower, plan: ImagePlan) -> str:
    features = sum(tower.encoder.grid_out(grid).tokens for grid in plan.grids(tower.encoder.patch_size))
    return f"({features:,}, {tower.encoder.dim_out:,})"


WIDTH, LEFT, BOX, SIDE = 880, 20, 520, 572
"""Of the diagram; left edge and width of the column of parts; left edge of what comes from the side."""
LINE, ARROW = 18, 40


def flow(model: Architecture) -> str:
    """An SVG: parts from top to bottom, shapes on the arrows, the conversation coming in from the side."""
    drawn: list[str] = []
    top, side = 20, 0
    for step in steps(model):
        height = _box(drawn, LEFT, top, BOX, step.role, step.choice, letters=74)
        if step.role == "fusion":
            _box(drawn, SIDE, top - 96, WIDTH - SIDE - LEFT, "conversation", "turns of text and images", letters=40)
            side = top + _box(drawn, SIDE, top, WIDTH - SIDE - LEFT, "layout", described(model.layout), letters=40)
            _arrow(drawn, SIDE + 110, top - 96 + 52, SIDE + 110, top)
            _arrow(drawn, SIDE, top + 22, LEFT + BOX, top + 22)
        top += height
        _arrow(drawn, LEFT + 40, top, LEFT + 40, top + ARROW)
        drawn.append(f'<text class="shape" x="{LEFT + 56}" y="{top + 25}">{escape(step.out)}</text>')
        top += ARROW
    bottom = max(top, side) + 12
    style = (
        "text{font:13px 'DejaVu Sans',Verdana,sans-serif;fill:#1f2328}.role{font-weight:bold}.choice{fill:#656d76;font-size:11.5px}"
        ".shape{fill:#0969da}.box{fill:#f6f8fa;stroke:#d0d7de}path{stroke:#656d76;fill:none}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom}" width="{WIDTH}" height="{bottom}">\n'
        f"<title>{escape(model.name)}</title>\n<style>{style}</style>\n"
        f'<rect width="{WIDTH}" height="{bottom}" rx="8" fill="#ffffff"/>\n' + "\n".join(drawn) + "\n</svg>\n"
    )


def _box(drawn: list[str], left: int, top: int, width: int, role: str, choice: str, letters: int) -> int:
    """A box with its text; its height."""
    lines = textwrap.wrap(choice.replace("`", ""), letters)
    height = 34 + LINE * len(lines)
    drawn.append(f'<rect class="box" x="{left}" y="{top}" width="{width}" height="{height}" rx="6"/>')
    drawn.append(f'<text class="role" x="{left + 14}" y="{top + 22}">{escape(role)}</text>')
    for number, line in enumerate(lines, 1):
        drawn.append(f'<text class="choice" x="{left + 14}" y="{top + 22 + LINE * number}">{escape(line)}</text>')
    return height


def _arrow(drawn: list[str], left: int, top: int, right: int, bottom: int) -> None:
    """A line with its head at the second point; straight down, or to the left."""
    head = f"M{right - 4} {bottom - 7}L{right} {bottom - 1}L{right + 4} {bottom - 7}"
    if top == bottom:
        head = f"M{right + 7} {bottom - 4}L{right + 1} {bottom}L{right + 7} {bottom + 4}"
    drawn.append(f'<path d="M{left} {top}L{right} {bottom}{head}"/>')
