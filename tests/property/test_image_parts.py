"""Whatever stands in the place of a picture: it is one, or one line says what is wrong."""

from __future__ import annotations

import base64

from hypothesis import given
from hypothesis import strategies as st

from redraft.core.errors import PromptError
from redraft.text.image_parts import ImagePart
from redraft.text.messages import checked_messages

URLS = st.one_of(
    st.binary(max_size=30).map(lambda data: "data:image/png;base64," + base64.b64encode(data).decode()),
    st.text(max_size=30).map(lambda text: "data:image/png;base64," + text),
    st.text(max_size=40).map(lambda text: "data:" + text),
    st.sampled_from(["http://a/b.png", "FILE:///etc/passwd", "data:", "", "data:image/png;base64,", "//a", "a:b"]),
    st.text(max_size=20),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | URLS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
PARTS = st.fixed_dictionaries(
    {"type": st.sampled_from(["image_url", "image", "text"]) | VALUES},
    optional={
        "image_url": VALUES | st.fixed_dictionaries({"url": URLS}, optional={"detail": VALUES}),
        "image": VALUES,
        "text": VALUES,
        "image_tokens": st.sampled_from([70, 1120]) | VALUES,
        "detail": VALUES,
    },
)


@given(st.lists(PARTS | VALUES, max_size=4), st.sampled_from(["user", "tool", "system", "assistant"]))
def test_parts(parts, role):
    images: list[ImagePart] = []
    checked, said = {}, None
    try:
        [checked] = checked_messages([{"role": role, "content": parts}], images)
    except PromptError as error:
        said = str(error)
    if said is not None:
        assert len(said.splitlines()) == 1
        assert len(said) < 400
        return
    assert not images or role in ("user", "tool")
    content = checked["content"]
    kinds = [part["type"] for part in content] if isinstance(content, list) else []
    assert kinds.count("image") == len(images)
    assert all(set(part) == ({"type"} if part["type"] == "image" else {"type", "text"}) for part in content if kinds)
    # What may come over a network is bytes, and never names a file.
    assert all(isinstance(image.source, bytes) for image in images if image.from_web)
