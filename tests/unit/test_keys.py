"""Where a server's key comes from, and who gets to see it."""

from __future__ import annotations

import stat

import pytest

from redraft.core.errors import OptionError
from redraft.server.keys import VARIABLE, find_key
from redraft.server.settings import SHORTEST_KEY, Settings

LONG = "a-key-of-the-user's-own"


def test_it_is_made_where_nobody_gives_one():
    (first, new), (second, _) = find_key(None, None, {}), find_key(None, None, {})
    assert new
    assert first != second
    assert len(first) >= 32


def test_the_environment_has_it_until_it_was_read():
    environment = {VARIABLE: f"{LONG}\n", "PATH": "/bin"}
    assert find_key(None, None, environment) == (LONG, False)
    assert environment == {"PATH": "/bin"}
    with pytest.raises(OptionError, match=VARIABLE):
        find_key(None, None, {VARIABLE: " "})


def test_what_is_given_on_the_command_line_comes_first(tmp_path):
    assert find_key("given", None, {VARIABLE: LONG}) == ("given", False)
    (tmp_path / "key").write_text("from a file\n")
    (tmp_path / "key").chmod(0o600)
    assert find_key(None, tmp_path / "key", {VARIABLE: LONG}) == ("from a file", False)
    with pytest.raises(OptionError, match="exclude each other"):
        find_key("given", tmp_path / "key", {})


def test_a_file_keeps_its_key_between_starts(tmp_path):
    path = tmp_path / "key"
    first = find_key(None, path, {})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert first == find_key(None, path, {})
    assert not first[1]
    assert path.read_text() == first[0] + "\n"


@pytest.mark.parametrize("held", [b"", b"\n", b"two\nlines\n", b"x" * 5000])
def test_a_file_without_a_key_is_refused(tmp_path, held):
    path = tmp_path / "key"
    path.write_bytes(held)
    path.chmod(0o600)
    with pytest.raises(OptionError, match="one line"):
        find_key(None, path, {})


def test_a_file_that_others_may_read_is_refused(tmp_path):
    path = tmp_path / "key"
    path.write_text(LONG)
    path.chmod(0o644)
    with pytest.raises(OptionError, match="others may read.*chmod 600") as caught:
        find_key(None, path, {})
    assert LONG not in str(caught.value)
    with pytest.raises(OptionError, match="cannot write"):
        find_key(None, tmp_path / "no" / "key", {})
    with pytest.raises(OptionError, match="cannot read"):
        find_key(None, tmp_path, {})


def test_a_short_one_is_for_this_machine_alone():
    short = "x" * (SHORTEST_KEY - 1)
    assert Settings(api_key=short).api_key == short
    with pytest.raises(OptionError, match=f"{SHORTEST_KEY - 1} characters.*needs {SHORTEST_KEY}") as caught:
        Settings(api_key=short, host="0.0.0.0")
    assert short not in str(caught.value)
    assert Settings(api_key=short + "x", host="0.0.0.0").api_key


def test_a_log_names_a_key_without_telling_it():
    assert Settings(api_key=LONG).key_id == Settings(api_key=LONG).key_id != Settings(api_key=LONG + "x").key_id
    assert len(Settings(api_key=LONG).key_id) == 8
    assert Settings(api_key=None).key_id == "-"
