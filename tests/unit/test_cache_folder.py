"""Compiled kernels are run from the cache folder: it is its user's alone."""

from __future__ import annotations

import os
import shutil
import stat

import pytest

from redraft.core.errors import OptionError
from redraft.core.files import cache_directory
from redraft.kernels.native import build

pytestmark = pytest.mark.skipif(os.name != "posix", reason="folders have no owners here")


@pytest.fixture
def base(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = os.umask(0)
    yield tmp_path / "redraft"
    os.umask(before)


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_is_made_for_its_user_alone(base):
    assert cache_directory("kernels") == base / "kernels"
    assert (mode(base), mode(base / "kernels")) == (0o700, 0o700)


def test_one_that_others_could_read_is_closed(base):
    (base / "kernels").mkdir(parents=True)
    base.chmod(0o755)
    (base / "kernels").chmod(0o755)
    cache_directory("kernels")
    assert (mode(base), mode(base / "kernels")) == (0o700, 0o700)


@pytest.mark.parametrize("part", ["", "kernels"])
@pytest.mark.parametrize("open_to", [0o770, 0o707])
def test_one_that_others_could_write_to_is_refused(base, part, open_to):
    (base / "kernels").mkdir(parents=True, mode=0o700)
    base.chmod(0o700)
    (base / part).chmod(open_to)
    with pytest.raises(OptionError, match="others may write to .*XDG_CACHE_HOME"):
        cache_directory("kernels")


@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler")
def test_another_users_is_refused_and_nothing_is_run_from_it(base, monkeypatch):
    cache_directory("kernels")
    monkeypatch.setattr(os, "getuid", lambda: base.stat().st_uid + 1)
    with pytest.raises(OptionError, match="belongs to another user.*XDG_CACHE_HOME"):
        cache_directory("kernels")
    with pytest.warns(UserWarning, match="belongs to another user"):
        assert build.library.__wrapped__("int8") is None
    assert not list((base / "kernels").iterdir())


def test_a_place_that_cannot_be_used_is_said_with_the_way_out(base):
    base.write_text("a file")
    with pytest.raises(OptionError, match="XDG_CACHE_HOME"):
        cache_directory("kernels")
