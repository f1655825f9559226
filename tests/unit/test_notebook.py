"""How a reply shows itself: what is in its HTML, what can never be in it, and what its drafts cost."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import re
from html import unescape
from html.parser import HTMLParser

import pytest
from cli_fakes import stats

import redraft
from redraft import Commit, Draft, Generation, ToolCall
from redraft.core.notebook.reply import MOST_BYTES
from redraft.core.reel import Recorder
from redraft.core.results import Doubt

SENTENCE = "put some Miles Davis on my late night jazz playlist"
HOSTILE = '</script><script>steal()</script><!--<img src=x onerror="steal()">\'&amp;\u2028\x00\x1b[2J\ud800'
STATS = stats(
    generated_tokens=25,
    denoising_steps=40,
    tokens_per_forward=0.625,
    time_to_first_canvas_s=1.32,
    tokens_per_second=18.9,
)


class Tags(HTMLParser):
    """Every tag, and the text outside of scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.open = "", ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open = tag

    def handle_endtag(self, tag):
        self.open = ""

    def handle_data(self, data):
        self.text += "" if self.open in ("script", "style") else data


def reply(**fields) -> Generation:
    known = {"text": "", "reasoning": None, "tool_calls": (), "token_ids": (), "finish_reason": "stop", "seed": 7}
    return Generation(**{**known, "stats": STATS, **fields})


def drafts(length: int, steps: int, canvases: int) -> list[Draft]:
    """Drafts in which every position changes in every step."""
    return [
        Draft(
            canvas=canvas,
            step=step,
            token_ids=tuple(1000 * step + place for place in range(length)),
            accepted=tuple(place < step for place in range(length)),
            entropy_nats=(1.0,) * length,
            temperature=0.5,
        )
        for canvas in range(canvases)
        for step in range(steps)
    ]


def reel_of(frames: list[Draft], piece=lambda token_id: f" word{token_id}"):
    recorder = Recorder(lambda ids: [piece(token_id) for token_id in ids])
    for draft in frames:
        recorder.add(draft)
    return recorder.reel()


def frames_in(html: str) -> list[dict]:
    """The frames that the script is called with."""
    data = html[html.rindex("})(") + 3 : html.rindex(")</script>")]
    return json.JSONDecoder().raw_decode(data)[0]


@pytest.fixture(scope="module")
def engine():
    return redraft.load("mini", dtype="float32", threads=1)


@pytest.fixture(scope="module")
def written(engine):
    return engine.generate(SENTENCE, seed=0)


def test_a_reply_shows_its_parts():
    html = reply(
        text="It is <warm>.\nBring a hat.",
        reasoning="hm",
        tool_calls=(ToolCall(name="GetWeather", arguments={"city": "Oslo", "days": [1, 2]}),),
        finish_reason="length",
    )._repr_html_()
    assert "<details><summary>Thought</summary><div>hm</div></details>" in html
    assert "It is &lt;warm&gt;.<br>Bring a hat." in html
    assert "<code>GetWeather</code><dl><dt>city</dt><dd>&quot;Oslo&quot;</dd><dt>days</dt><dd>[1, 2]</dd></dl>" in html
    assert "cut at 25 tokens (max_new_tokens)" in html
    assert (
        "1 canvas · 40 steps · 25 tokens · 0.6 tokens/forward · 19 tokens/s · first canvas in 1.32 s · seed 7" in html
    )
    assert "<script>" not in html
    assert "the model broke" in reply(finish_reason="error", error="the model broke")._repr_html_()
    assert "(empty reply)" in reply(finish_reason="empty")._repr_html_()


def test_what_is_doubted_is_marked_where_it_stands():
    raw = "<|channel>thought\nwarm<channel|>warm and warm"
    second = raw.rindex("warm")
    doubt = Doubt(start=second, end=second + 4, text="warm", log_prob=-3.0)
    html = reply(text="warm and warm", raw=raw, reasoning="warm", doubts=(doubt,))._repr_html_()
    assert 'warm and <mark title="the causal mode gives this a probability of 0.05">warm</mark></div>' in html
    assert "redraft-raw" not in Tags(html).text
    # In a call: as it was written.
    call = ToolCall(name="f", arguments={"city": "Oslo"})
    raw = '<|tool_call>call:f{city:<|"|>Oslo<|"|>}<tool_call|>'
    doubt = Doubt(start=raw.index("Oslo"), end=raw.index("Oslo") + 4, text="Oslo", log_prob=-3.0)
    html = reply(raw=raw, tool_calls=(call,), doubts=(doubt,))._repr_html_()
    assert re.search(r"call:f\{city:[^O]*<mark[^>]*>Oslo</mark>", html)


def test_nothing_that_a_model_writes_is_markup(engine):
    everywhere = reply(
        text=HOSTILE,
        raw=HOSTILE,
        reasoning=HOSTILE,
        tool_calls=(ToolCall(name=HOSTILE, arguments={HOSTILE: {HOSTILE: [HOSTILE]}}),),
        doubts=(Doubt(start=0, end=9, text=HOSTILE[:9], log_prob=-1.0),),
        finish_reason="error",
        error=HOSTILE,
        ignored=(HOSTILE,),
        reel=reel_of(drafts(4, 2, 1), lambda token_id: HOSTILE),
    )._repr_html_()
    tags = Tags(everywhere).tags
    known = {"div", "style", "details", "summary", "mark", "code", "dl", "dt", "dd", "br", "script"}
    assert {tag for tag, _ in tags} == known
    assert [tag for tag, _ in tags].count("script") == 1
    assert {name for _, attributes in tags for name in attributes} == {"class", "title", "data-redraft"}
    everywhere.encode()
    assert not set(map(chr, range(9))) & set(everywhere)
    assert frames_in(everywhere)[0]["set"][0][1] == HOSTILE


def test_nothing_is_fetched(written):
    html = written._repr_html_()
    assert not re.search(r"https?:|//[a-z]|url\(|@import|fetch|XMLHttp|\bsrc\b|\bhref\b|import\(", html)


def test_without_its_script_a_reply_still_stands(written):
    """A notebook that is not trusted drops scripts and styles."""
    html = re.sub(r"<(script|style)>.*?</\1>", "", written._repr_html_(), flags=re.DOTALL)
    assert "AddToPlaylist" in html
    assert "late night jazz" in unescape(html)
    assert f"{written.stats.denoising_steps} steps" in html
    assert "<input" not in html, "nothing is there that would do nothing"


def test_the_drafts_are_those_of_the_stream(engine, written):
    *events, last = engine.stream(SENTENCE, seed=0)
    drawn = [event for event in events if isinstance(event, Draft)]
    frames = frames_in(written._repr_html_())
    assert len(frames) == len(drawn) == written.stats.denoising_steps
    shown: dict[int, str] = {}
    for frame, draft in zip(frames, drawn, strict=True):
        shown |= dict(frame["set"])
        assert [shown[place] for place in range(frame["length"])] == engine.pieces(draft.token_ids)
        assert frame["accepted"] == f"{int(''.join(str(int(x)) for x in draft.accepted), 2):012x}"
    assert last.reel == written.reel
    assert last == dataclasses.replace(written, stats=last.stats, reel=None)


def test_who_has_drafts(engine):
    for made in (
        engine.infill("at [[...]] o'clock", seed=0, max_new_tokens=24),
        engine.edit("play jazz", (5, 9), "rock", seed=0, max_new_tokens=24),
        *engine.generate_batch([SENTENCE, "play jazz"]),
    ):
        assert len(frames_in(made._repr_html_())) == made.stats.denoising_steps
    causal = engine.generate("play jazz", seed=0, mode="autoregressive")
    assert causal.reel is None
    assert "<script>" not in causal._repr_html_()


def test_an_accelerator_is_not_asked_for_drafts(engine, monkeypatch):
    """There each would cost a wait; a stream, which has waited, shows them."""
    monkeypatch.setattr(engine._loop, "exact", False)
    monkeypatch.setattr("redraft.engine.loop._draft", lambda *_: pytest.fail("a draft was made"))
    assert engine.generate("play jazz", seed=0, max_denoising_steps=3).reel is None
    assert engine.generate_batch(["play jazz"])[0].reel is None


def test_who_moves_requests_for_others_keeps_no_drafts(engine):
    """As the server does, with drafts for a client and without."""
    running = engine.running()
    for drafts in (True, False):
        running.add(engine.prepare("play jazz", seed=0, max_denoising_steps=3), drafts=drafts)
        events = []
        while not (events and isinstance(events[-1], Generation)):
            events += [event for _, event in running.step()]
        assert any(isinstance(event, Draft) for event in events) is drafts
        assert events[-1].reel is None


def test_drafts_are_in_no_json_and_in_no_comparison(written):
    bare = dataclasses.replace(written, reel=None)
    assert written.reel is not None
    assert written == bare
    assert written.to_dict() == bare.to_dict()
    assert "reel" not in written.to_dict()
    assert list(bare.to_dict()) == [field.name for field in dataclasses.fields(Generation) if field.name != "reel"]
    assert pickle.loads(pickle.dumps(written)).reel == copy.deepcopy(written).reel == written.reel
    assert sum(map(len, written.reel.canvases)) < 4096


def test_a_notebook_stays_small():
    long = reel_of(drafts(256, 48, 8))
    html = reply(text="x", reel=long)._repr_html_()
    assert len(html) < MOST_BYTES + 16 * 1024
    kept = len(frames_in(html))
    assert 48 < kept < 8 * 48
    assert f"Only the first {kept} of 384 steps are kept here." in html
    whole = reply(text="x", reel=reel_of(drafts(256, 20, 2)))._repr_html_()
    assert "Only the first" not in whole


def test_equal_replies_are_equal_html_and_others_have_other_names(written):
    name = re.compile(r'data-redraft="(\w+)"')
    assert written._repr_html_() == written._repr_html_()
    other = dataclasses.replace(written, seed=1)
    assert name.search(other._repr_html_())[1] != name.search(written._repr_html_())[1]


def test_replies_and_drafts_are_short_in_a_console(engine, written):
    assert str(written).startswith('AddToPlaylist(artist="')
    assert repr(written).startswith("Generation(tool_calls=['AddToPlaylist(")
    assert len(repr(written)) < 320
    assert "\n" not in repr(reply(text="a\nb" * 500))
    assert str(reply(text="hello")) == "hello"
    first, *_, commit, _ = engine.stream(SENTENCE, seed=0)
    assert re.fullmatch(
        r"Draft\(canvas=0, step=0, temperature=0.\d+, \d+ of 48 accepted, mean entropy .* nats\)", repr(first)
    )
    assert isinstance(commit, Commit)
