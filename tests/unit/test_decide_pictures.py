"""Typed questions about pictures: the read behind a prompt that holds them is the engine's own, and what is refused."""

from __future__ import annotations

import base64
import json

import pytest
import torch
from PIL import Image

import redraft
from redraft.cli import main
from redraft.core.errors import DataError, ImageError, QuestionError
from redraft.core.reads import CanvasRead
from redraft.decide.files import read_state
from redraft.engine.canvas import CanvasNoise
from redraft.engine.prefix import PrefixCache
from redraft.engine.read import pieces
from redraft.model.images import placed_in
from redraft.sampler.noise import as_int64
from redraft.vision.patches import patches_of
from seeing import IMAGE
from seeing_engine import picture, png, shows, write_seeing_engine

ONE, OTHER = picture(), picture(seed=5)
TONE = {"type": "choice", "name": "tone", "instructions": "Which?", "choices": ["dark", "light", "red"]}
EDGE = {"type": "choice", "name": "edge", "instructions": "Edges?", "choices": ["some", "none"]}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write_seeing_engine(tmp_path_factory.mktemp("seeing"))


@pytest.fixture
def engine(directory):
    return redraft.load(directory, dtype="float32", threads=1)


def state(*parts):
    return [shows(*(parts or (ONE, "a scan")))]


def probabilities(decisions):
    return [answer.probabilities for answer in decisions.answers]


@pytest.mark.parametrize("talk", [False, True])
def test_a_read_is_a_step_of_the_engine_behind_the_same_prompt(engine, talk):
    given = [shows(ONE, "look"), {"role": "assistant", "content": "so"}, shows(OTHER)] if talk else state()
    rounds = engine.deciding(given, [TONE, EDGE], gate_nats=None, reader="canvas")
    reads = next(rounds)
    found = engine.decide(given, [TONE, EDGE], gate_nats=None, reader="canvas")
    for read, answer in zip(reads, found.answers, strict=True):
        assert isinstance(read, CanvasRead)
        assert read.prompt.count(IMAGE) == (130 if talk else 65)
        model, vision = engine.model, engine.sight._tower()
        shown = [ONE, OTHER] if talk else [ONE]
        soft = [vision(patches_of(pixels, vision.config, 70)) for pixels in shown]
        cache = model.new_cache()
        model.encode(torch.tensor([read.prompt]), cache, images=[placed_in(read.prompt, IMAGE, soft)])
        weights = torch.zeros(len(read.slots[0].token_ids))
        for draw in read.draws:
            noise = CanvasNoise(as_int64(read.seed), draw, len(read.canvas), model.config.vocab_size, model.device)
            canvas = torch.tensor(read.canvas)
            canvas = torch.where(canvas < 0, noise.start(0), canvas)[None]
            hidden = model.denoise_hidden(canvas, cache)
            logits = model.logits(hidden)[0, read.slots[0].position]
            weights += torch.softmax(logits.double(), -1)[list(read.slots[0].token_ids)].float()
        expected = (weights / weights.sum()).tolist()
        assert list(answer.probabilities) == pytest.approx(expected, abs=1e-5)
    rounds.close()


def test_what_is_asked_stands_in_the_message_that_shows(engine):
    [read] = next(engine.deciding(state(ONE, "a scan"), TONE, gate_nats=None))
    text = "".join(engine.pieces([token for token in read.prompt if token != IMAGE]))
    assert text.count("<|turn>user") == 1
    assert "<image|>a scan\n\nQuestion: Which?" in text
    [kept] = read.kept
    assert all(image.end <= kept for image in read.images)
    assert engine.decide(state(ONE), TONE).answers[0].value in TONE["choices"]
    [read] = next(engine.deciding(state(ONE, "a scan"), TONE, gate_nats=None, state="behind"))
    text = "".join(engine.pieces([token for token in read.prompt if token != IMAGE]))
    assert text.index("Question: Which?") < text.index("a scan")


@pytest.mark.parametrize(
    "options", [{}, {"joint": True}, {"reader": "causal"}, {"state": "behind"}, {"steps": 2}], ids=str
)
def test_alone_in_company_and_behind_what_is_kept(engine, options):
    options = {"gate_nats": None} | options
    questions = [TONE, EDGE, TONE | {"form": "text", "name": "words"}]
    engine.prefixes = PrefixCache(0)
    without = probabilities(engine.decide(state(), questions, **options))
    if not options.get("joint"):
        for question, expected in zip(questions, without, strict=True):
            assert probabilities(engine.decide(state(), question, **options)) == [expected]
    engine.prefixes = PrefixCache()
    for _ in range(2):
        again = engine.decide(state(png(ONE), "a scan"), questions, **options)
        assert probabilities(again) == without
    assert again.stats.cached_tokens > 0
    # As many tokens, and not the same.
    other = engine.decide(state(OTHER, "a scan"), questions, **options)
    assert probabilities(other) != without
    assert probabilities(engine.decide(state(OTHER, "a scan"), questions, **options)) == probabilities(other)


def test_a_picture_is_opened_once_for_all_questions(engine, monkeypatch):
    from redraft.engine import sight

    opened = []
    brought = sight.brought_to_size
    monkeypatch.setattr(sight, "brought_to_size", lambda *given: opened.append(1) or brought(*given))
    engine.decide(state(ONE, OTHER, "two"), [TONE | {"name": str(n)} for n in range(5)], gate_nats=None)
    assert len(opened) == 2


def test_in_another_process(directory):
    from functools import partial

    from redraft.engine.workers import RunningWorkers

    engine = redraft.load(directory, dtype="float32", threads=1)
    expected = engine.decide(state(), TONE, gate_nats=None)
    make = partial(redraft.load, directory, dtype="float32", threads=1)
    workers = RunningWorkers(engine, make, 1)
    try:
        workers.clear()
        rounds = engine.deciding(state(), TONE, gate_nats=None)
        workers.add(engine.prepare_reads(next(rounds)))
        while not (events := workers.step()):
            pass
        [(_, done)] = events
        with pytest.raises(StopIteration) as end:
            rounds.send(list(done.readings))
    finally:
        workers.close()
    assert probabilities(end.value.value) == probabilities(expected)


def test_pieces_go_around_pictures():
    assert pieces(1300, (1200,), [(10, 290)]) == [512, 1024, 1200, 1300]
    assert pieces(1300, (1200,), [(400, 680)]) == [400, 912, 1200, 1300]
    assert pieces(1300, (1200,), [(0, 1120)]) == [1120, 1200, 1300]
    assert pieces(1300, (1200,), [(3, 1123)]) == [3, 1123, 1200, 1300]
    assert pieces(1024, (), ()) == [512, 1024]


def test_what_is_refused(engine, mini, tmp_path):
    with pytest.raises(ImageError, match="this checkpoint holds no vision tower"):
        mini.decide(state(), TONE)
    with pytest.raises(ImageError, match="message 0, part 0: the picture is damaged"):
        engine.decide(state(png(ONE)[:200]), TONE)
    with pytest.raises(QuestionError, match="belong to the messages of user and tool"):
        engine.decide([{"role": "system", "content": shows(ONE)["content"]}, *state()], TONE)
    (tmp_path / "inner").mkdir()
    Image.fromarray(ONE).save(tmp_path / "outside.png")
    path = tmp_path / "inner" / "state.json"
    for name, fits in (("here.png", True), ("../outside.png", False)):
        path.write_text(json.dumps([{"role": "user", "content": [{"type": "image", "image": name}]}]))
        if fits:
            assert read_state(path)[0]["content"][0]["image"] == str((tmp_path / "inner" / name).resolve())
            continue
        with pytest.raises(DataError, match=r"state\.json: message 0, part 0: .* leads out of"):
            read_state(path)


def test_on_the_command_line(directory, tmp_path, capsys):
    Image.fromarray(ONE).save(tmp_path / "a.png")
    (tmp_path / "q.json").write_text(json.dumps([TONE]))
    shown = ["--image", str(tmp_path / "a.png"), "--questions", str(tmp_path / "q.json"), "--model", str(directory)]
    assert main(["decide", "--text", "a scan", *shown, "--dtype", "float32", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    expected = redraft.load(directory, dtype="float32", threads=1).decide(state(), TONE).to_dict()
    [answer], [wanted] = told["answers"], expected["answers"]
    assert answer.keys() == wanted.keys()
    assert _shares(answer) == pytest.approx(_shares(wanted), abs=1e-4)
    assert main(["decide", *shown, "--quiet"]) == 0
    assert "tone" in capsys.readouterr().out
    (tmp_path / "s.txt").write_text("a scan")
    assert main(["decide", "--state", str(tmp_path / "s.txt"), *shown]) == 2
    assert "--image stands beside --text or alone" in capsys.readouterr().err


def _shares(answer):
    return [option["probability"] for option in answer["probabilities"]]


def test_urls_hold_their_pictures(engine):
    url = f"data:image/png;base64,{base64.b64encode(png(ONE)).decode()}"
    given = [
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "a scan"}],
        }
    ]
    assert probabilities(engine.decide(given, TONE)) == probabilities(engine.decide(state(), TONE))
