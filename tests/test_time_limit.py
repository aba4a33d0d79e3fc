"""Loops of a program from elsewhere end."""

from __future__ import annotations

import sys
import threading
import time

import pytest

from vlmkit.layout.jinja_template import JinjaTemplate, TemplateTimeoutError
from vlmkit.time_limit import within


def forever() -> None:
    while True:
        try:
            for _ in range(10**9):
                pass
        except Exception:  # as what calls a template does
            continue


def test_a_loop_that_swallows_exceptions_ends() -> None:
    begun = time.monotonic()
    with pytest.raises(TimeoutError, match=r"a loop takes longer than 0\.2 seconds"), within(0.2, "a loop"):
        forever()
    assert time.monotonic() - begun < 5


def test_what_is_quick_is_left_alone_and_threads_are_told_apart() -> None:
    stopped: list[str] = []

    def slow() -> None:
        try:
            with within(0.2, "the other"):
                forever()
        except TimeoutError as error:
            stopped.append(str(error))

    other = threading.Thread(target=slow)
    other.start()
    for _ in range(1000):
        with within(30.0, "this"):
            sum(range(10))
    other.join(10)
    assert stopped == ["the other takes longer than 0.2 seconds"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell what another thread computed")
def test_a_process_that_was_suspended_or_waits_for_its_turn_is_not_stopped() -> None:
    with within(0.2, "a pause"):
        time.sleep(1.2)


def test_a_template_that_loops_ten_thousand_million_times_is_refused() -> None:
    loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    template = JinjaTemplate(source=loops + "{{ messages[0].content }}", strings=("user",))
    begun = time.process_time()
    with pytest.raises(TemplateTimeoutError, match="the chat template is refused: its program takes longer than 3 seconds"):
        template.render([{"role": "user", "content": "Hello"}])
    assert time.process_time() - begun < 5
