"""README.md and the pages under docs/ say only what runs: every fenced block is run, or says why it is not."""

from __future__ import annotations

import pytest
from snippets import Block, blocks_of, pages
from stage import UNRUN, Stage

# Of all blocks of all pages. Each is a promise that nobody keeps but by hand.
MOST_UNRUN = 19


@pytest.fixture
def stage(tmp_path, shims, one_thread):
    stage = Stage(folder=tmp_path / "page", shims=shims)
    yield stage
    stage.close()


@pytest.mark.parametrize("page", [page for page in pages() if blocks_of(page)])
def test_every_block_runs(page, stage):
    wrong = [one for block in blocks_of(page) if block.reason is None for one in stage.run(block)]
    assert not wrong, "\n\n".join(["", *wrong])


def test_what_is_not_run_says_why():
    unrun = [block for page in pages() for block in blocks_of(page) if block.reason is not None]
    assert len(unrun) <= MOST_UNRUN, [str(block) for block in unrun]
    assert all(len(block.reason or "") > 8 for block in unrun)
    assert all(len(reason) > 8 for reason in UNRUN.values())


def block(language: str, text: str, **more: str) -> Block:
    return Block(page="page.md", line=1, language=language, title=None, reason=None, text=text, **more)


@pytest.mark.parametrize(
    ("language", "text", "reason"),
    [
        ("console", "$ redraft run hello --no-such-flag\n", "--no-such-flag"),
        ("console", "$ redraft --version\nredraft 7.1.2\n", "-redraft 7.1.2"),
        ("console", "$ redraft --version\nredraft: there is no such error\n", "ended with 0"),
        ("console", "$ redraft run '' --seed 0\n", "ended with 2"),
        ("python", "import redraft\nredraft.no_such_name\n", "no_such_name"),
        ("python", "1 + 1  # 3\n", "+2"),
        ("python", "print('one')\n# -> two\n", "+one"),
        ("json", '{"a": }\n', "JSONDecodeError"),
        ("jsonl", '{"a": 1}\n{"b"}\n', "JSONDecodeError"),
        ("yaml", "output: run\ninit: mini\nsteps: 3\nstepz: 3\n", "stepz"),
        ("ruby", "puts 1\n", "ruby"),
        ("", "a drawing\n", "say why"),
    ],
)
def test_a_wrong_block_fails(language, text, reason, stage):
    [wrong] = stage.run(block(language, text))
    assert reason in wrong


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("console", "$ export WORD=hello  # kept\n$ echo $WORD 0.51 s\nhello 7.2 s\n"),
        ("console", "$ redraft run '' --seed 0\nredraft: ...\n"),
        ("console", "$ seq 4\n1\n...\n4\n"),
        ("console", "$ printf %s \\\n  joined\njoined\n"),
        ("python", "1 + 1  # 2\n'a' * 2  # 'aa'\n2 / 3  # 0.66\n"),
        ("python", "for word in ('one', 'two'):\n    print(word)\n# -> one\n# -> two\n"),
        ("json", '{"a": [1]}\n'),
        ("yaml", "output: run\ninit: mini\nsteps: 3\n"),
    ],
)
def test_a_right_block_passes(language, text, stage):
    assert stage.run(block(language, text)) == []


def test_a_wrong_request_fails(stage):
    assert stage.run(block("console", "$ redraft serve\n")) == []
    body = '{"model": "mini", "seed": 0, "messages": [{"role": "user", "content": "play jazz"}], "max_tokens": %s}\n'
    assert stage.run(block("json", body % "20")) == []
    [wrong] = stage.run(block("json", body % '"many"'))
    assert "400" in wrong


def test_blocks_are_found():
    text = '<!-- not run: needs a GPU -->\n```sh\nls\n```\n- item\n\n  ```json title="a.json"\n  {}\n  ```\n'
    one, other = blocks_of("page.md", text)
    assert (one.language, one.reason, one.line) == ("sh", "needs a GPU", 2)
    assert (other.language, other.title, other.text) == ("json", "a.json", "{}\n")
    with pytest.raises(ValueError, match="closes"):
        blocks_of("page.md", "```python\nx\n")
