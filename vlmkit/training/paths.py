"""Names of what can learn by itself: parts of a model, towers, layers, experts.

    encoder, encoder.0                   a part; one of several towers
    fusion.cross_attention               the layers that a fusion puts into the language model; any child of it that has weights
    language_model.embeddings, .head     in and out; one and the same where they are tied
    language_model.layers, .layers.3     all decoder layers; one of them, and on into it: language_model.layers.3.mlp
    language_model.norm                  what stands beside the layers: the last norm
    language_model.experts               the routed experts of a mixture in all layers; .shared_experts and .router beside them

Any beginning of a module's name is a path too: `encoder.transformer.resblocks.0`. Only names are looked at, so the paths are the same
on the meta device and on weights that FSDP2 or ZeRO-3 has cut into pieces.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from torch import nn

from vlmkit.architecture import PARTS
from vlmkit.registry import suggestion
from vlmkit.spec import SpecError

WRAPPERS = frozenset({"_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"})
"""Pieces that torch puts into the names of modules that it wraps (torch.compile, activation checkpointing, FSDP)."""


def parts_of(model: nn.Module, head: nn.Module | None = None) -> dict[str, nn.Module]:
    """The parts of a model by their names, and the module that a recipe adds for one stage."""
    found: Any = model
    return {part: getattr(found, part) for part in PARTS} | ({} if head is None else {"head": head})


def paths_of(model: nn.Module | Mapping[str, nn.Module]) -> dict[str, list[str]]:
    """Every path that has a name, with the full names of its parameters: {"language_model.head": ["language_model.lm_head.weight"]}.

    model: a VLM, or its parts by their names. A tied weight stands under its first name in every path that holds it.
    """
    parts = dict(model) if isinstance(model, Mapping) else parts_of(model)
    found: dict[str, list[str]] = {}
    for part, module in parts.items():
        names = Names(part, module)
        found |= {path: [f"{part}.{name}" for name in names.all if name in members] for path, members in names.paths.items()}
    return {path: members for path, members in found.items() if members}


class Names:
    """The parameters of one part: their names, as `named_parameters` gives them, and the paths that hold them."""

    def __init__(self, part: str, module: nn.Module) -> None:
        self.part = part
        first: dict[int, str] = {}
        self._spellings: dict[str, str] = {}
        for name, parameter in module.named_parameters(remove_duplicate=False):
            self._spellings[f"{part}.{plain(name)}"] = first.setdefault(id(parameter), name)
        self.all = tuple(first.values())
        """Of a tied parameter the first name only."""
        self._layers = stack_of([plain(name) for name in self.all]) if part == "language_model" else ""
        self.paths: dict[str, frozenset[str]] = {part: frozenset(self.all)}
        """What the paths with a name hold."""
        self._name(module)

    def under(self, path: str) -> frozenset[str]:
        """What a path holds: nothing where it is none."""
        if path in self.paths:
            return self.paths[path]
        if self._layers and path.startswith(f"{self.part}.layers."):
            path = f"{self.part}.{self._layers}{path.removeprefix(f'{self.part}.layers')}"
        return frozenset(first for name, first in self._spellings.items() if name == path or name.startswith(f"{path}."))

    def claims(self, paths: Collection[str]) -> dict[str, str]:
        """For each parameter the longest of the paths that hold it, where there is one.

        Raises SpecError where two of one length hold it and neither holds the other.
        """
        held = {path: self.under(path) for path in paths if path.split(".")[0] == self.part}
        claimed: dict[str, str] = {}
        for name in self.all:
            holding = sorted((path for path, members in held.items() if name in members), key=lambda path: -path.count("."))
            if not holding:
                continue
            longest = [path for path in holding if path.count(".") == holding[0].count(".")]
            inner = [path for path in longest if all(path == other or held[path] < held[other] for other in longest)]
            if not inner:
                raise SpecError(
                    f"{self.part}.{name} is claimed by {' and by '.join(longest)}, and neither is inside of the other; name one of them"
                )
            claimed[name] = inner[0]
        return claimed

    def _name(self, module: nn.Module) -> None:
        if self.part == "encoder" and isinstance(module, nn.ModuleList):
            self._add(*(str(tower) for tower in range(len(module))))
        elif self.part == "fusion":
            self._name_fusion(module)
        elif self.part == "language_model":
            self._name_language_model(module)

    def _add(self, *children: str) -> None:
        self.paths |= {path: self.under(path) for child in children if self.under(path := f"{self.part}.{child}")}

    def _name_fusion(self, module: nn.Module) -> None:
        from vlmkit.fusion.cross_attention_module import CrossAttentionModule

        for child, _ in module.named_children():
            if isinstance(module, CrossAttentionModule) and child == "layers":
                self.paths["fusion.cross_attention"] = self.under("fusion.layers")
            else:
                self._add(child)

    def _name_language_model(self, module: Any) -> None:
        for path, method in (("embeddings", "get_input_embeddings"), ("head", "get_output_embeddings")):
            found = getattr(module, method)() if hasattr(module, method) else None
            own = {id(parameter) for parameter in found.parameters()} if found is not None else set()
            names = frozenset(name for name, parameter in module.named_parameters() if id(parameter) in own)
            if names:
                self.paths[f"language_model.{path}"] = names
        if self._layers:
            stack = f"language_model.{self._layers}"
            self.paths["language_model.layers"] = self.under(stack)
            pattern = re.compile(re.escape(stack) + r"\.(\d+)\.")
            numbers = {int(match[1]) for name in self._spellings if (match := pattern.match(name))}
            self._add(*(f"layers.{number}" for number in sorted(numbers)))
            beside = stack.rpartition(".")[0] + "."
            norms = [name for name in self._spellings if name.startswith(beside) and is_norm(name.removeprefix(beside).split(".")[0])]
            self._collect("norm", norms)
        self._name_experts()

    def _name_experts(self) -> None:
        """Beside `experts` in a block there are what chooses among them, and experts that every token passes through."""
        blocks = {name[: name.index(".experts.") + 1] for name in self._spellings if ".experts." in name}
        kinds: dict[str, list[str]] = {"experts": [], "shared_experts": [], "router": []}
        for name in self._spellings:
            for block in blocks:
                if name.startswith(block):
                    piece = name.removeprefix(block).split(".")[0]
                    kind = "experts" if piece == "experts" else "shared_experts" if piece.startswith("shared") else "router"
                    kinds[kind].append(name)
        for kind, names in kinds.items():
            self._collect(kind, names)

    def _collect(self, path: str, spellings: list[str]) -> None:
        if spellings:
            self.paths[f"{self.part}.{path}"] = frozenset(self._spellings[name] for name in spellings)


def refuse_unknown(paths: Collection[str], parts: Mapping[str, nn.Module]) -> None:
    """Raise SpecError for a path that holds no parameter of the parts, naming the paths that there are."""
    for path in paths:
        part = path.split(".")[0]
        if part not in parts or not Names(part, parts[part]).under(path):
            named = paths_of(parts)
            hint = suggestion(path, named) or ""
            raise SpecError(f"learn[{path!r}] holds no parameter of this model;{hint} its paths are {shortened(named)}")


def refuse_idle(paths: Collection[str], parts: Mapping[str, nn.Module]) -> None:
    """Raise SpecError for a path of which longer ones claim all that it holds: what it says would count for nothing."""
    claimed = {path for part, module in parts.items() for path in Names(part, module).claims(paths).values()}
    if idle := [path for path in paths if path not in claimed]:
        raise SpecError(f"learn[{idle[0]!r}] claims nothing, for longer paths claim all that it holds; leave it out")


def shortened(paths: Collection[str]) -> str:
    """'encoder, language_model.layers.0 to .31, language_model.head': numbered paths as one."""
    shown: dict[str, list[str]] = {}
    for path in paths:
        stem, _, last = path.rpartition(".")
        shown.setdefault(f"{stem}." if last.isdigit() else path, []).append(last)
    return ", ".join(
        stem if not stem.endswith(".") else f"{stem}{numbers[0]}" + (f" to .{numbers[-1]}" if len(numbers) > 1 else "")
        for stem, numbers in shown.items()
    )


def plain(name: str) -> str:
    """The name without the pieces that wrappers add."""
    return ".".join(piece for piece in name.split(".") if piece not in WRAPPERS)


def stack_of(names: Collection[str]) -> str:
    """Where the numbered layers are that most of the names belong to: 'model.layers', or '' where nothing is numbered."""
    stacks = Counter(match[1] for name in names if (match := re.match(r"(.+?)\.\d+\.", name)))
    return stacks.most_common(1)[0][0] if stacks else ""


def is_norm(piece: str) -> bool:
    return "norm" in piece or piece.startswith("ln")
