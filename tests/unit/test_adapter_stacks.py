"""Adapters side by side in one forward, as a GPU's captured step has them: on a CPU the same work is called."""

from __future__ import annotations

import gc

import pytest
import torch

import redraft
from redraft import Generation
from redraft.adapters.attach import attach
from redraft.adapters.beside import beside
from redraft.adapters.files import write_adapter
from redraft.adapters.stacks import Stacks
from redraft.checkpoint.load import load_model
from redraft.checkpoint.locate import BUNDLED
from redraft.core.errors import OptionError
from redraft.engine.engine import LocalEngine
from redraft.placement.canvas_cache import CanvasCache, DenoiseStatic
from tuned import JAZZ, random_adapter

SIZES = {
    "one": (("attention", "dense"), 0, 0.2),
    "two": (("attention",), 0, 0.4),
    "own": (("attention", "router"), 1, 0.1),
}
NAMES = (None, *SIZES)
OPTIONS = {"seed": 0, "tools": None, "handover_steps": 0, "max_new_tokens": 48}
QUESTION = redraft.choice("Which is it?", {"music": None, "weather": None, "food": None})


@pytest.fixture(scope="module")
def directories(mini, tmp_path_factory):
    found = {name: tmp_path_factory.mktemp("stacks") / name for name in SIZES}
    for name, (targets, seed, size) in SIZES.items():
        write_adapter(random_adapter(mini.model, targets, seed, size), mini.model.config, found[name])
    return found


@pytest.fixture(scope="module")
def together(directories):
    """An engine whose requests share forwards, each of them one launch."""
    engine = LocalEngine(load_model(BUNDLED / "mini"), name="mini", directory=BUNDLED / "mini", exact=False)
    for name, place in directories.items():
        engine.adapters.load(name, place)
    return engine


def of(engine, name):
    return engine if name is None else engine.adapters[name]


def variant(engine, name):
    return engine.adapters[name].admission.variant


def test_rows_of_one_forward_have_different_adapters(mini):
    adapters = [random_adapter(mini.model, *SIZES[name]) for name in ("one", "two")]
    stacks = Stacks(mini.model, places=3, rank=8)
    places = [stacks.place(adapter) for adapter in adapters]
    assert places == [1, 2]
    generator = torch.Generator().manual_seed(1)
    ids, canvas = (torch.randint(4096, (4, length), generator=generator) for length in (20, 48))
    shared = mini.model.new_cache(4)
    for sequence, place in zip(shared.sequences, [0, *places, 0], strict=True):
        sequence.adapter = place
    causal = stacks.model.encode(ids, shared)
    found = stacks.model.denoise_hidden(canvas, shared)
    static = CanvasCache(mini.model.config, 4, 64, mini.model.dtype, mini.model.device)
    for row, sequence in enumerate(shared.sequences):
        static.fill(row, sequence)
    at_fixed = stacks.model.denoise_with(canvas, static.lengths, DenoiseStatic(static))
    torch.testing.assert_close(at_fixed, found, atol=2e-4, rtol=1e-4)
    for row, model in enumerate([mini.model, *(beside(mini.model, adapter) for adapter in adapters), mini.model]):
        cache = model.new_cache(1)
        expected = model.encode(ids[row : row + 1], cache)
        torch.testing.assert_close(causal[row : row + 1], expected, atol=2e-4, rtol=1e-4)
        expected = model.denoise_hidden(canvas[row : row + 1], cache)
        torch.testing.assert_close(found[row : row + 1], expected, atol=2e-4, rtol=1e-4)
    # Far more than what is tolerated lies between them.
    assert float((found[0] - found[1]).abs().max()) > 0.05 < float((found[1] - found[2]).abs().max())


def test_what_a_step_reads_stays_where_it_is(mini):
    """A captured step is told of an adapter that comes later, or goes, by nothing but the numbers at its addresses."""
    stacks = Stacks(mini.model, places=1, rank=8)
    static = CanvasCache(mini.model.config, 2, 64, mini.model.dtype, mini.model.device)
    linears = [module for module in stacks.model.modules() if hasattr(module, "place")]
    where = [module.a.data_ptr() for module in linears] + [module.b.data_ptr() for module in linears]
    canvas = torch.randint(4096, (2, 48), generator=torch.Generator().manual_seed(1))

    def step():
        return stacks.model.denoise_with(canvas, static.lengths, DenoiseStatic(static))

    before, index = step(), static.adapters
    place = stacks.place(random_adapter(mini.model, *SIZES["one"]))
    assert torch.equal(step(), before)
    static.adapters[1] = place
    after = step()
    # Rows of a batch share the experts' products.
    torch.testing.assert_close(after[0], before[0], atol=2e-4, rtol=1e-4)
    assert not torch.allclose(after[1], before[1], atol=0.05)
    assert static.adapters is index
    assert where == [module.a.data_ptr() for module in linears] + [module.b.data_ptr() for module in linears]
    assert not stacks.takes(random_adapter(mini.model, *SIZES["two"])), "there was one place"
    stacks.free(place)
    assert stacks.takes(random_adapter(mini.model, *SIZES["two"]))
    assert stacks.place(random_adapter(mini.model, *SIZES["two"])) == place
    static.adapters[1] = 0
    assert torch.equal(step(), before)


def test_what_has_no_room_in_them(mini, directories):
    tuned = load_model(BUNDLED / "mini")
    attach(tuned, random_adapter(mini.model, ("attention",), 0, 0.1))
    engine = LocalEngine(tuned, name="mini", directory=BUNDLED / "mini", exact=False)
    with pytest.raises(OptionError, match="there is an adapter"):
        engine.adapters.load("new", directories["two"])
    stacks = Stacks(mini.model, places=2, rank=3)
    assert not stacks.takes(random_adapter(mini.model, ("attention",), 0, 0.1)), "rank 4"
    stacks = Stacks(mini.model, places=2, rank=4)
    for targets in (("experts",), ("router",), ("self_conditioning",)):
        assert not stacks.takes(random_adapter(mini.model, targets, 0, 0.1))
    apart = random_adapter(mini.model, ("attention",), 0, 0.1)
    apart.encode = {}
    assert not stacks.takes(apart)


def test_requests_of_several_share_launches(mini, together, directories):
    alone = {None: mini} | {name: mini.adapters.load(name, place) for name, place in directories.items()}
    modes = (OPTIONS, OPTIONS | {"mode": "autoregressive", "temperature": 0.0, "max_new_tokens": 8})
    expected = {(name, n): alone[name].generate(JAZZ, **modes[n]).token_ids for name in NAMES for n in range(2)}
    assert len(set(expected.values())) > 3
    one, two, own = (variant(together, name) for name in SIZES)
    assert one.lane is two.lane is not own.lane
    assert (one.place, two.place, own.place) == (1, 2, 0)
    running, names, found = together.running(), {}, {}
    for name in NAMES:
        for n, options in enumerate(modes):
            prepared = of(together, name).prepare(JAZZ, **options)
            names[id(prepared)] = (name, n), prepared
            running.add(prepared, drafts=False)
    while len(found) < len(names):
        for prepared, event in running.step():
            if isinstance(event, Generation):
                assert event.finish_reason != "error", event.error
                found[names[id(prepared)][0]] = event.token_ids
    assert found == expected
    shared = together._lanes._loops[one.lane].graphs._graphs
    assert max(shape.rows for shape in shared) == 2, "both in one"
    answers = [of(together, name).decide(JAZZ, [QUESTION]).answers[0].probabilities for name in NAMES]
    for name, probabilities in zip(NAMES, answers, strict=True):
        assert probabilities == pytest.approx(alone[name].decide(JAZZ, [QUESTION]).answers[0].probabilities, abs=1e-3)
    assert together.adapters["two"].decide(JAZZ, [QUESTION]).stats.cached_tokens > 0


def test_a_place_is_free_once_its_last_request_has_ended(together, directories):
    together.adapters.load("third", directories["one"])
    place = variant(together, "third").place
    assert place == 3
    stream = together.adapters["third"].stream(JAZZ, **OPTIONS)
    next(stream)
    together.adapters.unload("third")
    together.adapters.load("fourth", directories["two"])
    assert variant(together, "fourth").place == 4
    list(stream)
    del stream
    gc.collect()
    together.adapters.load("third", directories["one"])
    assert variant(together, "third").place == place
    for name in ("third", "fourth"):
        together.adapters.unload(name)
