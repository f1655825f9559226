"""A file comes whole from any server that has it, and nothing comes from one that lies."""

from __future__ import annotations

import io
import time
import urllib.request
from email.message import Message
from urllib.error import HTTPError

import pytest

import shelf
from redraft.core.errors import FetchError
from redraft.data import fetch as fetching
from redraft.data.fetch import fetch
from shelf import Shelf, answering, cut_off, endless, serving, stalled, without_ranges

CONTENT = bytes(range(256)) * 1000
MOST = len(CONTENT)


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr(fetching, "PAUSES_S", (0.0,) * 4)
    monkeypatch.setattr(fetching, "TIMEOUT_S", 0.3)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def served():
    with serving(Shelf({"/file": CONTENT, "/other": CONTENT})) as found:
        yield found


def fetched(served, tmp_path, most_bytes=MOST):
    fetch(f"{served.address}/file", tmp_path / "file", most_bytes)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    return (tmp_path / "file").read_bytes()


def test_a_file_comes_in_one_request(served, tmp_path):
    assert fetched(served, tmp_path) == CONTENT
    [(_, headers)] = served.asked
    assert headers["Accept-Encoding"] == "identity"
    assert "Range" not in headers


@pytest.mark.parametrize(
    ("manners", "ranges"),
    [
        ([cut_off(1000), cut_off(99_000)], [None, "bytes=1000-", "bytes=100000-"]),
        ([without_ranges(1000), without_ranges()], [None, "bytes=1000-"]),
        ([stalled(1000, 1.0)], [None, "bytes=1000-"]),
        # Nothing of it can be gone on with: the server has another file now, has lost it, or goes on elsewhere.
        ([cut_off(1000), answering(416)], [None, "bytes=1000-", None]),
        (
            [cut_off(1000), answering(206, 5, b"12345", Content_Range="bytes 999-1003/256000")],
            [None, "bytes=1000-", None],
        ),
        ([answering(503), answering(429), answering(500)], [None] * 4),
        # A part whose file cannot be told from another begins anew.
        ([answering(200, MOST, b"x" * 10), answering(200, MOST, b"x", ETag='W/"weak"')], [None, None, None]),
    ],
)
def test_what_breaks_off_is_gone_on_with(served, tmp_path, manners, ranges):
    served.manners = list(manners)
    assert fetched(served, tmp_path) == CONTENT
    assert served.ranges() == ranges


def test_another_process_goes_on(served, tmp_path):
    served.manners = [cut_off(1000)] + [answering(503)] * 4
    with pytest.raises(FetchError, match="the server answers 503"):
        fetch(f"{served.address}/file", tmp_path / "file", MOST)
    assert not (tmp_path / "file").exists()
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:1000]
    assert fetched(served, tmp_path) == CONTENT
    assert served.ranges()[-1] == "bytes=1000-"


def test_a_file_that_has_changed_begins_anew(served, tmp_path):
    (tmp_path / "file.part").write_bytes(b"old")
    (tmp_path / "file.etag").write_text('"old"')
    assert fetched(served, tmp_path) == CONTENT
    assert served.ranges() == ["bytes=3-"]


@pytest.mark.parametrize(
    ("manner", "reason"),
    [
        (endless(), "more than 256000 bytes"),
        (answering(200, MOST + 1, b"x"), "more than 256000 bytes"),
        (answering(200, 10**30, b"x"), "more than 256000 bytes"),
        (answering(200, 3, b"\x1f\x8b\x08", Content_Encoding="gzip"), "packed as 'gzip'"),
        (answering(302, Location="file:///etc/passwd"), "leads to 'file:///etc/passwd'"),
        (answering(302, Location="ftp://127.0.0.1/file"), "leads to 'ftp://127.0.0.1/file'"),
        (answering(302), "from one place to the next"),
        (answering(404), "the server answers 404"),
        (answering(401), "the server answers 401"),
    ],
)
def test_what_is_not_it_is_refused_at_once(served, tmp_path, manner, reason):
    served.manners = [manner] * 5
    with pytest.raises(FetchError, match=reason):
        fetch(f"{served.address}/file", tmp_path / "file", MOST)
    assert len(served.asked) == (5 if "next" in reason else 1)
    assert list(tmp_path.iterdir()) == []


def test_a_part_cannot_grow_beyond_the_bound(served, tmp_path):
    served.manners = [cut_off(1000), answering(206, 10**9, b"x", Content_Range="bytes 1000-")]
    with pytest.raises(FetchError, match="more than 256000 bytes"):
        fetch(f"{served.address}/file", tmp_path / "file", MOST)
    assert list(tmp_path.iterdir()) == []


def test_it_follows_without_reading_what_stands_by_the_way(served, tmp_path):
    served.manners = [endless(302, Location="/other")]
    assert fetched(served, tmp_path) == CONTENT
    assert [path for path, _ in served.asked] == ["/file", "/other"]


def test_from_https_nothing_leads_to_http(monkeypatch, tmp_path):
    def opened(self, request, timeout):
        headers = Message()
        headers["Location"] = "http://elsewhere/file"
        raise HTTPError(request.full_url, 302, "Found", headers, io.BytesIO())

    monkeypatch.setattr(urllib.request.OpenerDirector, "open", opened)
    with pytest.raises(FetchError, match="leads to 'http://elsewhere/file'"):
        fetch("https://here/file", tmp_path / "file", MOST)


def test_a_server_that_is_not_there(tmp_path):
    with serving(Shelf({})) as gone:
        pass
    began = time.monotonic()
    with pytest.raises(FetchError, match="Connection refused"):
        fetch(f"{gone.address}/file", tmp_path / "file", MOST)
    assert time.monotonic() - began < 5


def test_a_mark_that_could_write_headers_is_not_kept(tmp_path):
    part = fetching._Part(tmp_path / "file")
    for mark in ('"a\r\nX: y"', '"' + "a" * 300 + '"', "plain", '""', '"é"'):
        part.begin(mark)
        assert part.mark == ""
    part.begin(shelf.mark_of(b""))
    assert part.mark == shelf.mark_of(b"")
