"""Several adapters beside one model: each request as if its adapter were alone, whatever else is under way."""

from __future__ import annotations

import gc
import weakref

import pytest

import redraft
from checkpoints import write_checkpoint
from redraft import Generation
from redraft.adapters.adapter import Adapter
from redraft.adapters.beside import beside
from redraft.adapters.files import write_adapter
from redraft.adapters.settings import Settings
from redraft.cli import main
from redraft.core.errors import CheckpointError, ModelNotFoundError, OptionError
from tuned import FIRST, JAZZ, random_adapter, write_two

NAMES = (None, "first", "second")
ASKED = (
    {"seed": 1, "logprobs": True},
    {"seed": 2, "mode": "autoregressive", "temperature": 0.7, "max_new_tokens": 20},
    {"seed": 3, "mode": "verified", "max_new_tokens": 20},
    {"seed": 4, "response_format": {"type": "choice", "choices": ["yes", "no", "maybe"]}, "logprobs": True},
)
QUESTION = redraft.choice("Which is it?", {"music": None, "weather": None, "food": None})


@pytest.fixture(scope="module")
def directories(mini, tmp_path_factory):
    return write_two(mini.model, tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def both(directories):
    return redraft.load("mini", dtype="float32", threads=1, adapters=directories)


@pytest.fixture(scope="module")
def alone(mini, directories):
    """What each writes where nothing stands beside it, by name and request."""
    engines = {None: mini} | {
        name: redraft.load("mini", dtype="float32", threads=1, adapter=place) for name, place in directories.items()
    }
    said = {(name, n): plain(engines[name].generate(JAZZ, **ASKED[n])) for name in NAMES for n in range(len(ASKED))}
    return said | {(name, "decided"): decided(engines[name]) for name in NAMES}


def of(engine, name):
    return engine if name is None else engine.adapters[name]


def plain(generation: Generation):
    return generation.raw, generation.finish_reason, generation.logprobs, generation.token_ids


def decided(engine):
    [answer] = engine.decide("play some jazz", [QUESTION]).answers
    return answer.probabilities


def all_of_it(engine):
    """What everything writes when it is under way at once."""
    running, wanted = engine.running(), {}
    for n, options in enumerate(ASKED):
        for name in NAMES:
            prepared = of(engine, name).prepare(JAZZ, **options)
            wanted[id(prepared)] = (name, n), prepared
            running.add(prepared, drafts=False)
    found = {}
    for _ in range(4000):
        for prepared, event in running.step():
            if isinstance(event, Generation):
                found[wanted[id(prepared)][0]] = plain(event)
        if len(found) == len(wanted):
            return found
    raise AssertionError("they never ended")


def test_each_request_is_what_it_would_be_alone(both, alone):
    assert len({alone[name, 0] for name in NAMES}) == len({alone[name, "decided"] for name in NAMES}) == 3
    expected = {key: said for key, said in alone.items() if key[1] != "decided"}
    assert all_of_it(both) == expected
    assert {(name, 0): plain(of(both, name).generate(JAZZ, **ASKED[0])) for name in NAMES}.items() <= expected.items()
    assert {name: decided(of(both, name)) for name in NAMES} == {name: alone[name, "decided"] for name in NAMES}
    filled = [of(both, name).infill("It is [[...]] o'clock.", seed=0, max_new_tokens=30).raw for name in NAMES]
    assert all(text.endswith("o'clock.") for text in filled)


def test_what_was_encoded_with_one_is_not_found_by_another(both):
    turns = [{"role": "user", "content": "find the game Myst"}]
    first = both.generate(turns, seed=0)
    turns += [{"role": "assistant", "content": first.text or "done"}, {"role": "user", "content": "and Riven"}]
    cached = [of(both, name).generate(turns, seed=0, max_new_tokens=8).stats.cached_tokens for name in (None, "first")]
    assert cached[0] > 0 == cached[1]
    turns += [{"role": "assistant", "content": "done"}, {"role": "user", "content": "and Exile"}]
    assert both.adapters["first"].generate(turns, seed=0, max_new_tokens=8).stats.cached_tokens > 0
    assert both.adapters["second"].generate(turns, seed=0, max_new_tokens=8).stats.cached_tokens == 0
    # Typed questions keep what they share as well.
    both.decide("a new state", [QUESTION])
    assert both.decide("a new state", [QUESTION]).stats.cached_tokens > 0
    assert both.adapters["first"].decide("a new state", [QUESTION]).stats.cached_tokens == 0


def test_unloaded_under_way(both, directories, alone):
    both.adapters.load("third", directories["first"])
    engine = both.adapters["third"]
    kept = both.prefixes.nbytes
    variant = weakref.ref(engine.admission.variant)
    prepared = engine.prepare(JAZZ, **ASKED[0])
    stream = engine.stream(JAZZ, **ASKED[0])
    next(stream)
    both.adapters.unload("third")
    del engine
    assert "third" not in both.adapters
    both.adapters.load("third", directories["second"])
    *_, last = stream
    assert plain(last) == alone["first", 0]
    running, ended = both.running(), []
    running.add(prepared, drafts=False)
    while not ended:
        ended = [event for _, event in running.step() if isinstance(event, Generation)]
    assert plain(ended[0]) == alone["first", 0]
    assert both.prefixes.nbytes == kept, "nothing is kept of what is gone"
    assert plain(both.adapters["third"].generate(JAZZ, **ASKED[0])) == alone["second", 0]
    both.adapters.unload("third")
    del prepared, running, stream, ended
    gc.collect()
    assert variant() is None


def test_the_model_itself_stays_as_it_was(mini):
    modules = {name: id(module) for name, module in mini.model.named_modules()}
    runner, hooks = object(), len(mini.model.backbone._forward_pre_hooks)
    mini.model.run_by(runner)
    try:
        other = beside(mini.model, random_adapter(mini.model, *FIRST))
        assert mini.model.runner is runner
        assert other.runner is None
    finally:
        mini.model.run_by(None)
    assert {name: id(module) for name, module in mini.model.named_modules()} == modules
    own = {tensor.data_ptr() for tensor in mini.model.parameters()}
    assert own < {tensor.data_ptr() for tensor in other.parameters()}
    # What it does not change is the same module, and what it changes stands behind it.
    assert other.backbone.embed_tokens is mini.model.backbone.embed_tokens
    assert other.backbone.layers[0].experts.base is mini.model.backbone.layers[0].experts
    apart = random_adapter(mini.model, ("attention",), 0, 0.1)
    apart.encode = {}
    other = beside(mini.model, apart)
    assert len(mini.model.backbone._forward_pre_hooks) == hooks
    assert len(other.backbone._forward_pre_hooks) == hooks + 1


@pytest.mark.parametrize("name", ["", " ", "a b", "-x", "a\n", "x" * 101, "ä", 5, None])
def test_names_that_are_none(both, directories, name):
    with pytest.raises(OptionError, match="name"):
        both.adapters.load(name, directories["first"])


def test_what_cannot_be_loaded(both, directories, tmp_path, monkeypatch):
    with pytest.raises(OptionError, match="already"):
        both.adapters.load("first", directories["first"])
    with pytest.raises(ModelNotFoundError, match="no directory"):
        both.adapters.load("new", tmp_path / "nowhere")
    with pytest.raises(ModelNotFoundError, match="no adapter 'new'"):
        both.adapters.unload("new")
    with pytest.raises(OptionError, match="single"):
        redraft.load("mini", adapter=directories["first"], adapters=directories)
    with pytest.raises(OptionError, match="there is an adapter"):
        beside(both.adapters["first"].model, random_adapter(both.model, *FIRST))
    model = redraft.load_model(write_checkpoint(tmp_path / "other"))
    write_adapter(Adapter.fresh(Settings(targets=["attention"]), model.config), model.config, tmp_path / "shape")
    with pytest.raises(CheckpointError, match="shape|does not have"):
        both.adapters.load("new", tmp_path / "shape")
    base = random_adapter(both.model, ("attention",), 0, 0.1)
    base.base = {**base.base, "family": "0" * 16}
    write_adapter(base, both.model.config, tmp_path / "base")
    with pytest.raises(CheckpointError, match="another base"):
        both.adapters.load("new", tmp_path / "base")
    monkeypatch.setattr(both, "_request_bytes", 2 * both.adapters.nbytes + 1000)
    with pytest.raises(OptionError, match=r"takes 0\.\d MB, and 0\.0 MB are free"):
        both.adapters.load("new", directories["first"])
    assert set(both.adapters) == {"first", "second"}
    assert both.request_bytes == both.adapters.nbytes + 1000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["adapter"], "NAME=DIR"),
        (["x="], "NAME=DIR"),
        (["=dir"], "name"),
        (["mini=dir"], "own name"),
        (["x=/", "x=/tmp"], "twice"),
        (["x=/nowhere/at/all"], "no directory"),
    ],
)
def test_a_server_that_cannot_start_says_why_in_one_line(words, said, capsys):
    flags = [part for word in words for part in ("--adapter", word)]
    assert main(["serve", "--no-auth", "--threads", "1", *flags]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.startswith("redraft: ")
    assert err.count("\n") == 1


def test_a_directory_that_is_none_is_not_allowed(capsys):
    assert main(["serve", "--no-auth", "--allow-adapters", "/nowhere/at/all"]) == 2
    assert "--allow-adapters" in capsys.readouterr().err
