"""Fields of published image processors that several families have: normalisation, filter, and the law of all others.

The law: a field is read, or it is known to be without effect, or it has to be as its class has it (`refuse_others`). So nothing that a
directory states is passed over. Policies of processors that make one view are in one_view.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from vlmkit.encoders.base import Encoder
from vlmkit.features import GridError
from vlmkit.preprocess.geometry import ImageSizeError, Size
from vlmkit.preprocess.policies.base import Colour, ImagePolicy, Resample
from vlmkit.spec import SpecError

NORMALISED = ("do_normalize", "do_rescale", "image_mean", "image_std", "rescale_factor", "resample")
"""What `normalisation` and `resample_of` read."""
WITHOUT_EFFECT = frozenset(
    {
        "data_format",
        "default_to_square",
        "device",
        "disable_grouping",
        "do_convert_rgb",
        "image_seq_length",
        "input_data_format",
        "return_tensors",
    }
)
"""How tensors are handed over, and how a size is read that is one number, which transformers has done by then; vlmkit's images are RGB
always."""
_RESAMPLE: tuple[Resample, ...] = ("nearest", "lanczos", "bilinear", "bicubic")
"""In the order of Pillow's numbers."""
_PROBES = (Size(64, 64), Size(48, 96))


def refuse_others(processor: Any, read: Iterable[str], unused: Iterable[str] = ()) -> None:
    """Raises SpecError naming a field of a published processor that is neither read nor without effect, and not as its class has it."""
    known, own = {*read, *unused, *NORMALISED, *WITHOUT_EFFECT}, type(processor)()
    for name in type(processor).valid_kwargs.__annotations__:
        stated, usual = (getattr(each, name, None) for each in (processor, own))
        if name not in known and stated != usual:
            raise SpecError(f"{field(processor, name)}: vlmkit reads such a processor with {name}={usual} alone")


def field(processor: Any, *names: str) -> str:
    """Fields as a message names them: `size={'height': 28, 'width': 28} of SiglipImageProcessor`."""
    stated = (f"{name}={sides_of(processor, name) or getattr(processor, name, None)}" for name in names)
    return f"{', '.join(stated)} of {type(processor).__name__}"


@contextmanager
def named(processor: Any, *names: str) -> Iterator[None]:
    """Errors about what is made of a processor's fields name them."""
    try:
        yield
    except (SpecError, GridError, ImageSizeError) as error:
        raise SpecError(f"{field(processor, *names)}: {error}") from None


def refuse_unfit(policy: ImagePolicy, encoder: Encoder, processor: Any, *names: str) -> None:
    """Raises SpecError naming the fields of a processor whose views the encoder does not take."""
    for size in _PROBES:
        with named(processor, *names):
            for grid in policy.plan(size).grids(encoder.patch_size):
                encoder.grid_out(grid)


def refuse_other_count(processor: Any, written: int, given: int, *names: str) -> None:
    """Raises SpecError naming the fields by which a processor writes another number of tokens an image than the model gives."""
    if written != given:
        raise SpecError(f"{field(processor, *names)}: {written} placeholders are written for {given} visual tokens")


def normalisation(processor: Any) -> dict[str, Any]:
    """Mean and std of a published image processor, as fields of an encoder: (value / 255 - mean) / std is what it makes of a byte.

    A single number is that of all three colours. Another factor than 1/255 goes into both; without normalisation they are 0 and 1. Raises
    SpecError for what is no normalisation of three colours.
    """
    scale = float(processor.rescale_factor) * 255 if processor.do_rescale else 255.0
    if not scale:
        raise SpecError(f"{field(processor, 'rescale_factor')}: every image would be black")
    mean, std = (three(processor, "image_mean"), three(processor, "image_std")) if processor.do_normalize else ((0.0,) * 3, (1.0,) * 3)
    if not all(std):
        raise SpecError(f"{field(processor, 'image_std')}: expected other numbers than 0")
    return {"mean": tuple(value / scale for value in mean), "std": tuple(value / scale for value in std)}


def three(processor: Any, name: str) -> tuple[float, ...]:
    """A field of three numbers, of one that counts three times, or a number. Raises SpecError for any other."""
    value = getattr(processor, name)
    values = tuple(map(float, value)) if isinstance(value, list | tuple) else (float(value),)
    if len(values) not in (1, 3):
        raise SpecError(f"{field(processor, name)}: expected one number or three, got {len(values)}")
    return values * 3 if len(values) == 1 else values


def resample_of(processor: Any) -> Resample:
    """The filter of a published image processor. Raises SpecError for one that vlmkit does not have."""
    number = int(processor.resample)
    if not 0 <= number < len(_RESAMPLE):
        raise SpecError(f"{field(processor, 'resample')}: expected one of {dict(enumerate(_RESAMPLE))}")
    return _RESAMPLE[number]


def resample_number(policy: ImagePolicy) -> int:
    """Pillow's number of a policy's filter. Raises SpecError for one that leaves antialias out, as no published processor does."""
    if not policy.antialias:
        raise SpecError(f"image processors of transformers widen the filter when shrinking, but the policy is {policy}")
    return _RESAMPLE.index(policy.resample)


def sides_of(processor: Any, name: str = "size") -> dict[str, int]:
    """A field that states a size, such as {"height": 28, "width": 28}; empty where it is none."""
    size: Any = getattr(processor, name, None)
    return dict(size) if isinstance(size, dict) or hasattr(size, "shortest_edge") else {}


def square_of(processor: Any, name: str = "size") -> int:
    """The side of a square that a field states. Raises SpecError for what is none."""
    height, width = edges_of(processor, "height", "width", name=name)
    if height != width:
        raise SpecError(f"{field(processor, name)}: expected the height and the width of a square")
    return height


def edges_of(processor: Any, *edges: str, name: str = "size") -> tuple[int, ...]:
    """Edges such as "longest_edge" that a field states. Raises SpecError where it does not, or states others beside them."""
    stated = sides_of(processor, name)
    if stated.keys() != set(edges):
        raise SpecError(f"{field(processor, name)}: expected {' and '.join(edges)}")
    return tuple(stated[edge] for edge in edges)


def mean_colour(processor: Any) -> Colour:
    """The colour that a published processor fills up with: its mean, rounded down. Raises SpecError for what is no colour."""
    value = processor.image_mean
    red, green, blue = three(processor, "image_mean")
    if not isinstance(value, list | tuple) or len(value) != 3 or not all(0 <= level < 256 / 255 for level in value):
        raise SpecError(f"{field(processor, 'image_mean')}: expected three numbers from 0 to 1, for images are filled up with this colour")
    return int(red * 255), int(green * 255), int(blue * 255)


def stated_normalisation(encoder: Encoder, fill: Colour | None = None) -> dict[str, Any]:
    """The inverse of `normalisation`, as fields of a published image processor.

    fill: the colour that a processor takes from its mean. Raises SpecError where the encoder has another mean, whatever factor pixels are
    multiplied by.
    """
    mean, std = list(encoder.mean), list(encoder.std)
    if fill is None or _filled(mean) == fill:
        return {"image_mean": mean, "image_std": std}
    if not any(mean) and len(set(std)) == 1:
        return {"do_normalize": False, "rescale_factor": 1 / 255 / std[0], "image_mean": [(level + 0.5) / 255 for level in fill]}
    # int(255 * mean * scale) is the fill for every scale of an interval, the same for all three colours.
    ends = [sorted((level / 255 / part, (level + 1) / 255 / part)) for level, part in zip(fill, mean, strict=True) if part]
    low, high = max(end[0] for end in ends), min(end[1] for end in ends)
    scale = 255.0 if low <= 255 < high else (low + high) / 2
    made = [part * scale for part in mean]
    if _filled(made) != fill:
        raise SpecError(f"transformers' processor fills up with the mean {encoder.mean} of the encoder, but the policy with {fill}")
    return {"image_mean": made, "image_std": [part * scale for part in std], "rescale_factor": scale / 255}


def _filled(mean: list[float]) -> Colour:
    red, green, blue = (int(part * 255) for part in mean)
    return red, green, blue
