"""No operation of a chat template takes the memory or the time of the process; templates that mean no harm are rendered as they were."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

import vlmkit
from tests.memory import peak_memory
from vlmkit.layout.bounded_jinja import render
from vlmkit.layout.jinja_source import chat_template
from vlmkit.layout.jinja_template import JinjaTemplate, TemplateSizeError, TemplateTimeoutError
from vlmkit.layout.laid_out import LayoutError

N = 10**9
A = "{% set a = 'a b,' * 1000000 %}"
"""Four million characters, which is allowed."""
LOOPS = "{% for i in range(99999) %}{% for j in range(99999) %}"


def again(start: str, step: str, times: int = 60) -> str:
    """A value that is made anew out of itself."""
    loops, ends = (LOOPS, "{% endfor %}" * 2) if times > 99999 else (f"{{% for i in range({times}) %}}", "{% endfor %}")
    return f"{{% set ns = namespace(x={start}) %}}{loops}{{% set ns.x = {step} %}}{ends}"


SHARED = again("'abc'", "[ns.x, ns.x]")
"""A list that is small, and endless when it is walked through."""
TUPLES = SHARED.replace("[ns.x, ns.x]", "(ns.x, ns.x)")
BOMBS = {
    # one operation
    "text times number": (f"{{{{ 'ab' * {N} }}}}", "operation '*'"),
    "number times text": (f"{{{{ {N} * 'ab' }}}}", "operation '*'"),
    "list times number": (f"{{{{ ([1] * {N})|length }}}}", "operation '*'"),
    "tuple times number": (f"{{{{ ((1, 2) * {N})|length }}}}", "operation '*'"),
    "bytes times number": (f"{{{{ ('a'.encode() * {N})|length }}}}", "operation '*'"),
    "a long power": ("{{ (3 ** 100000000) % 7 }}", "operation '**'"),
    "a tower of powers": ("{{ (9 ** (9 ** (9 ** 9))) % 7 }}", "operation '**'"),
    "a power of two": ("{{ (2 ** 10000000000) % 7 }}", "operation '**'"),
    "long numbers": (A + "{% set n = ('f' * 16000000)|int(base=16) %}{{ (n // (n - 1)) }}", "filter 'int'"),
    "a width of %": (f"{{{{ '%{N}d' % 1 }}}}", "operation '%'"),
    "a precision of %": (f"{{{{ '%.{N}f' % 1.0 }}}}", "operation '%'"),
    "a width beside %": (f"{{{{ '%*d' % ({N}, 1) }}}}", "operation '%'"),
    "a text in every %": (A + "{{ ('%(x)s' * 1000) % dict(x=a) }}", "operation '%'"),
    "center": (f"{{{{ 'a'.center({N}) }}}}", "'center'"),
    "ljust": (f"{{{{ 'a'.ljust({N}, 'b') }}}}", "'ljust'"),
    "rjust": (f"{{{{ 'a'.rjust({N}) }}}}", "'rjust'"),
    "zfill": (f"{{{{ 'a'.zfill({N}) }}}}", "'zfill'"),
    "zfill of bytes": (f"{{{{ 'a'.encode().zfill({N})|length }}}}", "'zfill'"),
    "expandtabs": (f"{{{{ '\\t'.expandtabs({N}) }}}}", "'expandtabs'"),
    "many tabs": ("{{ ('\\t' * 1000000).expandtabs(100000) }}", "'expandtabs'"),
    "replace nothing": (A + "{{ a.replace('', a) }}", "'replace'"),
    "replace a letter": (A + "{{ a.replace('a', a) }}", "'replace'"),
    "join letters": (A + "{{ a.join(a) }}", "'join'"),
    "join one text": (A + "{{ ''.join([a] * 100000) }}", "'join'"),
    "translate": (A + "{{ a.translate({97: a}) }}", "'translate'"),
    "a width of format": (f"{{{{ '{{:{N}}}'.format(1) }}}}", "'format'"),
    "a width in a field": (f"{{{{ '{{:{{}}}}'.format(1, {N}) }}}}", "'format'"),
    "a precision of format": (f"{{{{ '{{:.{N}f}}'.format(1.5) }}}}", "'format'"),
    "format_map": (f"{{{{ '{{a:{N}}}'.format_map(dict(a=1)) }}}}", "'format'"),
    "a text in every field": (A + "{{ ('{0}' * 10000).format(a) }}", "'format'"),
    "to_bytes": (f"{{{{ (1).to_bytes({N}, 'big')|length }}}}", "'to_bytes'"),
    "split": (A + "{{ (a * 4).split(',')|length + (a * 4).split(' ')|length }}", "'split'"),
    "strftime": (A + "{{ strftime_now('%5000Y' * 200000) }}", "'strftime_now'"),
    "~ of a list": (A + "{{ '' ~ ([a] * 100000) }}", "operation '~'"),
    "a list is written": (A + "{{ [a] * 100000 }}", "output"),
    "a list of lists is written": (
        SHARED + "{{ ns.x }}",
        "output",
    ),
    "a text of a namespace": ("{% set ns = namespace(x=1) %}{{ ns }}", "output"),
    "views are written": (SHARED + "{{ {'a': ns.x}.values() }}", "output"),
    "an exception is written": (SHARED + "{{ raise_exception(ns.x) }}", "'raise_exception'"),
    "a list is represented": (SHARED + "{{ '{!r}'.format(ns.x) }}", "'format'"),
    "a long constant": ("{{ (0x" + "f" * 1000000 + ").bit_length() }}", "numbers"),
    "lists are compared": (SHARED + SHARED.replace("ns", "other") + "{{ ns.x == other.x }}", "comparison"),
    "lists are tested": (SHARED + SHARED.replace("ns", "other") + "{{ ns.x is eq(other.x) }}", "comparison"),
    "lists are looked for": (SHARED + SHARED.replace("ns", "other") + "{{ [ns.x].index(other.x) }}", "'index'"),
    "lists are counted": (SHARED + SHARED.replace("ns", "other") + "{{ [ns.x].count(other.x) }}", "'count'"),
    "a list is replaced": (SHARED + "{{ 'a'|replace(ns.x, 'b') }}", "filter 'replace'"),
    "a list replaces": (A + "{{ 'a'|replace('a', [a] * 100000) }}", "filter 'replace'"),
    "lists are sorted": (SHARED + SHARED.replace("ns", "other") + "{{ [[ns.x], [other.x]]|map('first')|sort }}", "filter 'sort'"),
    "tuples are hashed": (TUPLES + "{{ {ns.x: 1} }}", "comparison"),
    "tuples are keys": (TUPLES + "{{ {}[ns.x] }}", "index"),
    "tuples are got": (TUPLES + "{{ {}.get(ns.x) }}", "'get'"),
    "tuples are unique": (TUPLES + "{{ [ns.x]|unique|list }}", "filter 'unique'"),
    "deep tuples are hashed": (
        again("()", "(ns.x,)", 99999) + "{{ {ns.x: 1} }}",
        "comparison",
    ),
    # filters
    "filter center": (f"{{{{ 'a'|center({N}) }}}}", "filter 'center'"),
    "filter indent": (f"{{{{ 'a\\nb'|indent({N}) }}}}", "filter 'indent'"),
    "filter indent, every line": ("{{ ('a\\n' * 100000)|indent(100000) }}", "filter 'indent'"),
    "filter indent by a text": (A + "{{ ('a\\n' * 100000)|indent(a) }}", "filter 'indent'"),
    "filter format": (f"{{{{ '%{N}d'|format(1) }}}}", "filter 'format'"),
    "filter join": (A + "{{ ([a] * 100000)|join }}", "filter 'join'"),
    "filter join between": (A + "{{ ('a' * 100000)|join(a) }}", "filter 'join'"),
    "filter batch": (f"{{{{ [1]|batch({N}, 'a')|list|length }}}}", "filter 'batch'"),
    "filter slice": (f"{{{{ [1]|slice({N}, 'a')|list|length }}}}", "filter 'slice'"),
    "filter tojson": (f"{{{{ [[1]]|tojson(indent={N}) }}}}", "filter 'tojson'"),
    "filter tojson, shared": (
        SHARED + "{{ ns.x|tojson }}",
        "filter 'tojson'",
    ),
    "filter replace": (A + "{{ a|replace('a', a) }}", "filter 'replace'"),
    "filter wordwrap": (A + "{{ 'a a a a'|wordwrap(1, wrapstring=a * 2) ~ a|wordwrap(1, wrapstring=a) }}", "filter 'wordwrap'"),
    "filter round": (f"{{{{ 1.5|round({N}, 'ceil') }}}}", "filter 'round'"),
    "filter sum": ("{% set l = [1] * 1000000 %}{{ ([l] * 1000)|sum(start=[])|length }}", "filter 'sum'"),
    "filter string": (A + "{{ ([a] * 100000)|string }}", "filter 'string'"),
    "filter upper": (A + "{{ ([a] * 100000)|upper }}", "filter 'upper'"),
    "filter pprint": (A + "{{ ([a] * 100000)|pprint }}", "filter 'pprint'"),
    "filter list": ("{{ ('ä€' * 8000000)|list|length }}", "filter 'list'"),
    "a filter of map": (f"{{{{ ['a']|map('center', {N})|list }}}}", "filter 'center'"),
    "attr": (f"{{{{ ('a'|attr('center'))({N}) }}}}", "'center'"),
    # many operations
    "~ doubles": (again("'abc'", "ns.x ~ ns.x"), "operation '~'"),
    "+ doubles": (again("'abc'", "ns.x + ns.x"), "operation '+'"),
    "lists double": (again("[1]", "ns.x + ns.x"), "operation '+'"),
    "numbers double": (again("3", "ns.x * ns.x"), "operation '*'"),
    "texts are kept": (
        again("[]", "[ns.x, 'a' * 1000000]", 9999),
        "more than is allowed",
    ),
    "slices are kept": (
        A + again("[]", "[ns.x, a[1:]]", 9999),
        "more than is allowed",
    ),
    "a large output": (A + "{% for i in range(99999) %}{{ a }}{% endfor %}", "output"),
    "a large block": (A + "{% set b %}{% for i in range(99999) %}{{ a }}{% endfor %}{% endset %}", "output"),
    "a large macro": (A + "{% macro m() %}{% for i in range(99999) %}{{ a }}{% endfor %}{% endmacro %}{{ m() }}", "output"),
    "a constant": (f"{{% if 'x' * {N} == 'y' %}}{{% endif %}}", "operation '*'"),
    "a constant filter": (f"{{{{ 'x'|center({N}) }}}}", "filter 'center'"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_in_one_sentence_that_names_the_operation(bomb: str) -> None:
    source, operation = BOMBS[bomb]
    template = JinjaTemplate(source=source + "{{ messages[0].content }}", strings=("user",))
    begun = time.process_time()
    with peak_memory() as grown, pytest.raises(TemplateSizeError, match=re.escape(operation)) as refused:
        template.render([{"role": "user", "content": "Hello"}])
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith("the chat template is refused: its ")
    assert time.process_time() - begun < 5
    assert grown() < 300 << 20


ENDLESS = {
    "lists are kept": again("[]", "[ns.x]", 99999**2),
    "a long output": LOOPS + "{{ j }}{% endfor %}{% endfor %}",
    "lipsum": "{{ lipsum(n=1000000000, html=false, min=1, max=2) }}",
}


@pytest.mark.slow
@pytest.mark.parametrize("bomb", ENDLESS)
def test_what_is_long_and_makes_little_runs_into_the_limit_of_time(bomb: str) -> None:
    with peak_memory() as grown, pytest.raises((TemplateTimeoutError, TemplateSizeError)):
        JinjaTemplate(source=ENDLESS[bomb]).render([{"role": "user", "content": "Hello"}])
    assert grown() < 300 << 20


SANE = (
    "{{ 'a' * 3 }}{{ [1, 2] * 2 }}{{ (1, 2) + (3,) }}{{ 7 // 2 }}{{ 2 ** 10 }}{{ 7 % 4 }}"
    "{{ '%s-%05d' % ('a', 3) }}{{ '%(a)s' % {'a': 1} }}",
    "{{ 'a' ~ 1 ~ none ~ [1, 'b'] ~ 'é' }}{{ [1, 2, 3, 4][1:3] }}{{ 'abcdef'[::-1] }}{{ messages[1:] }}{{ messages[::2]|length }}",
    "{% for a, b in [(1, 2), (3, 4)] %}{{ loop.index }}{{ a }}{{ b }}{{ loop.last }}{% endfor %}{% set x, y = 1, [2] %}{{ x }}{{ y }}",
    "{{ {'a': [1, {'b': (2,)}]}|tojson(indent=2) }}{{ 'a\nb'|indent(4, true) }}{{ [3, 1]|sort|join(', ') }}{{ 'x'|center(9) }}",
    "{{ 'a,b'.split(',') }}{{ ' x '.strip() }}{{ '{}-{a:>5}'.format(1, a='x') }}"
    "{{ '{a}'.format_map({'a': 3}) }}{{ 'abc'.replace('b', '') }}",
    "{{ ', '.join(messages|map(attribute='role')) }}{{ messages|selectattr('role', 'equalto', 'user')|list|length }}{{ 'A'|lower|title }}",
    "{% macro m(x) %}<{{ x }}{{ caller() if caller }}>{% endmacro %}{{ m(1) }}"
    "{% call m(2) %}c{% endcall %}{% set b %}a{{ 1 }}{% endset %}{{ b }}",
    "{% set ns = namespace(n=0, s='') %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
    "{% set ns.s = ns.s + m.role %}{% endfor %}{{ ns.n }}{{ ns.s }}",
    "{% generation %}{{ 1.5|round(1) }}{{ '3'|int + 4 }}{{ [1, 2]|sum }}"
    "{{ range(5)|batch(2, 0)|list }}{% endgeneration %}{{ undefined_name }}",
    "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.content }}{% break %}{% endfor %}{{ dict(a=1).items()|list }}",
    "{{ raise_exception('no') if messages|length > 9 }}{{ '<b>'|e ~ '<i>' }}{{ ('<b>'|safe) + '<' }}"
    "{{ [1, 2] == [1, 2] }}{{ 1 in (1, 2) }}",
    "{{ messages[0]['content'].split('</think>')[-1].lstrip('\n') }}{{ 'a' in ['a', 'b'] }}{{ not [] }}"
    "{{ [] }}{{ {} }}{{ () }}{{ {'a': 1}.a }}",
)
MESSAGES = [
    {"role": "user", "content": "What is <this>?"},
    {"role": "assistant", "content": "A cät 🙂."},
    {"role": "user", "content": "Why?"},
]


def rendered(function: Any, source: str, messages: list[dict[str, Any]], **options: Any) -> Any:
    try:
        return function(source, messages, **options)
    except Exception as error:
        return type(error), str(error)


def transformers_own(source: str, messages: list[dict[str, Any]], **options: Any) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    return str(render_jinja_template(conversations=[messages], chat_template=source, **options)[0][0])


@pytest.mark.parametrize("source", SANE)
def test_what_means_no_harm_is_rendered_as_transformers_renders_it(source: str) -> None:
    for options in ({}, {"add_generation_prompt": True, "bos_token": "<s>"}, {"continue_final_message": True}):
        assert rendered(render, source, MESSAGES, **options) == rendered(transformers_own, source, MESSAGES, **options)


def test_templates_of_every_named_model_and_of_every_test() -> None:
    layouts = [vlmkit.architecture(name).layout for name in vlmkit.list_models()]
    found = {chat_template((layout.template, layout.after_image), layout.written[0], begin=True) for layout in layouts}
    assert len(found) > 25
    for path in Path(__file__).parents[1].rglob("*.py"):
        for text in re.findall(r'"((?:[^"\\\n]|\\.)*\{[{%](?:[^"\\\n]|\\.)*)"', path.read_text(encoding="utf-8")):
            if "message" in text and path != Path(__file__):
                found.add(text)
    assert len(found) > 50
    for source in found:
        for messages in (MESSAGES, [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]):
            assert rendered(render, source, messages) == rendered(transformers_own, source, messages)


def test_long_conversations_are_no_bombs() -> None:
    """Texts that are gathered turn by turn, as templates of language models' own gather them."""
    each = "{% set ns.t = ns.t + m.content %}{% set ns.l = ns.l + [m] %}"
    source = f"{{% set ns = namespace(t='', l=[]) %}}{{% for m in messages %}}{each}{{% endfor %}}{{{{ ns.t }}}}"
    for count, length in ((1000, 1000), (3000, 10), (2, 1_000_000)):
        messages = [{"role": "user", "content": "é" * length}] * count
        assert render(source, messages) == "é" * length * count


def test_a_template_that_refuses_still_says_why() -> None:
    with pytest.raises(LayoutError, match="roles must alternate"):
        JinjaTemplate(source="{{ raise_exception('roles must alternate') }}").render(MESSAGES)
