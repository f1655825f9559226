"""Reads: what a canvas that is never committed says, alone and in company, with and without what others have left."""

from __future__ import annotations

import math

import pytest
import torch

import redraft
from redraft.core.errors import ContextLengthError, GenerationError, PromptError
from redraft.core.events import Final
from redraft.core.reads import NOISE, CanvasRead, CausalRead, Slot
from redraft.engine.canvas import CanvasNoise, new_canvas
from redraft.engine.fingerprint import fingerprint
from redraft.engine.prefix import PrefixCache
from redraft.engine.read import ReadList, pieces
from redraft.engine.reading import ReadLoop
from redraft.model.cache import KVCache, SequenceCache

WORDS = "play some jazz by Nina Simone on Spotify and then book a table for two in Paris tomorrow evening"


@pytest.fixture(scope="module")
def engine():
    return redraft.load("mini", dtype="float32", threads=1)


@pytest.fixture(autouse=True)
def _fresh(engine):
    engine.prefixes = PrefixCache()


def prompt_of(engine, text=WORDS):
    return tuple(engine.tokenize(text))


def canvas_read(engine, text=WORDS, **changes):
    given = {"prompt": prompt_of(engine, text), "canvas": (NOISE, 5, *[1] * 14), "seed": 7,
             "slots": (Slot(position=0, token_ids=(519, 545, 9)),)}  # fmt: skip
    return CanvasRead(**(given | changes))


def by_hand(engine, read, draw=0):
    """[L, V] log-probabilities of the canvas that a reply would begin with, had it these pins."""
    model = engine.model
    noise = CanvasNoise(read.seed, draw, len(read.canvas), model.config.vocab_size, model.device)
    state = new_canvas(noise, 1, initial=[], pinned=list(read.canvas))
    cache = SequenceCache(model.config, model.dtype, model.device)
    begun = 0
    for end in pieces(len(read.prompt), read.kept):
        model.encode(torch.tensor(read.prompt[begun:end])[None], KVCache([cache]))
        begun = end
    return torch.log_softmax(model.denoise(state.tokens[None], KVCache([cache]))[0], -1)


def test_a_slot_is_the_softmax_of_the_engines_own_logits(engine):
    read = canvas_read(engine)
    (reading,) = engine.read([read])
    table = by_hand(engine, read)
    labels = [519, 545, 9]
    assert reading.draws[0].slots[0].log_probs == pytest.approx(table[0, labels].tolist(), abs=1e-5)
    among = torch.softmax(torch.tensor(reading.draws[0].slots[0].log_probs), -1)
    assert torch.allclose(among, torch.softmax(table[0, labels], -1), atol=1e-6, rtol=0)
    assert reading.draws[0].slots[0].argmax == int(table[0].argmax())
    assert (reading.prompt_tokens, reading.cached_tokens) == (len(read.prompt), 0)
    assert reading.positions == len(read.prompt) + 16
    # The prompt's last piece and the canvas share one.
    assert reading.forwards == 1


def test_a_canvas_of_several_slots_is_the_same_built_by_hand(engine):
    line = engine.encode("1: A\n2: B\n3: C")
    held = tuple(NOISE if i % 4 == 2 else token for i, token in enumerate(line))
    slots = tuple(Slot(position=place, token_ids=(519, 545)) for place, token in enumerate(held) if token == NOISE)
    assert len(slots) == 3
    read = canvas_read(engine, canvas=(*held, 5, *[1] * (15 - len(held))), slots=slots, draws=(2,))
    (reading,) = engine.read([read])
    table = by_hand(engine, read, draw=2)
    for slot, found in zip(slots, reading.draws[0].slots, strict=True):
        assert found.log_probs == pytest.approx(table[slot.position, [519, 545]].tolist(), abs=1e-5)


def test_a_canvas_of_several_slots_is_the_same_through_initial_canvas_and_pins(engine):
    line = engine.encode("1: A\n2: B\n3: C")
    held = tuple(NOISE if i % 4 == 2 else token for i, token in enumerate(line))
    canvas = (*held, 5, *[1] * (15 - len(held)))
    places = [place for place, token in enumerate(canvas) if token == NOISE]
    read = canvas_read(engine, canvas=canvas, slots=tuple(Slot(position=p, token_ids=(519,)) for p in places))
    (reading,) = engine.read([read])
    model = engine.model
    start = CanvasNoise(read.seed, 0, len(canvas), model.config.vocab_size, model.device).start(0).tolist()
    by_hand = [start[place] if token == NOISE else token for place, token in enumerate(canvas)]
    how = {"seed": read.seed, "tools": None, "initial_canvas": by_hand, "canvas_length": len(canvas),
           "max_new_tokens": len(canvas), "t_max": 1.0, "t_min": 1.0, "max_denoising_steps": 1}  # fmt: skip
    found = reading.draws[0].slots
    free = next(engine.stream(list(read.prompt), **how))
    assert [free.entropy_nats[place] for place in places] == pytest.approx([s.entropy_nats for s in found], abs=1e-4)
    assert [free.token_ids[place] for place in places] == [slot.argmax for slot in found]
    held = next(engine.stream(list(read.prompt), pinned=[p for p in range(len(canvas)) if p not in places], **how))
    # A reply with pins bars its end before the last of them: only there may it differ.
    for place, slot in zip(places, found, strict=True):
        assert held.token_ids[place] == slot.argmax or slot.argmax in engine.defaults.end_ids


def test_draws_differ_and_are_the_same_again(engine):
    read = canvas_read(engine, draws=(0, 1, 2))
    (first,), (again,) = engine.read([read]), engine.read([read])
    assert first.draws == again.draws
    assert len({draw.slots[0].log_probs for draw in first.draws}) == 3
    (alone,) = engine.read([canvas_read(engine, draws=(2,))])
    assert alone.draws[0].slots[0].log_probs == pytest.approx(first.draws[2].slots[0].log_probs, abs=1e-4)
    (other,) = engine.read([canvas_read(engine, draws=(2,), seed=8)])
    assert other.draws[0] != alone.draws[0]


def several(engine):
    state = engine.tokenize("what is the weather in Rome tomorrow")
    kept = (len(state) - 3,)
    texts = (WORDS, "rate this book four stars", "find me a film for tonight")
    reads = [canvas_read(engine, text) for text in texts]
    reads += [canvas_read(engine, prompt=(*state, *engine.encode(text)), kept=kept) for text in texts]
    reads += [CausalRead(prompt=(*state, 5), kept=kept, token_ids=(519,), continuations=((7, 8, 9), (10,)))]
    return [*reads, canvas_read(engine, canvas=(NOISE,) * 48, slots=())]


def test_a_read_is_the_same_alone_and_in_company(engine):
    reads = several(engine)
    alone = []
    for read in reads:
        engine.prefixes = PrefixCache()
        (reading,) = engine.read([read])
        assert reading.cached_tokens == 0
        alone.append(reading.draws)
    engine.prefixes = PrefixCache()
    together = engine.read(reads)
    assert [reading.draws for reading in together] == alone
    # Those that share a beginning have shared it, and no bit has changed.
    assert [reading.cached_tokens > 0 for reading in together] == [False] * 4 + [True] * 3 + [False]
    assert [reading.draws for reading in engine.read(reads[::-1])] == alone[::-1]


@pytest.mark.parametrize("length", [3, 300, 700])
@pytest.mark.parametrize("draws", [(0,), (1, 4, 5)])
def test_a_canvas_that_shares_its_prompts_forward_reads_the_same(engine, length, draws):
    words = (prompt_of(engine) * 40)[:length]
    read = canvas_read(engine, prompt=words, draws=draws)
    (joined,) = engine.read([read])
    (apart,) = engine.read([canvas_read(engine, prompt=words, kept=(length,), draws=draws)])
    assert apart.forwards == joined.forwards + 1
    for mine, theirs in zip(joined.draws, apart.draws, strict=True):
        assert mine.slots[0].log_probs == pytest.approx(theirs.slots[0].log_probs, abs=2e-4)
    assert engine.read([read])[0].draws == joined.draws


def test_worker_processes_say_the_same(engine):
    reads = several(engine)
    there = redraft.load("mini", dtype="float32", threads=2, workers=2)
    running = there.running()
    prepared = [there.prepare_reads([read]) for read in reads]
    for one in prepared:
        running.add(one, drafts=False)
    ended = {}
    while len(ended) < len(prepared):
        ended |= {id(one): event for one, event in running.step() if isinstance(event, Final)}
    got = [ended[id(one)] for one in prepared]
    running.close()
    assert [event.finish_reason for event in got] == ["stop"] * len(reads)
    assert [event.readings[0].draws for event in got] == [reading.draws for reading in engine.read(reads)]


def test_a_batch_says_nearly_the_same(engine):
    reads = several(engine)
    under_way = ReadList(reads=tuple(reads))
    loop, prefixes = ReadLoop(engine.model, exact=False), PrefixCache()
    while not under_way.finished:
        loop.tick(under_way, prefixes)
    for found, expected in zip(under_way.result().readings, engine.read(reads), strict=True):
        for mine, theirs in zip(found.draws, expected.draws, strict=True):
            for slot, wanted in zip(mine.slots, theirs.slots, strict=True):
                assert slot.log_probs == pytest.approx(wanted.log_probs, abs=1e-3)
            assert mine.log_weights == pytest.approx(theirs.log_weights, abs=1e-3)
    # The first behind the common beginning runs alone, the others behind it together.
    shared = under_way.result().readings[3:6]
    assert [reading.cached_tokens > 0 for reading in shared] == [False, True, True]


def test_what_is_held_stays_while_the_rest_is_denoised_further(engine):
    read = canvas_read(engine, canvas=(NOISE, NOISE, 5, *[1] * 13), slots=(Slot(position=0, token_ids=(519, 545)),))
    (once,), (further,) = engine.read([read]), engine.read([canvas_read(engine, canvas=read.canvas, steps=4)])
    assert (once.forwards, further.forwards) == (1, 5)
    assert further.draws[0].slots[0].entropy_nats != once.draws[0].slots[0].entropy_nats
    assert math.isfinite(sum(further.draws[0].slots[0].log_probs))


def test_texts_that_end_early_are_summed(engine):
    prompt, text = prompt_of(engine), (4, 9, 11)
    endings = ((20, 21), (), (11, 30, 31))
    (reading,) = engine.read([CausalRead(prompt=prompt, continuations=(text,), endings=(endings,))])
    ways = [(20,), (21,), (4, 9, 11), (4, 9, 30), (4, 9, 31)]
    (apart,) = engine.read([CausalRead(prompt=prompt, continuations=tuple(ways))])
    total = math.log(math.fsum(map(math.exp, apart.draws[0].log_weights)))
    assert reading.draws[0].log_weights[0] == pytest.approx(total, abs=1e-5)
    with pytest.raises(PromptError, match="endings"):
        engine.read([CausalRead(prompt=prompt, continuations=(text,), endings=(endings[:2],))])


def test_the_cache_is_left_as_it_was(engine):
    before = engine.generate(WORDS, seed=3).token_ids
    engine.read(several(engine))
    engine.prefixes = PrefixCache()
    assert engine.generate(WORDS, seed=3).token_ids == before


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"prompt": ()}, "needs a prompt"),
        ({"prompt": (5, 99_999)}, "99999"),
        ({"canvas": (NOISE,) * 49}, "1 to 48 positions"),
        ({"canvas": ()}, "1 to 48 positions"),
        ({"canvas": (NOISE, -3)}, "-3"),
        ({"slots": (Slot(position=16, token_ids=(1,)),)}, "slot 16"),
        ({"slots": (Slot(position=0, token_ids=(-1,)),)}, "-1"),
        ({"kept": (9, 3)}, "kept"),
        ({"kept": (10_000,)}, "kept"),
        ({"draws": ()}, "a draw"),
    ],
)
def test_what_cannot_be_read_is_refused(engine, changes, reason):
    with pytest.raises(PromptError, match=reason):
        engine.read([canvas_read(engine, **changes)])


def test_a_prompt_beyond_the_context_is_refused(engine):
    with pytest.raises(ContextLengthError):
        engine.read([canvas_read(engine, prompt=(5,) * 2040)])


def test_no_reads_are_no_readings(engine):
    assert engine.read([]) == []


def test_what_is_no_number_is_told(engine, tmp_path):
    broken = redraft.load("mini", dtype="float32", threads=1)
    with torch.no_grad():
        broken.model.backbone.layers[0].self_attn.q_proj.weight.fill_(float("nan"))
    with pytest.raises(GenerationError, match="not finite"):
        broken.read([canvas_read(broken)])


def test_many_draws_share_forwards_of_a_bounded_size(engine, monkeypatch):
    monkeypatch.setattr("redraft.engine.reading.TOGETHER", 3)
    read = canvas_read(engine, draws=tuple(range(8)), steps=2)
    seen = []
    denoise = type(engine.model).denoise_hidden
    monkeypatch.setattr(
        type(engine.model),
        "denoise_hidden",
        lambda model, canvas, *more: seen.append(len(canvas)) or denoise(model, canvas, *more),
    )
    (reading,) = engine.read([read])
    assert seen == [3, 3, 3, 3, 2, 2]
    assert len({draw.slots[0].log_probs for draw in reading.draws}) == 8
    assert reading.positions == len(read.prompt) + 8 * 2 * 16
    monkeypatch.undo()
    for mine, theirs in zip(reading.draws, engine.read([read])[0].draws, strict=True):
        assert mine.slots[0].log_probs == pytest.approx(theirs.slots[0].log_probs, abs=1e-4)


def test_other_weights_have_another_fingerprint(engine):
    again = redraft.load("mini", dtype="float32", threads=1)
    assert again.info.fingerprint == engine.info.fingerprint != ""
    quantised = redraft.load("mini", quantize="int8", threads=1)
    assert quantised.info.fingerprint != engine.info.fingerprint
    before = fingerprint(quantised.model)
    matrix = next(m.matrix for m in quantised.model.modules() if hasattr(m, "matrix"))
    matrix.data.add_(1)
    assert fingerprint(quantised.model) != before


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="no oneDNN here")
def test_what_a_library_has_packed_counts_by_its_shape():
    """oneDNN's own layout has no strides, and nothing looks into it but itself."""
    model = torch.nn.Module()
    model.register_buffer("packed", torch.ones(8, 8).to_mkldnn())
    model.register_buffer("scale", torch.ones(8))
    before = fingerprint(model)
    model.scale[0] = 2.0
    assert fingerprint(model) != before
