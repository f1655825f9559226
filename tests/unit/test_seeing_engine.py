"""Pictures in an engine: where they stand in a prompt, who sees them, what is kept of them, and what is refused."""

from __future__ import annotations

import base64

import numpy as np
import pytest
import torch

import redraft
from redraft.checkpoint.convert import export, quantize
from redraft.checkpoint.rounding import RECIPES
from redraft.core.errors import ContextLengthError, ImageError, OptionError, PromptError
from redraft.engine.kept import Kept
from redraft.engine.prefix import PrefixCache
from redraft.engine.prompt_images import PromptImage, identity
from redraft.engine.stops import ENCODE_CHUNK, Stops
from redraft.model.images import placed_in
from redraft.vision.patches import patches_of
from seeing import BOI, EOI, IMAGE
from seeing_engine import picture, png, shows, write_seeing_engine

ONE, OTHER = picture(), picture(seed=5)
TALK = [shows("what is ", ONE, " and ", picture(120, 50, 1), "?")]
MODES = ("diffusion", "autoregressive", "verified")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write_seeing_engine(tmp_path_factory.mktemp("seeing"))


@pytest.fixture
def engine(directory):
    return redraft.load(directory, dtype="float32", threads=1)


def said(engine, messages, **options):
    """A reply as far as bits can tell two apart."""
    options = {"max_new_tokens": 20, "seed": 3, "logprobs": True} | options
    generation = engine.generate(messages, **options)
    assert generation.finish_reason in ("stop", "length"), generation.error
    return generation.token_ids, generation.logprobs


def test_a_picture_stands_where_its_part_does(engine):
    ids = engine.tokenize(TALK)
    assert ids.count(IMAGE) == 65 + 60
    # Each text by itself, trimmed by the template.
    text = engine.tokenize([{"role": "user", "content": "what isand?"}])
    assert [token for token in ids if token not in (IMAGE, BOI, EOI)] == text
    first = ids.index(BOI)
    assert ids[first : first + 67] == [BOI, *[IMAGE] * 65, EOI]


def test_a_marker_that_someone_types_is_text(engine):
    ids = engine.tokenize([shows("<|image|> is ", ONE, " no <|image|>")])
    assert ids.count(IMAGE) == 65
    assert engine.tokenize("a <|image|>").count(IMAGE) == 0
    assert "".join(engine.pieces(ids)).count("<|image|>") == 65 + 2


@pytest.mark.parametrize("options", [{}, {"image_attention": "generate"}, {"image_tokens": 140}])
def test_a_canvas_sees_what_the_model_has_encoded(engine, options):
    """The engine's pieces against one encode of everything."""
    model, budget = engine.model, options.get("image_tokens", 70)
    ids = engine.tokenize(TALK, **options)
    vision = engine.sight._tower()
    soft = [vision(patches_of(part["image"], vision.config, budget)) for part in TALK[0]["content"] if "image" in part]
    cache = model.new_cache()
    placed = placed_in(ids, IMAGE, soft)
    model.encode(torch.tensor([ids]), cache, images=[placed], reading=options.get("image_attention", "google"))
    first = next(iter(engine.stream(TALK, seed=3, **options)))
    canvas = torch.tensor([first.token_ids])
    # What the first step makes of its noise, by its entropies at the temperature of the start.
    from redraft.engine.canvas import CanvasNoise

    noise = CanvasNoise(3, 0, canvas.shape[1], model.config.vocab_size, model.device)
    logits = model.logits(model.denoise_hidden(noise.start(0)[None], cache))[0] / first.temperature
    table = torch.log_softmax(logits, -1)
    assert torch.allclose(-(table.exp() * table).sum(-1), torch.tensor(first.entropy_nats), atol=1e-4)


def test_readings_and_budgets_differ(engine):
    variants = [{}, {"image_attention": "generate"}, {"image_attention": "causal"}, {"image_tokens": 140}]
    replies = [said(engine, TALK, mode="autoregressive", **variant)[1] for variant in variants]
    assert len(set(replies)) == len(variants)
    # A part's own budget counts before the request's.
    own = [shows("a ", ONE)]
    own[0]["content"][1]["image_tokens"] = 140
    assert engine.tokenize(own) == engine.tokenize([shows("a ", ONE)], image_tokens=140)
    assert engine.tokenize(own, image_tokens=70) == engine.tokenize(own)


@pytest.mark.parametrize("mode", MODES)
def test_the_same_after_an_earlier_turn(engine, mode):
    later = [*TALK, {"role": "assistant", "content": "so"}, shows("and ", OTHER, " here")]
    engine.prefixes = PrefixCache(0)
    without = said(engine, later, mode=mode)
    engine.prefixes = PrefixCache()
    said(engine, TALK, mode=mode)
    generation = engine.generate(later, seed=3, max_new_tokens=20, logprobs=True, mode=mode)
    assert generation.stats.cached_tokens >= len(engine.tokenize(TALK)) - 1
    assert (generation.token_ids, generation.logprobs) == without


def test_what_is_kept_is_known_by_its_pictures(engine):
    engine.generate(TALK, seed=1, max_new_tokens=4)

    def cached(messages, **options):
        return engine.generate(messages, seed=1, max_new_tokens=4, **options).stats.cached_tokens

    def talk(pixels):
        return [shows("what is ", pixels, " and ", picture(120, 50, 1), "?")]

    assert cached(TALK) > 0
    assert cached(talk(png(ONE))) > 0
    # As many tokens, the same ids, and not the same.
    assert engine.tokenize(talk(OTHER)) == engine.tokenize(TALK)
    assert cached(talk(OTHER)) == 0
    assert cached(talk(OTHER)) > 0
    assert cached(TALK, image_attention="generate") == 0
    one_pixel = ONE.copy()
    one_pixel[-1, -1] ^= 255
    assert cached(talk(one_pixel)) == 0


def test_a_picture_is_read_once(engine, monkeypatch):
    vision = engine.sight._tower()
    runs = []
    monkeypatch.setattr(vision, "forward", lambda patches, run=vision.forward: runs.append(1) or run(patches))
    engine.prefixes = PrefixCache(0)
    for _ in range(3):
        engine.generate(TALK, seed=1, max_new_tokens=4)
    assert len(runs) == 2
    engine.generate(TALK, seed=1, max_new_tokens=4, image_tokens=140)
    assert len(runs) == 4


def test_alone_and_in_company(engine):
    requests = [
        redraft.Request(prompt=messages, options={"seed": number, "max_new_tokens": 20, "logprobs": True, "mode": mode})
        for number, (messages, mode) in enumerate(
            [
                (TALK, "diffusion"),
                ("only text", "diffusion"),
                ([shows(OTHER, "?")], "verified"),
                (TALK, "autoregressive"),
            ]
        )
    ]
    alone = []
    for request in requests:
        engine.prefixes = PrefixCache()
        alone.append(engine.generate(request.prompt, **request.options))
    engine.prefixes = PrefixCache()
    together = engine.generate_batch(requests)
    for one, other in zip(alone, together, strict=True):
        assert (one.token_ids, one.logprobs) == (other.token_ids, other.logprobs)
        assert one.stats.image_tokens == other.stats.image_tokens


@pytest.mark.parametrize("budget", [560, 1120])
def test_a_picture_longer_than_a_piece_is_never_cut(engine, budget):
    message = [shows("a " * 200, picture(300, 300), " b ", ONE)]
    generation = engine.generate(message, seed=1, max_new_tokens=4, image_tokens=budget)
    assert generation.finish_reason != "error", generation.error
    assert generation.stats.image_tokens > ENCODE_CHUNK
    assert generation.stats.prompt_tokens == len(engine.tokenize(message, image_tokens=budget))


def test_steered_and_judged_replies_see_as_well(engine):
    choice = {"type": "choice", "choices": ["yes", "no"]}
    for options in ({"response_format": choice}, {"redraft": 1}, {"adaptive_canvas": True}, {"freeze_nats": 0.1}):
        one = engine.generate(TALK, seed=2, max_new_tokens=16, max_denoising_steps=4, **options)
        other = engine.generate([shows("what is ", OTHER, "?")], seed=2, max_new_tokens=16, **options)
        assert one.finish_reason in ("stop", "length"), one.error
        assert other.finish_reason in ("stop", "length"), other.error
    assert engine.generate(TALK, seed=2, max_new_tokens=16, response_format=choice).text in ("yes", "no")
    filled = engine.infill("it is [[...3]].", TALK, seed=2, max_new_tokens=24)
    assert filled.raw.startswith("it is ") or filled.finish_reason == "length"


def test_a_tool_may_show_a_picture(engine):
    call = {"type": "function", "function": {"name": "look", "arguments": {}}}
    messages = [
        {"role": "user", "content": "look"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        shows("here: ", ONE, role="tool"),
    ]
    assert engine.tokenize(messages).count(IMAGE) == 65


def test_who_does_not_see_says_so(engine, directory, tmp_path):
    blind = redraft.load(directory, vision="off")
    assert not blind.info.sees
    assert engine.info.sees
    with pytest.raises(ImageError, match="message 0, part 1: this engine was loaded with vision='off'"):
        blind.generate(TALK)
    mini = redraft.load("mini")
    assert not mini.info.sees
    with pytest.raises(ImageError, match="message 0, part 1: this checkpoint holds no vision tower"):
        mini.generate(TALK)
    with pytest.raises(OptionError, match="vision must be 'lazy', 'eager' or 'off', got True"):
        redraft.load(directory, vision=True)


def test_eager_reads_the_tower_at_once(engine, directory):
    assert not engine.sight._tower.is_loaded
    assert redraft.load(directory, vision="eager").sight._tower.is_loaded
    engine.generate("text alone", max_new_tokens=4)
    assert not engine.sight._tower.is_loaded
    # What a prompt costs is known without it.
    engine.tokenize(TALK)
    assert not engine.sight._tower.is_loaded


def url(pixels, kind="png"):
    return f"data:image/{kind};base64,{base64.b64encode(png(pixels)).decode()}"


def part(kind="image_url", **fields):
    return [{"role": "user", "content": [{"type": "text", "text": "x"}, {"type": kind, **fields}]}]


def test_data_urls_and_detail(engine):
    own = engine.tokenize([shows("x", ONE)])
    assert engine.tokenize(part(image_url={"url": url(ONE)})) == own
    assert engine.tokenize(part(image_url=url(ONE))) == own
    assert engine.tokenize(part(image_url={"url": url(ONE), "detail": "auto"})) == own
    assert engine.tokenize(part(image_url={"url": url(ONE), "detail": "low"}), image_tokens=560) == own
    high = engine.tokenize(part(image_url={"url": url(ONE), "detail": "high"}))
    assert high == engine.tokenize([shows("x", ONE)], image_tokens=1120)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"image_url": {"url": "https://example.com/a.png"}}, "only data: URLs are read, got https:; nothing is"),
        ({"image_url": {"url": "file:///etc/passwd"}}, "got file:"),
        ({"image_url": "FTP://host/a.png"}, "got ftp:"),
        ({"image_url": "a.png"}, "got none"),
        ({"image_url": {"url": "data:image/svg+xml;base64,AAAA"}}, "expected data:image/png, jpeg, webp or gif"),
        ({"image_url": {"url": "data:image/png,AAAA"}}, "expected data:image/png"),
        ({"image_url": {"url": "data:image/png;base64,A*AA"}}, "the base64 is damaged"),
        ({"image_url": {"url": "data:image/png;base64,\u00e9"}}, "the base64 is damaged"),
        ({"image_url": {"url": "data:image/png;base64,"}}, "the file is empty"),
        ({"image_url": {"url": "data:image/png;base64,AAAA"}}, "no PNG, JPEG, WebP or GIF"),
        ({"image_url": {"url": url(ONE), "detail": "medium"}}, "detail must be low, auto or high, got 'medium'"),
        ({"image_url": {"url": url(ONE), "size": 3}}, "there is no 'size' in image_url"),
        ({"image_url": None}, "image_url needs its 'url', a string"),
        ({"image_url": {"url": 3}}, "image_url needs its 'url', a string"),
        ({"image_url": url(ONE), "image_tokens": 300}, "image_tokens must be 70, 140, 280, 560 or 1120, got 300"),
        ({"image_url": url(ONE), "image": "x"}, "there is no 'image' in a part of type 'image_url'"),
        ({"kind": "image"}, "needs its 'image': a path, bytes or a Pillow image"),
        ({"kind": "image", "image": "/nowhere/a.png"}, "/nowhere/a.png: cannot be read: No such file or directory"),
        ({"kind": "image", "image": 3}, "a picture is a path, bytes, a Pillow image or an array"),
        ({"kind": "image", "image": np.zeros((4, 4, 3), dtype=np.float32)}, "uint8"),
        ({"kind": "input_image"}, "is of type 'input_image'; text, image_url and video_url are read: send"),
        ({"kind": "video_url"}, "needs its 'video_url'"),
        ({"kind": "input_audio"}, "is of type 'input_audio'; text, image_url and video_url are read"),
        ({"kind": 7}, "must be a mapping with its 'type'"),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_refused_by_name(engine, fields, reason):
    with pytest.raises(PromptError) as caught:
        engine.generate(part(**fields))
    assert str(caught.value).startswith(("message 0, part 1", "/nowhere/a.png: cannot be read"))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("role", ["system", "assistant"])
def test_only_users_and_tools_show_pictures(engine, role):
    with pytest.raises(ImageError, match=f"message 0, part 0: pictures belong to .* not to '{role}'"):
        engine.generate([shows(ONE, role=role), {"role": "user", "content": "x"}])


def test_pictures_that_do_not_fit(directory):
    small = redraft.load(directory, max_context=200)
    with pytest.raises(ContextLengthError, match=r"at least \d+ tokens \(\d+ of them for pictures\)") as caught:
        small.generate([shows("x", *[b"never decoded"] * 20)])
    assert caught.value.image_tokens == 20 * 35
    with pytest.raises(ContextLengthError, match=r"130 of them for pictures.*fewer image_tokens"):
        small.generate([shows("x" * 65, ONE, OTHER)])


def test_placeholders_without_pictures(engine, directory, tmp_path):
    with pytest.raises(PromptError, match="the prompt has 2 placeholders of pictures, and no picture"):
        engine.generate([5, IMAGE, IMAGE, 6])
    (tmp_path / "other").mkdir()
    for file in directory.iterdir():
        (tmp_path / "other" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "other" / "chat_template.jinja").write_text("{{ messages[0].content }}")
    with pytest.raises(PromptError, match="the chat template makes room for 0 pictures, the messages hold 1"):
        redraft.load(tmp_path / "other").generate([shows("x", ONE)])


def test_no_piece_ends_inside_a_picture():
    rule = Stops(canvas_length=8, opening=(7, 8), results=frozenset({9}), ends=frozenset({1}))
    generator = np.random.default_rng(0)
    for _ in range(200):
        ids: list[int] = []
        runs = []
        for _ in range(generator.integers(1, 12)):
            ids += generator.choice([5, 7, 8, 9, 1], generator.integers(1, 300)).tolist()
            if generator.random() < 0.7:
                length = int(generator.choice([1, 60, 500, 700, 1120]))
                runs.append((len(ids), len(ids) + length))
                ids += [99] * length
        stops = rule(ids, runs)
        assert stops == sorted(set(stops))
        assert stops[-1] == len(ids)
        assert not [stop for stop in stops for start, end in runs if start < stop < end]
        for start, end in zip([0, *stops], stops, strict=False):
            assert end - start <= max(ENCODE_CHUNK, 1120)
        for cut in [end for _, end in runs] + [start for start, _ in runs[:1]]:
            shorter = rule.lasting(ids[:cut], [run for run in runs if run[1] <= cut])
            assert shorter == [stop for stop in rule.lasting(ids, runs) if stop <= cut][: len(shorter)]
        assert rule(ids, ()) == rule(ids)


def test_an_identity_is_of_all_that_is_seen():
    pixels = np.zeros((3, 4, 4), dtype=np.uint8)
    made = [
        PromptImage(start=2, tokens=2, pixels=pixels, digest=digest, reading=reading)
        for digest in (b"a", b"b")
        for reading in ("google", "causal")
    ]
    ids = [5, 6, 9, 9, 7]
    found = [identity(ids, [image]) for image in made]
    assert len({tuple(one) for one in found}) == 4
    assert all(one[2] < 0 and one[:2] + one[3:] == [5, 6, 9, 7] for one in found)
    assert identity(ids[:3], made[:1]) == ids[:3]
    assert identity(ids, ()) is ids


def test_what_is_kept_has_a_bound():
    kept = Kept[bytes](10, len)
    assert kept.get("a", lambda: b"1234") == b"1234"
    kept.get("b", lambda: b"1234")
    kept.get("a", lambda: b"other")
    kept.get("c", lambda: b"1234")
    assert (len(kept), kept.nbytes) == (2, 8)
    assert kept.get("a", lambda: b"new") == b"1234"
    assert kept.get("b", lambda: b"new") == b"new"
    kept.get("large", lambda: b"x" * 11)
    assert (len(kept), kept.nbytes) == (0, 0)


def test_what_is_converted_sees_as_before(directory, engine, tmp_path):
    quantize(directory, tmp_path / "int8", RECIPES["int8"])
    export(directory, tmp_path / "bfloat16")
    exact = engine.sight.soft_tokens(engine.prepare(TALK).sequence.images[0])
    rounded = redraft.load(tmp_path / "int8", dtype="float32", threads=1)
    assert torch.equal(rounded.sight.soft_tokens(rounded.prepare(TALK).sequence.images[0]), exact)
    # Text and pictures alike, as it is stored and as it is rounded on the way.
    on_the_way = redraft.load(directory, dtype="float32", quantize="int8", threads=1)
    assert said(rounded, TALK) == said(on_the_way, TALK)
    assert said(redraft.load(tmp_path / "bfloat16", dtype="bfloat16", threads=1), TALK)


def test_processes_see_alike(directory, engine):
    requests = [
        redraft.Request(prompt=messages, options={"seed": 4, "max_new_tokens": 12, "logprobs": True})
        for messages in (TALK, [shows(OTHER, "?")], "text alone", TALK)
    ]
    alone = [engine.generate(request.prompt, **request.options) for request in requests]
    shared = redraft.load(directory, dtype="float32", threads=2, workers=2)
    try:
        for _ in range(2):
            for one, other in zip(alone, shared.generate_batch(requests), strict=True):
                assert (one.token_ids, one.logprobs) == (other.token_ids, other.logprobs)
    finally:
        shared.running().close()
