"""Videos: which frames are looked at and when they are shown, what stands in a prompt, and what is refused."""

from __future__ import annotations

import base64
import random
import sys

import numpy as np
import pytest

import redraft
from redraft.core.errors import ContextLengthError, ImageError, PromptError
from redraft.text.messages import checked_messages
from redraft.vision.video import WEB_KINDS, VideoLimits, frames_of, planned, sampled
from seeing import BOI, EOI, IMAGE
from seeing_engine import shows, write_seeing_engine

av = pytest.importorskip("av")
from video_files import grey, turned, video  # noqa: E402

CLIP = video(50)


def part(data=CLIP, **fields):
    return {"type": "video", "video": data, **fields}


def about(*parts):
    return [{"role": "user", "content": [*parts, {"type": "text", "text": "what moves?"}]}]


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return redraft.load(write_seeing_engine(tmp_path_factory.mktemp("seeing")), dtype="float32", threads=1)


@pytest.mark.parametrize("total", [1, 5, 31, 32, 33, 50, 63, 64, 1000])
def test_frames_are_chosen_as_by_gemma(total):
    from transformers.video_utils import VideoMetadata, default_sample_indices_fn

    if total < 32:
        # There an error.
        assert sampled(total, 32) == tuple(range(total))
        return
    expected = default_sample_indices_fn(VideoMetadata(total_num_frames=total, fps=25), num_frames=32)
    assert list(sampled(total, 32)) == expected.tolist()
    plan = redraft_plan(total, 25.0)
    stamps = VideoMetadata(total_num_frames=total, fps=25, frames_indices=expected).timestamps
    assert plan.stamps == [f"{int(s // 60):02d}:{int(s % 60):02d}" for s in stamps]


def redraft_plan(total, rate):
    from redraft.vision.video import Plan

    return Plan(data=b"", total=total, rate=rate, indices=sampled(total, 32))


@pytest.mark.parametrize(
    ("codec", "container"),
    [("mpeg4", "mp4"), ("libx264", "mp4"), ("libx264", "mov"), ("libvpx", "webm"), ("mpeg4", "avi"), ("gif", "gif")],
)
def test_the_frames_are_those_of_the_file(codec, container):
    plan = planned(video(20, codec=codec, container=container), 6)
    assert plan.indices == (0, 3, 6, 10, 13, 16)
    assert plan.stamps[-1] == ("00:01" if codec == "gif" else "00:02")
    for index, pixels in zip(plan.indices, frames_of(plan), strict=True):
        expected = grey(20, index)
        assert pixels.shape == expected.shape
        assert abs(float(pixels[20:, 20:].mean()) - float(expected[20:, 20:].mean())) < 12
        assert pixels[4:12, 4:12, 0].mean() > 180 > 90 > pixels[4:12, 4:12, 1].mean()


def test_a_phone_that_was_held_upright():
    plan = planned(turned(video(3)), 2)
    for pixels in frames_of(plan):
        assert pixels.shape == (64, 48, 3)
        # What was at the top left is at the top right.
        assert pixels[4:12, -12:-4, 0].mean() > 180 > 90 > pixels[4:12, -12:-4, 1].mean()


def test_a_video_is_pictures_with_their_times(engine):
    clip = video(6, rate=2)
    ids = engine.tokenize(about(part(clip, frames=3)))
    frames = [np.ascontiguousarray(one) for one in frames_of(planned(clip, 3))]
    assert ids.count(BOI) == ids.count(EOI) == 3
    text = "".join(engine.pieces([token for token in ids if token not in (IMAGE, BOI, EOI)]))
    assert "00:00  00:01  00:02 what moves?" in text
    # The same as the frames themselves, each as a picture, where the template leaves the spaces.
    one_by_one = [shows("00:00 ", frames[0]), shows(" 00:01 ", frames[1])]
    for message, start in zip(one_by_one, (0, 1), strict=True):
        message["content"][1]["image_tokens"] = 70
        alone = engine.tokenize([message])
        run = alone[alone.index(BOI) : alone.index(EOI) + 1]
        place = [at for at, token in enumerate(ids) if token == BOI][start]
        assert ids[place : place + len(run)] == run
    reply = engine.generate(about(part(clip, frames=3)), seed=1, max_new_tokens=8)
    assert reply.stats.image_tokens == 3 * run.count(IMAGE)
    # Frames are kept and known again, as pictures are.
    again = engine.generate(about(part(clip, frames=3)), seed=1, max_new_tokens=8)
    assert again.stats.cached_tokens > 0
    assert again.token_ids == reply.token_ids
    assert len(engine.tokenize(about(part(clip, frames=3, image_tokens=140)))) > len(ids)


def test_it_stands_among_pictures(engine):
    still = grey(9, 3)
    both = engine.tokenize(about({"type": "image", "image": still}, part(video(2)), {"type": "image", "image": still}))
    assert both.count(BOI) == 4
    text = "".join(engine.pieces([token for token in both if token not in (IMAGE, BOI, EOI)]))
    assert "00:00  00:00 what moves?" in text
    typed = engine.tokenize(
        [
            shows(
                "<|image|> ",
            )
            | {"content": [{"type": "text", "text": "<|image|>"}, part(video(1))]}
        ]
    )
    assert typed.count(BOI) == 1


def test_over_http_it_is_a_data_url(engine):
    def url(kind, data=CLIP, **fields):
        text = f"data:{kind};base64,{base64.b64encode(data).decode()}"
        return {"type": "video_url", "video_url": {"url": text}, **fields}

    path = engine.tokenize(about(part(frames=2)))
    assert engine.tokenize(about(url("video/mp4", frames=2))) == path
    assert engine.tokenize(about(url("video/mp4;codecs=avc1.64", frames=2))) == path
    assert engine.tokenize(about(url("image/gif", video(2, codec="gif", container="gif"))))
    for one, said in [
        (
            {"type": "video_url", "video_url": {"url": "https://example.org/a.mp4"}},
            "only data: URLs are read, got https",
        ),
        ({"type": "video_url", "video_url": "file:///etc/passwd"}, "nothing is fetched"),
        (url("video/x-matroska"), "expected data:video/mp4"),
        (url("video/mp4", video(2, container="avi")), "mp4, webm or gif"),
        (url("video/mp4", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"), "no video of the kinds"),
        (url("video/mp4", b""), "no video of the kinds"),
        (url("video/mp4", frames=0), "frames must be 1 to 256, got 0"),
        (url("video/mp4", frames=1.5), "frames must be 1 to 256, got 1.5"),
        (url("video/mp4", image_tokens=71), "image_tokens must be 70, 140"),
        (url("video/mp4", fps=2), "there is no 'fps'"),
        ({"type": "video_url", "video_url": {"url": "data:video/mp4;base64,@@@@"}}, "the base64 is damaged"),
        ({"type": "video_url"}, "needs its 'video_url'"),
        ({"type": "video", "video": 7}, "a video is a path or the bytes of a file, got 7"),
        ({"type": "video", "video": "nowhere.mp4"}, "nowhere.mp4: cannot be read"),
    ]:
        with pytest.raises(ImageError, match=said):
            engine.tokenize(about(one))
    with pytest.raises(ImageError, match="videos belong to the messages of user and tool"):
        engine.tokenize([{"role": "system", "content": [part()]}, *about()])
    with pytest.raises(PromptError, match="message 0, part 0 is a video: here there is text alone"):
        checked_messages(about(part()))


def test_questions_about_a_video(engine):
    question = {"type": "choice", "instructions": "Which?", "choices": ["dark", "light"]}
    found = engine.decide(about(part(frames=4)), question, gate_nats=None)
    again = engine.decide(about(part(frames=4)), [question, question | {"name": "again"}], gate_nats=None)
    assert [one.probabilities for one in again.answers] == [found.answers[0].probabilities] * 2
    assert again.stats.cached_tokens > 0
    assert engine.decide(about(part(frames=3)), question, gate_nats=None).answers[0].probabilities != (
        found.answers[0].probabilities
    )


def test_limits():
    for limits, said in [
        ({"nbytes": 100}, "bytes, at most 100"),
        ({"frames": 49}, "more than 49 frames"),
        ({"seconds": 6}, "6 seconds, at most 6"),
        ({"pixels": 3000}, "frames of 64 x 48 pixels, at most 3,000"),
        ({"decoded": 64 * 48 * 30}, "pixels would have to be decoded, at most"),
    ]:
        with pytest.raises(ImageError, match=said):
            planned(CLIP, 32, limits=VideoLimits(**limits))
    plan = planned(CLIP, 32)
    with pytest.raises(ImageError):
        list(frames_of(plan, limits=VideoLimits(decoded=64 * 48 * 10)))
    with pytest.raises(ImageError, match="holds no video|damaged"):
        planned(_sound(), 32)
    with pytest.raises(ImageError, match="video in mpeg2video: save it as"):
        planned(video(3, codec="mpeg2video", container="matroska"), 32)


def _sound():
    import io

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 8000
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return buffer.getvalue()


@pytest.mark.parametrize(("codec", "container"), [("libx264", "mp4"), ("libvpx", "webm"), ("gif", "gif")])
def test_damaged_files_are_one_error_each(codec, container, capfd):
    """Cut anywhere, or with bytes changed: frames, or one line."""
    data, draw = video(8, codec=codec, container=container), random.Random(1)
    found = set()
    for turn in range(60):
        changed = bytearray(data[: draw.randrange(1, len(data))] if turn % 2 else data)
        for _ in range(0 if turn % 4 == 1 else draw.randrange(1, 12)):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        try:
            found.add(len(list(frames_of(planned(bytes(changed), 4, kinds=WEB_KINDS)))))
        except ImageError as error:
            found.add(str(error))
    assert len(found) > 1
    assert not any("\n" in str(one) for one in found)
    assert capfd.readouterr().err == ""


def test_too_many_frames_for_the_context_are_never_decoded(engine, monkeypatch):
    import redraft.engine.sight as sight

    monkeypatch.setattr(sight, "frames_of", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(ContextLengthError, match="at least 4480 tokens .4480 of them for pictures"):
        engine.tokenize(about(part(image_tokens=280)))


def test_without_the_extra(engine, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImageError, match=r"videos need PyAV: pip install 'redraft\[video\]'"):
        engine.tokenize(about(part(video_of_two())))


def video_of_two():
    # Made before PyAV went.
    return CLIP
