"""`redraft data get`: what was published is fetched, and nothing else is ever put in place."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raw_files import clinc_file, said, snips_files
from redraft.checkpoint.locate import BUNDLED
from redraft.cli import main
from redraft.core.datasets import CLINC150, DATASETS, SNIPS, command_for
from redraft.core.errors import DataError, FetchError, InputError
from redraft.data import fetch as fetching
from redraft.data import get as getting
from redraft.data import mini
from redraft.data.get import get
from redraft.data.making import MAKERS
from redraft.eval.data import read_rows
from redraft.text.lines import json_lines
from shelf import Shelf, cut_off, serving


def digest_of_lines(path):
    lines = path.read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    return hashlib.sha256("".join(f"{line}\n" for line in sorted(lines)).encode()).hexdigest()


def test_the_digest_is_that_of_the_lines_in_any_order(tmp_path):
    """mini's own tools.json is one of the products, so that the manifest can be held against something here."""
    path = BUNDLED / "mini" / "tools.json"
    [product] = [product for product in DATASETS[-1].products if product.name == "tools.json"]
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "shuffled").write_text("".join(reversed(lines)), encoding="utf-8")
    assert len(lines) == product.rows
    for each in (path, tmp_path / "shuffled"):
        assert getting._digest_of_lines(each) == digest_of_lines(each) == product.sha256


RAW = snips_files([said("play {artist}", artist=str(i)) for i in range(40)]) | clinc_file(
    train=[[f"tell me {i}", "joke"] for i in range(40)]
)
PLACES = {file.path: f"{s.repository}/{s.commit}/{file.path}" for s in (SNIPS, CLINC150) for file in s.files}


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The sets, as if little more than nothing had been published."""

    def of(dataset):
        MAKERS[dataset.name](RAW, tmp_path)
        sources = tuple(
            dataclasses.replace(
                source,
                files=tuple(
                    dataclasses.replace(file, sha256=file.sha256 and hashlib.sha256(RAW[file.path]).hexdigest())
                    for file in source.files
                ),
            )
            for source in dataset.sources
        )
        products = tuple(
            dataclasses.replace(product, sha256=digest_of_lines(tmp_path / product.name))
            for product in dataset.products
        )
        return dataclasses.replace(dataset, sources=sources, products=products)

    found = tuple(map(of, DATASETS))
    monkeypatch.setattr(getting, "DATASETS", found)
    monkeypatch.setattr(fetching, "PAUSES_S", (0.0,) * 4)
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    return found


@pytest.fixture
def served():
    with serving(Shelf({f"/{PLACES[path]}": content for path, content in RAW.items()})) as shelf:
        yield shelf


def tree(folder=Path(".")):
    return sorted(str(path) for path in folder.rglob("*") if path.is_file())


MADE = [f"data/mini/{name}.{part}.jsonl" for name in ("clinc", "snips") for part in ("test", "train")]
MADE += ["data/mini/tools.json"]


def test_get_makes_the_files_and_asks_once(small, served, capsys):
    served.manners = [cut_off(10)]
    command = ["data", "get", "mini", "--from", f"{served.address}/"]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert tree() == MADE
    assert [line.split()[0] for line in out.splitlines()] == [MADE[i] for i in (3, 2, 1, 0, 4)]
    assert "CC-BY-3.0: github.com/clinc/oos-eval (Larson et al. 2019" in err
    assert len(served.asked) == len(RAW) + 1
    rows = [row for _, row in json_lines("data/mini/snips.train.jsonl")]
    assert rows[0]["messages"][1]["tool_calls"][0]["function"]["name"] == "PlayMusic"
    assert json.loads(Path("data/mini/tools.json").read_text())["otherwise"] == mini.SENTENCE
    assert main([*command, "--json"]) == 0
    out, err = capsys.readouterr()
    assert (sorted(json.loads(out)), err) == (MADE, "")
    assert len(served.asked) == len(RAW) + 1


def test_a_directory_is_a_source_too(small, tmp_path):
    for path, content in RAW.items():
        (tmp_path / "mirror" / PLACES[path]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mirror" / PLACES[path]).write_bytes(content)
    assert main(["data", "get", "snips", "--from", str(tmp_path / "mirror"), "--out", "else where"]) == 0
    assert tree() == ["else where/snips/train.jsonl"]
    assert get("clinc150", Path("x"), base=str(tmp_path / "mirror")) == {"x/clinc150/train.jsonl": 18_200}


def test_who_is_interrupted_goes_on(small, served):
    lost = f"/{PLACES[CLINC150.files[0].path]}"
    content = served.files.pop(lost)
    with pytest.raises(FetchError, match="404"):
        get("mini", Path("data"), base=served.address)
    assert not Path("data/mini").exists()
    served.files[lost] = content
    served.asked.clear()
    get("mini", Path("data"), base=served.address)
    assert [path for path, _ in served.asked] == [lost]
    assert tree() == MADE


def test_a_raw_file_with_another_digest_is_not_kept(small, served):
    path = PLACES[SNIPS.files[2].path]
    served.files[f"/{path}"] += b" "
    with pytest.raises(FetchError) as caught:
        get("snips", Path("data"), base=served.address)
    got = hashlib.sha256(served.files[f"/{path}"]).hexdigest()
    assert f"{path} is not what was published: its SHA-256 is {got}, expected " in str(caught.value)
    assert tree() == [f"data/snips.part/{Path(file.path).name}" for file in SNIPS.files[:2]]


@pytest.mark.parametrize(
    "wrong", [b'{"PlayMusic": [{"data": [{"text": "play 3"}]}]}', b"{", b"[]", b'{"a": 3}', b"\xff"]
)
def test_what_makes_other_files_is_not_kept(small, served, wrong):
    """One of those whose digest nobody has told: what comes of it tells."""
    path = "2017-06-custom-intent-engines/PlayMusic/validate_PlayMusic.json"
    served.files[f"/{PLACES[path]}"] = wrong
    with pytest.raises(FetchError, match="is not what it should be: .* is [0-9a-f]{64}, expected|was published: "):
        get("snips", Path("data"), base=served.address)
    assert tree() == []
    assert not Path("data/snips").exists()


def test_another_file_in_its_place_stays(small, served, capsys):
    Path("data/snips").mkdir(parents=True)
    Path("data/snips/train.jsonl").write_text("mine\n")
    assert main(["data", "get", "snips", "--from", served.address]) == 2
    assert "data/snips/train.jsonl is another file than would be made: move it away" in capsys.readouterr().err
    assert Path("data/snips/train.jsonl").read_text() == "mine\n"
    assert served.asked == []


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nope"], "no data set 'nope': there are snips, clinc150, decider, mini"),
        (["../mini"], "no data set '../mini'"),
        (["mini", "--from", "ftp://x"], "--from: 'ftp://x' is neither"),
        (["mini", "--from", "file:///etc"], "--from: 'file:///etc' is neither"),
        (["mini", "--from", "no/where"], "--from: no/where/sonos/nlu-benchmark/"),
        (["mini", "--out", "file"], "--out: cannot write file/mini.part (Not a directory)"),
        (["snips", "--out", "."], "snips is no directory: move it away"),
    ],
)
def test_bad_usage_is_one_line(small, capsys, arguments, reason):
    Path("file").touch()
    Path("snips").touch()
    assert main(["data", "get", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert reason in err


def test_a_ctrl_c_keeps_what_has_come(tmp_path):
    """The real process and the real manifest: of its first file, two thirds come before the server falls silent."""
    first = f"/{PLACES[SNIPS.files[0].path]}"
    content = b"x" * 90_000

    def silent(handler, content):
        handler.begin(200, len(content), ETag='"a"')
        handler.wfile.write(content[:60_000])
        time.sleep(5)

    with serving(Shelf({first: content}, [silent])) as served:
        script = "import sys; from redraft.cli import main; sys.exit(main())"
        command = [sys.executable, "-c", script, "data", "get", "snips", "--from", served.address]
        process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        part = tmp_path / "data" / "snips.part" / "train_AddToPlaylist_full.json.part"
        until = time.monotonic() + 30
        while not (part.exists() and part.stat().st_size > 40_000) and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert (process.returncode, err, part.stat().st_size) == (130, "", 60_000)
    assert not (tmp_path / "data" / "snips").exists()


def test_list_says_whose_it_is(capsys):
    assert main(["data", "list"]) == 0
    out = capsys.readouterr().out
    assert "CC0-1.0" in out
    assert "CC-BY-3.0: github.com/clinc/oos-eval\n        Larson et al. 2019" in out
    assert main(["data", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [product["rows"] for product in listed["mini"]["products"]] == [12_393, 1_380, 15_703, 1_777, 241]


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("data/mini/snips.train.jsonl", "redraft data get mini"),
        ("recipes/mini/../../data/mini/clinc.test.jsonl", "redraft data get mini"),
        ("data/snips/train.jsonl", "redraft data get snips"),
        ("my data/mini/tools.json", "redraft data get mini --out 'my data'"),
        ("mini/tools.json", "redraft data get mini --out ."),
        ("/else/where/clinc150/train.jsonl", "redraft data get clinc150 --out /else/where"),
        ("data/mini_gpu/sudoku.train.jsonl", None),
        ("snips.train.jsonl", None),
        ("data/mini/snips.train.jsonl.bak", None),
    ],
)
def test_a_missing_file_names_the_command_that_makes_it(tmp_path, monkeypatch, path, command):
    monkeypatch.chdir(tmp_path)
    assert command_for(path) == command


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "recipes/mini/mini.yaml"],
        ["train", "recipes/mini/mini.yaml", "--data", "data/mini/snips.train.jsonl"],
        ["eval", "tool-calls", "--data", "data/mini/snips.train.jsonl"],
        ["eval", "text", "--data", "data/mini/snips.train.jsonl"],
    ],
)
def test_every_command_says_what_fetches_a_missing_file(tmp_path, monkeypatch, capsys, arguments):
    recipes = tmp_path / "recipes" / "mini"
    recipes.mkdir(parents=True)
    for name in ("mini.yaml", "chat_template.jinja"):
        (recipes / name).write_bytes((Path(__file__).parents[2] / "recipes" / "mini" / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert capsys.readouterr().err == (
        "redraft: data/mini/snips.train.jsonl: no such file; `redraft data get mini` fetches it\n"
    )


def test_a_missing_file_that_nothing_makes_is_just_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"^rows.jsonl: no such file$"):
        read_rows(tmp_path / "rows.jsonl")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read_rows(tmp_path)


def test_nothing_else_goes_out():
    script = (
        "import sys, redraft, redraft.train.run, redraft.server, redraft.cli.train, redraft.cli.eval; "
        "sys.exit(str(out) if (out := [name for name in sys.modules if name.startswith('redraft.data')]) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
