"""A training stage as data: what learns and how fast, on what, for how long.

A part that has no learning rate is frozen in the stage:

    Stage(name="align", steps=1000, batch_size=64, connector=1e-3, data=(Source(name="captions"),))

`learn` says the same for any path of a model, with a schedule, warm-up and weight decay of its own where one is wanted:

    learn={"language_model.experts": 1e-4, "encoder": Learn(rate=1e-6, warmup=500), "language_model.embeddings": None}

Of several paths that hold a parameter the longest counts. vlmkit.training.paths says which paths there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Self

from vlmkit.architecture import PARTS
from vlmkit.experts import Experts
from vlmkit.frozen_mapping import FrozenMapping
from vlmkit.registry import RegistryError, suggestion
from vlmkit.spec import Spec, SpecError
from vlmkit.training.adapter import Adapter
from vlmkit.training.learning import Learn
from vlmkit.training.objectives.base import Objective
from vlmkit.training.schedules import Schedule, fraction_of_peak
from vlmkit.written import read_part

SHORT = (*PARTS, "head")
"""Fields that are short for `learn={field: rate}`."""


@dataclass(frozen=True, kw_only=True)
class Source(Spec):
    """A data set of the mix, by the name that the recipe knows it by."""

    name: str
    weight: float = 1.0
    """Share of the samples, relative to the other sources."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight <= 0:
            raise SpecError(f"source {self.name!r}: the weight has to be more than 0, got {self.weight}; leave the source out instead")


@dataclass(frozen=True, kw_only=True)
class Stage(Spec):
    later: ClassVar[frozenset[str]] = frozenset(
        {"learn", "tokens", "batch_tokens", "timescale", "shift", "cooldown", "ema", "nonfinite", "compile", "kernels", "adapters"}
        | {"image_size", "experts", "conversations", "objective"}
    )

    name: str
    """Of the stage, and of what it leaves in the directory of a run."""
    objective: Objective | None = None
    """What the stage trains for in place of the next token of an answer: in a file a word, `autoregressive:weight=0.4`, or its fields with
    their `kind`. docs/objectives.md has them."""
    steps: int = 0
    """Updates of the weights; 0 where `tokens` says how long the stage is."""
    tokens: int | None = None
    """Length of the stage in tokens of its packed rows, padding included; the last update may go past it."""
    batch_size: int = 0
    """Samples in one micro-batch of one process, or packed rows; an update sees `batch_size * accumulate * processes` of them. Beside
    `batch_tokens` it may be left out: one row."""
    batch_tokens: int | None = None
    """Tokens of one update over all processes: rows * `max_length` * accumulate * processes, in place of `accumulate`. Packed rows only."""
    data: tuple[Source, ...]
    learn: Mapping[str, Learn | float | None] = FrozenMapping({})
    """What learns, by path; None freezes a path inside of one that learns."""
    adapters: Mapping[str, Adapter] = FrozenMapping({})
    """Low-rank adapters (LoRA, DoRA, QLoRA) by path. In a part that has some they alone learn, at the rate of the path; the next stage
    finds them merged into the weights."""
    encoder: float | None = None
    """Peak learning rate of the vision tower; None freezes it. The next three fields alike: each is short for a path of `learn`."""
    connector: float | None = None
    fusion: float | None = None
    language_model: float | None = None
    head: float | None = None
    """Peak learning rate of a module that a recipe adds for this stage only and throws away after it."""
    accumulate: int = 1
    """Micro-batches whose gradients make one update."""
    warmup: int = 0
    """Updates over which the rates rise from 0 to their peak."""
    schedule: Schedule = "cosine"
    """How the rates fall from the peak after warming up; vlmkit.training.schedules has them."""
    final: float = 0.0
    """What is left of the peak at the end, as a fraction; `constant` ignores it, and `infinite` without a cool-down."""
    timescale: int = 10_000
    """Updates after which `infinite` has fallen to 0.71 of its peak."""
    shift: int = 0
    """Updates of `infinite` that earlier stages have made, so that it goes on where it was."""
    cooldown: int = 0
    """Updates at the end of the stage in which `infinite` falls to `final` in a line."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon` (Jordan et al. 2024) updates the matrices inside blocks and leaves all else to AdamW."""
    muon_scale: float = 10.0
    """Learning rate of matrices under Muon, as a multiple of the path's rate."""
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    """On matrices only: norms, biases and other vectors never decay."""
    clip: float = 1.0
    """Norm that the gradient of all learning parameters is cut to."""
    pack: bool = False
    """Put as many samples into a row of `max_length` tokens as it holds, instead of padding each to the longest."""
    max_length: int | None = None
    """Longest conversation in tokens, and the length of packed rows; a longer one loses its last turns, with the images of these."""
    conversations: Literal["alike", "root"] = "alike"
    """What tokens count in the loss where a sample has n conversations about its images: each 1, or 1 / sqrt(n) by `root`, as in Molmo."""
    image_size: int | None = None
    """Side in pixels of the square images from this stage on: the tower's table of positions is resampled. None leaves it as it is."""
    experts: Experts | None = None
    """FFNs of the language model that are turned into experts from this stage on, begun as copies of what was learnt before."""
    recompute: bool = False
    """Recompute activations in the backward pass (gradient checkpointing): a third more work, far less memory."""
    ema: float | None = None
    """Decay of a moving average of the learning weights, between 0 and 1; None keeps no average."""
    nonfinite: Literal["stop", "skip"] = "stop"
    """What follows a loss or gradient that is no number: the end of the run, or the next update. Neither moves a weight by it."""
    compile: bool = False
    """Compile the blocks of tower and language model (torch.compile)."""
    kernels: Literal["liger"] | None = None
    """Fused kernels in the language model from this stage on (vlmkit.training.kernels); give them to all stages of a run, or to none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name.isprintable() or not self.name.strip() or self.name.startswith(".") or {*self.name} & {*"/\\"}:
            raise SpecError(f"a stage's name is that of a directory too, such as 'align': no slash, no dot before it; got {self.name!r}")
        self._check_size()
        self._check_rates()
        if self.ema is not None and not 0 < self.ema < 1:
            raise SpecError(f"{self._where}: ema is a decay between 0 and 1, such as 0.999; got {self.ema}")
        if self.objective is not None:
            for misfit in self.objective.misfits(self.learns, self.pack):
                raise SpecError(f"{self._where}: objective {self.objective.kind!r}: {misfit}")
        if self.pack and self.max_length is None:
            raise SpecError(f"{self._where}: packed rows are all of one length; give max_length")
        if not self.data or len({source.name for source in self.data}) < len(self.data):
            raise SpecError(f"{self._where}: it needs data, each source once; got {[source.name for source in self.data]}")

    @classmethod
    def from_dict(cls, data: Any, path: str = "") -> Self:
        """As every spec, and an objective may be written in one word."""
        if isinstance(data, Mapping) and isinstance(written := data.get("objective"), str):
            at = f"{path}.objective" if path else "objective"
            try:
                data = {**data, "objective": read_part(Objective, written, at)}
            except RegistryError as error:
                raise SpecError(f"{at}: {error}") from None
        return super().from_dict(data, path)

    @property
    def _where(self) -> str:
        return f"stage {self.name!r}"

    def _check_size(self) -> None:
        where = self._where
        if self.tokens is not None and self.steps:
            raise SpecError(f"{where}: its length is given as {self.steps} steps and as {self.tokens} tokens; leave one out")
        if self.batch_tokens is not None and self.accumulate != 1:
            raise SpecError(f"{where}: batch_tokens says how much is accumulated; leave accumulate={self.accumulate} out")
        for field, other in (("steps", "tokens"), ("batch_size", "batch_tokens"), ("accumulate", None)):
            value, instead = getattr(self, field), other and getattr(self, other)
            if value < (1 if instead is None else 0):
                raise SpecError(f"{where}: {field} has to be 1 or more, got {value}")
        for field in ("tokens", "batch_tokens", "max_length", "image_size"):
            if (value := getattr(self, field)) is not None and value < 1:
                raise SpecError(f"{where}: {field} has to be 1 or more, got {value}")
            if value is not None and field in ("tokens", "batch_tokens") and not (self.pack and self.max_length is not None):
                raise SpecError(f"{where}: {field} counts tokens of packed rows; give pack=True and max_length, or count samples instead")

    def _check_rates(self) -> None:
        where = self._where
        rates = {part: rate for part in SHORT if (rate := getattr(self, part)) is not None}
        for path, learn in self.learn.items():
            if path in rates:
                raise SpecError(f"{where}: {path} is given twice, as {path}={rates[path]} and in learn; leave one out")
            if (part := path.split(".")[0]) not in SHORT or not all(path.split(".")):
                hint = suggestion(part, SHORT) or f" it has to begin with one of {', '.join(SHORT)}"
                raise SpecError(f"{where}: learn[{path!r}] is no path of a model;{hint}")
            if learn is not None:
                rates[path] = learn.rate if isinstance(learn, Learn) else learn
        if not rates:
            raise SpecError(f"{where}: nothing learns; give a learning rate to at least one of {', '.join(PARTS)}")
        if wrong := {path: rate for path, rate in rates.items() if rate <= 0}:
            raise SpecError(f"{where}: learning rates have to be more than 0 (None freezes a part), got {wrong}")
        for path in self.adapters:
            part = path.split(".")[0]
            if not any(named.split(".")[0] == part for named in rates):
                raise SpecError(f"{where}: adapters on {path!r} have no learning rate; give {part} one")
        warmups = [self.warmup, *(self._warmup(path) for path in rates)]
        if self.steps and not 0 <= min(warmups) <= max(warmups) <= self.steps:
            wrong_one = next(value for value in warmups if not 0 <= value <= self.steps)
            raise SpecError(f"{where}: warmup has to be between 0 and the {self.steps} steps, got {wrong_one}")
        for field, fits in (
            ("final", 0 <= self.final <= 1),
            ("weight_decay", self.weight_decay >= 0),
            ("clip", self.clip > 0),
            ("betas", all(0 <= beta < 1 for beta in self.betas)),
            ("warmup", self.warmup >= 0),
            ("timescale", self.timescale > 0),
            ("shift", self.shift >= 0),
            ("cooldown", self.cooldown >= 0),
        ):
            if not fits:
                raise SpecError(f"{where}: {field} cannot be {getattr(self, field)}")
        if self.cooldown or self.shift:
            field = "cooldown" if self.cooldown else "shift"
            if "infinite" not in {self.schedule, *(self._schedule(path) for path in rates)}:
                raise SpecError(f"{where}: {field} belongs to the schedule 'infinite', but this is {self.schedule!r}; leave it out")
            if self.steps and self.cooldown + max(warmups) > self.steps:
                raise SpecError(f"{where}: {max(warmups)} updates of warmup and {self.cooldown} of cooldown are more than its {self.steps}")

    def to_dict(self) -> dict[str, Any]:
        plain, defaults = super().to_dict(), {field.name: field.default for field in fields(self)}
        return {name: value for name, value in plain.items() if name not in self.later or value != defaults[name]}

    @property
    def paths(self) -> dict[str, float | None]:
        """Peak rate of every path that the stage names, the short fields first; None where it freezes one."""
        short = {part: rate for part in SHORT if (rate := getattr(self, part)) is not None}
        return short | {path: learn.rate if isinstance(learn, Learn) else learn for path, learn in self.learn.items()}

    def learns(self, part: str) -> bool:
        """Whether anything of a part does."""
        return any(rate is not None for path, rate in self.paths.items() if path.split(".")[0] == part)

    def peak(self, path: str) -> float:
        """Peak rate of a path that the stage names. Raises SpecError for one that it does not, or that it freezes."""
        if (rate := self.paths.get(path)) is None:
            raise SpecError(f"{self._where}: nothing learns by the name of {path!r}; what does: {', '.join(self.paths)}")
        return rate

    def decay(self, path: str) -> float:
        """Weight decay of the matrices of a path."""
        own = self._own(path)
        return self.weight_decay if own is None or own.weight_decay is None else own.weight_decay

    def factor(self, step: int, path: str = "") -> float:
        """What peak rates are multiplied by in update `step`, counted from 0: of a path, or by the schedule of the stage itself. Raises
        SpecError where tokens say how long the stage is: `resolved` makes steps of them."""
        if not self.steps:
            raise SpecError(f"{self._where}: its length is {self.tokens} tokens; stage.resolved(processes) says how many steps these are")
        own = self._own(path)
        return fraction_of_peak(
            self._schedule(path),
            step,
            self.steps,
            warmup=self._warmup(path),
            final=self.final if own is None or own.final is None else own.final,
            timescale=self.timescale,
            shift=self.shift,
            cooldown=self.cooldown,
        )

    def rate(self, path: str, step: int) -> float:
        """Learning rate of a path in update `step`; matrices under Muon learn `muon_scale` times as fast."""
        return self.peak(path) * self.factor(step, path)

    def scaled(self, fraction: float) -> Self:
        """The same stage with a fraction of its updates, at least one."""
        steps = max(1, round(self.steps * fraction)) if self.steps else 0

        def fewer(updates: int) -> int:
            fewer = round(updates * fraction)
            return min(steps, fewer) if steps else fewer

        learn = {
            path: one.replace(warmup=fewer(one.warmup)) if isinstance(one, Learn) and one.warmup is not None else one
            for path, one in self.learn.items()
        }
        warmups = [fewer(self.warmup), *(one.warmup for one in learn.values() if isinstance(one, Learn) and one.warmup is not None)]
        return self.replace(
            steps=steps,
            tokens=None if self.tokens is None else max(1, round(self.tokens * fraction)),
            warmup=fewer(self.warmup),
            cooldown=min(fewer(self.cooldown), steps - max(warmups)) if steps else fewer(self.cooldown),
            learn=learn,
        )

    def resolved(self, processes: int) -> Self:
        """The stage in plain steps and micro-batches, as so many processes train it. Raises SpecError where its tokens do not divide."""
        if self.tokens is None and self.batch_tokens is None:
            return self
        assert self.max_length is not None, "checked when the stage was made"
        rows = max(1, self.batch_size)
        once = rows * self.max_length * processes
        accumulate = self.accumulate
        if self.batch_tokens is not None:
            accumulate, rest = divmod(self.batch_tokens, once)
            if rest or not accumulate:
                near = " or ".join(str(count * once) for count in (accumulate, accumulate + 1) if count)
                raise SpecError(
                    f"{self._where}: batch_tokens {self.batch_tokens} is no multiple of the {once} tokens that {processes} process(es) "
                    f"take at once ({rows} row(s) of {self.max_length} each); {near} would be"
                )
        steps = self.steps if self.tokens is None else -(-self.tokens // (once * accumulate))
        return self.replace(steps=steps, tokens=None, batch_size=rows, batch_tokens=None, accumulate=accumulate)

    def _own(self, path: str) -> Learn | None:
        own = self.learn.get(path)
        return own if isinstance(own, Learn) else None

    def _schedule(self, path: str) -> Schedule:
        own = self._own(path)
        return self.schedule if own is None or own.schedule is None else own.schedule

    def _warmup(self, path: str) -> int:
        own = self._own(path)
        return self.warmup if own is None or own.warmup is None else own.warmup


def refuse_twins(stages: tuple[Stage, ...]) -> None:
    """Raise SpecError where two stages of a chain have one name: a run remembers by it what is done."""
    names = [stage.name for stage in stages]
    if twins := sorted({name for name in names if names.count(name) > 1}):
        raise SpecError(f"stages that follow each other need names of their own, but there are several {', '.join(map(repr, twins))}")
