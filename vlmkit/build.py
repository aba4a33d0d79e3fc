"""From a name or an Architecture to objects: the model, its processor, both from a directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vlmkit.architecture import Architecture
from vlmkit.differences import some
from vlmkit.hub import refuse_unreachable
from vlmkit.spec import SpecError
from vlmkit.zoo import architecture

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from vlmkit.model import VLM
    from vlmkit.processor import VLMProcessor

Named = str | Architecture


def build(
    model: Named,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
    seed: int | None = None,
    weights: str | os.PathLike[str] | None = None,
    attn_implementation: str | dict[str, str] | None = None,
    **parts: Any,
) -> VLM:
    """A model from a name ("univa-vl-tiny") or an Architecture, in evaluation mode.

    device: "meta" builds the real thing without its memory. dtype: float32 unless given ("bfloat16" works too). seed:
    of the random weights; the caller's random state is left alone when it is given. weights: None (random), "pretrained"
    (the published encoder and language model; the connector stays random), or a directory that `save_pretrained` wrote.
    attn_implementation: of the language model, as transformers takes it ("eager", "sdpa", "flash_attention_2"); None: sdpa that knows where
    packed samples begin, where the language model lets it (vlmkit/attention.py). parts: exchanged parts, as `Architecture.replace` takes
    them.

    Raises ArchitectureError where parts do not fit, MemoryError where the model does not.
    """
    import torch

    from vlmkit.config import VLMConfig
    from vlmkit.model import VLM

    spec = resolve(model).replace(**parts) if parts else resolve(model)
    spec.validate()
    place, dtype = _device(device), _dtype(dtype)
    if weights is not None and place.type == "meta":
        raise SpecError("device 'meta' holds no weights; leave weights out, or name another device")
    if weights is not None and os.fspath(weights) != "pretrained":
        if not os.path.isdir(weights):
            raise SpecError(f"weights {os.fspath(weights)!r}: expected None, 'pretrained' or a directory that save_pretrained wrote")
        return _from_directory(weights, spec, place, dtype, attn_implementation)
    _check_memory(spec, place, dtype)
    config = VLMConfig(architecture=spec.to_dict(), dtype=dtype, attn_implementation=attn_implementation)
    with torch.random.fork_rng(enabled=seed is not None), building(dtype), place:
        if seed is not None:
            torch.manual_seed(seed)
        built = VLM(config) if weights is None else _pretrained(config)
    evaluating: VLM = built.eval()
    return evaluating


def build_processor(
    model: Named | os.PathLike[str], *, tokenizer: str | PreTrainedTokenizerBase | None = None, **parts: Any
) -> VLMProcessor:
    """The processor of a name, an Architecture or a directory. `tokenizer`: your own, or where to load it from.

    Raises SpecError where the tokenizer cannot be loaded, or lacks a special token that the layout needs.
    """
    from vlmkit.processor import VLMProcessor
    from vlmkit.tokenizer import load_tokenizer

    if isinstance(model, str | os.PathLike) and os.path.isdir(model):
        from vlmkit.checkpoint_files import look_at, reading

        look_at(model)
        with reading(model):
            saved: VLMProcessor = VLMProcessor.from_pretrained(model, trust_remote_code=False)
        return saved
    spec = resolve(model).replace(**parts) if parts else resolve(model)
    if tokenizer is None:
        if spec.language_model.named_tokenizer[0] is None:
            raise SpecError(f"{spec.name} names no tokenizer; pass tokenizer=")
        tokenizer = spec.language_model.load_tokenizer(spec.layout.required_specials())
    if isinstance(tokenizer, str):
        tokenizer = load_tokenizer(tokenizer, spec.layout.required_specials())
    return VLMProcessor(tokenizer, architecture=spec.to_dict())


def load(
    what: str | os.PathLike[str],
    *,
    revision: str | None = None,
    subfolder: str | None = None,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
    attn_implementation: str | dict[str, str] | None = None,
    token: str | bool | None = None,
) -> tuple[VLM, VLMProcessor]:
    """Model and processor of a training run, of a directory that `save_pretrained` of both wrote, or of a published family of transformers;
    on this machine, or under its owner/name on a hub. Code that lies in a directory is never run.

    revision, subfolder, token: as `from_pretrained` takes them. The dtype is the saved one unless given. attn_implementation: as `build`
    takes it.

    Raises FileNotFoundError where there is no checkpoint, DamagedCheckpointError (one as well, and a SpecError) with file and reason for a
    directory that is damaged or out of bounds, SpecError where keys are missing or unexpected, LookupError for a family that vlmkit does
    not read.
    """
    from vlmkit.checkpoint_directory import checkpoint_directory
    from vlmkit.checkpoint_files import look_at, reading
    from vlmkit.checkpoints import family_of, model_type_of

    place, wanted = _device(device), None if dtype is None else _dtype(dtype)
    path = os.fspath(checkpoint_directory(what, revision=revision, subfolder=subfolder, token=token))
    look_at(path)
    if (model_type := model_type_of(path)) != "vlmkit":
        family = family_of(model_type, path)
        with reading(path):
            model, processor = family.load(path, wanted)
        if attn_implementation is not None:
            model.set_attn_implementation(attn_implementation)
        return model.to(place), processor
    return _from_directory(path, None, place, wanted, attn_implementation), build_processor(path)


def resolve(model: Named | os.PathLike[str]) -> Architecture:
    """A name or an Architecture -> the Architecture."""
    return architecture(os.fspath(model) if isinstance(model, os.PathLike) else model)


def _from_directory(directory: Any, expected: Architecture | None, device: Any, dtype: Any, attention: Any = None) -> VLM:
    from vlmkit.checkpoint_files import look_at, reading
    from vlmkit.checkpoint_weights import read_model
    from vlmkit.config import VLMConfig
    from vlmkit.model import VLM
    from vlmkit.renamed import RENAMED
    from vlmkit.saved_parts import check_parts, refuse_other_type

    look_at(directory)
    refuse_other_type(directory)
    with reading(directory):
        config = VLMConfig.from_pretrained(directory)
    if expected is not None:
        check_parts(directory, config.spec, expected)
    options = {"dtype": dtype or "auto"} | ({} if attention is None else {"attn_implementation": attention})
    with reading(directory):
        model, info = read_model(VLM, directory, config=config, key_mapping=RENAMED, **options)
    wrong = {name: sorted(info[name]) for name in ("missing_keys", "unexpected_keys") if info.get(name)}
    if wrong:
        raise SpecError(f"{directory}: " + "; ".join(f"{name.replace('_', ' ')}: {some(keys)}" for name, keys in wrong.items()))
    evaluating: VLM = model.to(device).eval()
    return evaluating


def _pretrained(config: Any) -> VLM:
    """Encoder and language model from their published checkpoints; what has none stays random."""
    from vlmkit.checkpoint_weights import read_model

    model = seeing(config)
    spec = config.spec
    checkpoint = spec.language_model.checkpoint
    refuse_unreachable(checkpoint, "config.json", spec.language_model.revision)
    language_model, info = read_model(
        spec.language_model.model_class(config.text_config),
        checkpoint,
        config=config.text_config,
        dtype=config.dtype,
        **({} if spec.language_model.revision is None else {"revision": spec.language_model.revision}),
    )
    if differing := sorted({str(key) for name in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in info.get(name, ())}):
        raise SpecError(f"{checkpoint} is not the language model of {spec.name}; they differ in {some(differing)}")
    model.language_model = spec.language_model.changed(language_model)
    model.fusion = spec.fusion.build(model.language_model, spec.layout)
    return model


def seeing(config: Any) -> VLM:
    """Towers of published checkpoints and a connector that is drawn; language model and fusion are on the meta device. Raises SpecError
    where the architecture names no published language model, for then nothing of it is pretrained."""
    import torch

    from vlmkit.model import VLM

    spec = config.spec
    if spec.language_model.checkpoint is None:
        raise SpecError(f"{spec.name}: the language model names no published checkpoint; leave weights out for random ones")
    with torch.device("meta"):
        model = VLM(config)
    towers = [tower.encoder.build() for tower in spec.towers]
    for described, tower in zip(spec.towers, towers, strict=True):
        described.encoder.load_pretrained(tower)
    model.encoder = model.one_or_several(towers)
    model.connector = spec.build_connector()
    return model


def _check_memory(spec: Architecture, device: Any, dtype: Any) -> None:
    import torch

    if device.type == "meta":
        return
    needed = spec.parameters().total * torch.empty((), dtype=dtype).element_size()
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
    if needed > free:
        raise MemoryError(
            f"{spec.name} needs {needed / 2**30:,.1f} GiB for its weights in {str(dtype).removeprefix('torch.')}, but {device} has "
            f'{free / 2**30:,.1f} GiB free; build it with device="meta" to look at it, or build "univa-vl-tiny" to run it'
        )


def free_memory() -> int:
    """Bytes that this process may still take: what the machine has free, at most what its control group allows."""
    import psutil

    free = int(psutil.virtual_memory().available)
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(limit) as file:
                free = min(free, int(file.read()))
        except (OSError, ValueError):  # no control group, or no limit: "max"
            continue
    return free


def _device(device: Any) -> Any:
    import torch

    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise SpecError(f"device {device!r}: {str(error).splitlines()[0]}") from None
    if found.type == "cuda" and not torch.cuda.is_available():
        raise SpecError(f"device {device!r}: this machine has no GPU that torch can use; use device='cpu'")
    return found


def _dtype(dtype: Any) -> Any:
    import torch

    if dtype is None:
        return torch.float32
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise SpecError(f"dtype {dtype!r}: expected a floating one such as 'float32' or 'bfloat16'")
    return found


@contextmanager
def building(dtype: str | torch.dtype | None) -> Iterator[torch.dtype]:
    """Parts are built in this dtype, float32 where it is None. Raises SpecError for one that is not floating."""
    import torch

    before, chosen = torch.get_default_dtype(), _dtype(dtype)
    torch.set_default_dtype(chosen)
    try:
        yield chosen
    finally:
        torch.set_default_dtype(before)
