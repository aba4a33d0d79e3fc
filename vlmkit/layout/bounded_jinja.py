"""transformers' rendering of chat templates, with a bound on what a template makes.

The limit of time (`vlmkit.time_limit`) stops a template between its operations. Here no operation is so large that it matters: what it
would make is reckoned before it is done (`vlmkit.layout.template_sizes`), and what all of a rendering made is counted. Both bounds
grow with the conversation. A template that nobody made to harm stays ten thousand times below them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextvars import ContextVar
from functools import lru_cache, wraps
from types import FunctionType
from typing import Any

from jinja2 import Template, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedEscapeFormatter, SandboxedFormatter
from jinja2.visitor import NodeTransformer

from vlmkit.layout.template_sizes import ENOUGH, after, before, binary, called, formatted, is_long, leaves, whole, written

ONE, ALL = 1 << 24, 1 << 27
"""Bytes that one operation, and that all together, may make of a conversation of no length."""
_OF_JINJA = {"_loop_vars", "_block_vars"}
"""What it hands over to every call in a loop, beside what the template does."""
WALKED = {"join", "sort", "unique", "min", "max", "groupby", "sum"}
"""Filters that compare or gather what they walk through once."""
AT_ONCE = frozenset(
    ("defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "true", "false", "mapping", "sequence", "iterable")
)
"""Tests that look at no value in what they are given."""
PIECE = 64
"""Of a text that is written out, beside its characters."""


class OversizeError(Exception):
    """An operation of a template that would make too much."""


class _Budget:
    def __init__(self, given: Any) -> None:
        size, texts = leaves(given)
        self.one, self.left = ONE + 32 * size, ALL + size * (texts + 64)

    def allow(self, what: str, size: int) -> None:
        if size > self.one:
            much = f"{size:,} bytes" if size < ENOUGH else "more than is worth counting"
            raise OversizeError(f"its {what} would make {much}; {self.one:,} bytes are allowed")

    def take(self, what: str, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise OversizeError(f"its operations, of which {what} is the last, make more than is allowed")


_budget: ContextVar[_Budget] = ContextVar("_budget")


def render(source: str, messages: Sequence[Mapping[str, Any]], **options: Any) -> str:
    """As transformers renders it. Raises OversizeError, and whatever a template raises."""
    token = _budget.set(_Budget((messages, options)))
    try:
        [rendered], _ = _rendering()(conversations=[messages], chat_template=source, **options)
    finally:
        _budget.reset(token)
    return str(rendered)


@lru_cache(maxsize=1)
def _rendering() -> Callable[..., Any]:
    """transformers' own function, which finds our environment where it looks for its."""
    from transformers.utils import chat_template_utils as theirs

    function = theirs.render_jinja_template
    if "_compile_jinja_template" not in function.__code__.co_names:
        raise ImportError("this version of transformers compiles chat templates elsewhere, so that they would not be bounded")
    own = FunctionType(function.__code__, {**vars(theirs), "_compile_jinja_template": _compiled})
    own.__kwdefaults__, own.__defaults__ = function.__kwdefaults__, function.__defaults__
    return own


@lru_cache(maxsize=128)
def _compiled(source: str) -> Template:
    return _environment().from_string(source)


@lru_cache(maxsize=1)
def _environment() -> Bounded:
    """transformers' environment, of which every filter is bounded."""
    from transformers.utils.chat_template_utils import _compile_jinja_template

    theirs = _compile_jinja_template("").environment
    own = Bounded(
        trim_blocks=theirs.trim_blocks, lstrip_blocks=theirs.lstrip_blocks, extensions=[type(one) for one in theirs.extensions.values()]
    )
    own.globals = theirs.globals
    own.tests = {name: function if name in AT_ONCE else _compared(function) for name, function in theirs.tests.items()}
    own.filters = {name: _bounded(name, function) for name, function in theirs.filters.items()}
    return own


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    skipped = hasattr(function, "jinja_pass_arg")

    @wraps(function)
    def bounded(*given: Any, **named: Any) -> Any:
        value, *others = given[skipped:]
        if name in WALKED and not isinstance(value, Collection):
            value = list(value)
            given = (*given[:skipped], value, *others)
        return _made(f"filter {name!r}", before(name, value, others, named), lambda: function(*given, **named))

    return bounded


def _compared(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def compared(*given: Any) -> Any:
        _budget.get().allow("comparison", whole(*given))
        return function(*given)

    return compared


def _made(what: str, size: int, make: Callable[[], Any]) -> Any:
    budget = _budget.get()
    budget.allow(what, size)
    result = make()
    budget.take(what, after(result))
    return result


class _Formatter(SandboxedFormatter):
    def format_field(self, value: Any, format_spec: str) -> Any:
        return _made("'format'", formatted(value, format_spec), lambda: super(_Formatter, self).format_field(value, format_spec))

    def convert_field(self, value: Any, conversion: str | None) -> Any:
        _budget.get().allow("'format'", written(value) if conversion else 0)
        return super().convert_field(value, conversion)


class _EscapeFormatter(_Formatter, SandboxedEscapeFormatter):
    """Of a text that counts as safe HTML."""


class _Visible(NodeTransformer):
    """What Jinja compiles to plain Python becomes a call, which is counted: ~, lists, dictionaries, slices, and comparisons but with
    constants."""

    def visit_Const(self, node: nodes.Const) -> nodes.Node:  # noqa: N802
        if is_long(node.value):
            raise OversizeError("its numbers are longer than any that counts something")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        return _call("joined", [self.visit(one) for one in node.nodes], node)

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        return _call("collected", [self.generic_visit(node)], node) if node.items else node

    visit_Dict = visit_List  # noqa: N815

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if not _is_constant(node.key):
            node.key = _call("compared", [node.key], node)
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        if len(node.ops) == 1 and (_is_constant(node.expr) or _is_constant(node.ops[0].expr)):
            return self.generic_visit(node)
        self.generic_visit(node)
        node.expr = _call("compared", [node.expr], node)
        for operand in node.ops:
            operand.expr = _call("compared", [operand.expr], node)
        return node

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        return _call("collected", [self.generic_visit(node)], node) if node.ctx == "load" and node.items else node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        ends = [one or nodes.Const(None) for one in (node.arg.start, node.arg.stop, node.arg.step)]
        return _call("sliced", [node.node, *ends], node)


def _is_constant(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Const) or (isinstance(node, (nodes.List, nodes.Tuple)) and all(map(_is_constant, node.items)))


def _call(name: str, given: list[Any], node: nodes.Node) -> nodes.Call:
    call = nodes.Call(nodes.EnvironmentAttribute(name), given, [], None, None)
    call.set_lineno(node.lineno)
    return call


class Bounded(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "*", "**", "%", "//"})

    def __init__(self, **options: Any) -> None:
        super().__init__(finalize=self.finalized, **options)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        return _Visible().visit(super()._parse(source, name, filename))  # type: ignore[no-any-return]

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        return _made(f"operation {operator!r}", binary(operator, left, right), lambda: self.binop_table[operator](left, right))

    def call(__self, __context: Any, __obj: Any, *given: Any, **named: Any) -> Any:  # noqa: N805
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", type(__obj).__name__)
        if owner is __self:  # what follows below, which counts itself
            return __obj(*given)
        if name == "join" and given and not isinstance(given[0], Collection):
            given = (list(given[0]), *given[1:])
        own = {key: named[key] for key in named.keys() - _OF_JINJA}
        if isinstance(owner, (str, bytes)):
            size = before(name, owner, given, own)
        else:
            size = called(name, (owner, *given) if isinstance(owner, (list, tuple)) else given, own)
        return _made(repr(name), size, lambda: super(Bounded, __self).call(__context, __obj, *given, **named))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """As the sandbox's, with widths that are bounded."""
        if (theirs := super().wrap_str_format(value)) is None:
            return None
        text, of_map = value.__self__, value.__name__ == "format_map"
        formatter = _EscapeFormatter(self, escape=text.escape) if hasattr(text, "__html__") else _Formatter(self)

        def format(*given: Any, **named: Any) -> str:
            if of_map and (named or len(given) != 1):
                return str(theirs(*given, **named))  # raises, and says what it takes
            made: str = type(text)(formatter.vformat(text, (), given[0]) if of_map else formatter.vformat(text, given, named))
            return made

        return format

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(argument, tuple):
            _budget.get().allow("index", whole(argument))
        return super().getitem(obj, argument)

    def joined(self, *values: Any) -> str:
        return str(_made("operation '~'", sum(map(written, values)), lambda: "".join(map(str, values))))

    def collected(self, values: Any) -> Any:
        return _made("list", 0, lambda: values)

    def compared(self, value: Any) -> Any:
        _budget.get().allow("comparison", whole(value))
        return value

    def sliced(self, values: Any, start: Any, stop: Any, step: Any) -> Any:
        return _made("slice", 0, lambda: values[start:stop:step])

    def finalized(self, value: Any) -> Any:
        if not isinstance(value, str):
            _budget.get().allow("output", written(value))
        return value

    @staticmethod
    def concat(pieces: Iterable[str]) -> str:
        budget, kept, size = _budget.get(), list[str](), 0
        for piece in pieces:
            size += len(piece)
            budget.allow("output", size)
            budget.take("output", PIECE + len(piece))
            kept.append(piece)
        return "".join(kept)
