"""A stranger's chat template runs in a process of its own, and not for ever."""

from __future__ import annotations

import gc
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from redraft.checkpoint.locate import BUNDLED
from redraft.core.errors import CheckpointError, PromptError
from redraft.text import guarded_template
from redraft.text.chat import ChatTemplate
from redraft.text.template import Template
from redraft.text.template_source import template_sources

USER = {"role": "user", "content": "play some jazz"}
PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
# Each does what it does for the word alone.
LOOP = "{% for i in range(99999) %}"
FOR_EVER = 3 * LOOP + 3 * "{% endfor %}"
HUGE = [
    "{{ 'x' * 3000000000 }}",
    "{{ 'x'.ljust(3000000000) }}",
    "{{ 'x'|center(3000000000) }}",
    "{{ '%3000000000d' % 1 }}",
    "{% set n = namespace(x='x') %}{% for i in range(40) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
]


def hostile(part: str) -> ChatTemplate:
    return ChatTemplate("{% if messages[-1].content == 'boom' %}" + part + "{% endif %}" + PLAIN)


def boom(template: ChatTemplate) -> str:
    with pytest.raises(PromptError) as caught:
        template.render([{"role": "user", "content": "boom"}])
    return str(caught.value)


def test_one_that_runs_for_ever_is_stopped(monkeypatch):
    monkeypatch.setattr(guarded_template, "TIMEOUT_S", 0.5)
    template = hostile(FOR_EVER)
    began = time.monotonic()
    assert "ran for 0.5 s" in boom(template)
    assert time.monotonic() - began < 30
    # The next prompt has a process again.
    assert template.render([USER]) == "user: play some jazz\n"


@pytest.mark.parametrize("part", HUGE)
def test_one_that_takes_all_memory_is_refused(part):
    # Made here, what is constant in it is not computed.
    template = hostile(part)
    said = boom(template)
    assert "MemoryError" in said or "too much memory" in said or "OverflowError" in said
    assert template.render([USER]) == "user: play some jazz\n"


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in messages %}" * 25 + "{% endfor %}" * 25,
        "{% if messages %}" * 120 + "{% endif %}" * 120,
        "{{ " + "9" * 5000 + " }}",
        "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
        "{% if 1 %}{% set a = 1 %}{% endif %}" * 2000,
    ],
    ids=["loops", "conditions", "a number", "brackets", "length"],
)
def test_one_that_cannot_be_compiled_is_said_so_at_once(source):
    began = time.monotonic()
    with pytest.raises(CheckpointError, match="the chat template"):
        ChatTemplate(source)
    assert time.monotonic() - began < 20


def test_what_it_says_is_cut_and_can_be_printed():
    said = boom(hostile("{{ raise_exception('\\ud800' ~ 'x' * 300000000) }}"))
    assert len(said) < 1000
    said.encode()


def test_half_a_character_is_refused():
    assert "surrogates not allowed" in boom(hostile("{{ '\\ud800' }}"))


def test_an_interrupted_prompt_leaves_its_answer_to_nobody():
    template = hostile("{% for i in range(99999) %}{% for j in range(30) %}{% endfor %}{% endfor %}")
    template.render([USER])

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            template.render([{"role": "user", "content": "boom"}])
    finally:
        signal.signal(signal.SIGALRM, before)
    assert template.render([USER]) == "user: play some jazz\n"


def test_nothing_is_imported_from_where_someone_stands(tmp_path, monkeypatch):
    """Which may be a download."""
    for name in ("jinja2", "json", "signal"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('run')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    assert ChatTemplate(PLAIN).render([USER]) == "user: play some jazz\n"


def test_one_that_writes_more_than_any_context_holds_is_refused():
    template = hostile("{{ 'x' * 40000000 }}")
    assert "characters" in boom(template)
    assert template.render([USER]) == "user: play some jazz\n"


def test_what_comes_out_is_what_the_template_makes_here():
    sources, special = template_sources(BUNDLED / "mini")
    values = {
        "messages": [USER, {"role": "assistant", "content": "\u2028 \U0001f600 \ufdd0"}],
        "tools": [{"function": {"name": "f", "parameters": {"a": 1.0, "b": None}}}],
        "enable_thinking": True,
        "add_generation_prompt": True,
    }
    for source in (sources["default"], PLAIN, "{{ tools|tojson }}{{ messages }}{{ enable_thinking }}"):
        template = Template({"default": source}, special)
        assert guarded_template.GuardedTemplate(template).render(values) == template.render(values)
    refusing = Template({"default": "\n\n{{ raise_exception('no') }}"}, {})
    with pytest.raises(PromptError) as here:
        refusing.render(values)
    with pytest.raises(PromptError) as there:
        guarded_template.GuardedTemplate(refusing).render(values)
    assert str(there.value) == str(here.value)
    assert "line 3" in str(here.value)


def test_threads_get_their_own_prompts():
    template = ChatTemplate(PLAIN)
    texts = [f"text {number} " * (1 + number % 7) for number in range(64)]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda text: template.render([{"role": "user", "content": text}]), texts))
    assert got == [f"user: {text}\n" for text in texts]


def test_the_process_ends_with_its_template():
    template = ChatTemplate(PLAIN)
    template.render([USER])
    process = template._template._process
    assert process.poll() is None
    del template
    gc.collect()
    assert process.poll() is not None


def test_ours_needs_no_process(monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    assert "play some jazz" in ChatTemplate.from_directory(BUNDLED / "mini").render([USER])


def test_a_template_of_megabytes_is_refused(tmp_path):
    (tmp_path / "chat_template.jinja").write_text("x" * 2_000_000)
    with pytest.raises(CheckpointError, match="at most"):
        ChatTemplate.from_directory(tmp_path)
