"""`redraft data`: published files become rows as they should."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from raw_files import clinc_file, said, snips_files
from redraft.checkpoint.locate import BUNDLED
from redraft.core.datasets import DATASETS
from redraft.data import mini, published
from redraft.data.making import MAKERS
from redraft.eval.data import read_rows
from redraft.text.lines import json_lines


def call(text, name, arguments):
    function = {"name": name, "arguments": arguments}
    reference = {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]}
    return {"messages": [{"role": "user", "content": text}, reference]}


# The first two are published rows with what stands in the file that mini was trained on.
@pytest.mark.parametrize(
    ("request_", "text", "arguments"),
    [
        (
            said(
                "I need to hear the {music_item} {track} from {artist} on {service}",
                music_item="song",
                track="Aspro Mavro",
                artist="Bill Szymczyk",
                service="Youtube",
            ),
            "I need to hear the song Aspro Mavro from Bill Szymczyk on Youtube",
            {"music_item": "song", "track": "Aspro Mavro", "artist": "Bill Szymczyk", "service": "Youtube"},
        ),
        (said("Play some {year} music.", year="sixties"), "Play some sixties music.", {"year": "sixties"}),
        (said(" play\u00a0 {artist} \n", artist=" Air  and\u2003"), "play Air and", {"artist": "Air and"}),
        (
            {"data": [{"text": "one", "entity": "n"}, {"text": " or "}, {"text": "two", "entity": "n"}]},
            "one or two",
            {"n": "one"},
        ),
    ],
)
def test_a_request_becomes_a_conversation(request_, text, arguments):
    assert published.snips(snips_files([request_])) == [call(text, "PlayMusic", arguments)]


def test_a_file_that_is_no_utf8_is_latin1():
    """Upstream's one emoji: the row that mini learned, to the byte."""
    files = snips_files([said("I want toi hear some {playlist} off of {service}", playlist="P", service="Déezer")])
    path = "2017-06-custom-intent-engines/PlayMusic/train_PlayMusic_full.json"
    files[path] = files[path].replace(b'"P"', b'"Pop Punk Perfection \xed\xa0\xbc\xed\xbd\x95"')
    [row] = published.snips(files)
    playlist = "Pop Punk Perfection \xed \xbc\xed\xbd\x95"
    assert row == call(
        f"I want toi hear some {playlist} off of DÃ©ezer",
        "PlayMusic",
        {"playlist": playlist, "service": "DÃ©ezer"},
    )


def test_what_the_validation_files_hold_is_left_out():
    rows = [said("Play {artist}", artist="Air"), said("play  AIR"), said("play air again")]
    found = published.snips(snips_files(rows, validation=[said("play air")]))
    assert [row["messages"][0]["content"] for row in found] == ["play air again"]


def test_the_test_splits_of_clinc_are_left_out():
    names = ("oos_train", "oos_val", "test", "oos_test", "val", "train")
    found = published.clinc150(clinc_file(**{name: [[f"a  {name}", "x"]] for name in names}))
    assert [row["text"] for row in found] == ["a  train", "a  val", "a  oos_train", "a  oos_val"]
    assert found[0] == {"text": "a  train", "intent": "x"}


def test_the_split_is_a_property_of_the_text():
    assert mini.held_out("what is the weather in paris") is mini.held_out(" What IS the\nweather in Paris ")
    rows = [call(f"play song {i}", "PlayMusic", {}) for i in range(1000)]
    refused = [{"text": f"say {i}", "intent": "weather" if i % 2 else "joke"} for i in range(1000)]
    files = mini.split(rows, refused)
    assert sorted(files) == ["clinc.test.jsonl", "clinc.train.jsonl", "snips.test.jsonl", "snips.train.jsonl"]
    assert 70 < len(files["snips.test.jsonl"]) < 130
    assert len(files["snips.train.jsonl"]) + len(files["snips.test.jsonl"]) == 1000
    assert len(files["clinc.train.jsonl"]) + len(files["clinc.test.jsonl"]) == 500
    assert files["clinc.train.jsonl"][0]["messages"][1]["content"] == mini.SENTENCE


def test_what_mini_is_measured_on_was_never_trained_on():
    rows = [row for _, row in json_lines(BUNDLED / "mini" / "held_out.jsonl")]
    texts = {row["messages"][0]["content"] for row in rows}
    assert len(texts) == len(rows) == 300
    assert all(map(mini.held_out, texts))
    files = mini.split(rows, [])
    assert files["snips.test.jsonl"] == rows
    assert files["snips.train.jsonl"] == []
    known = json.loads((BUNDLED / "mini" / "tools.json").read_text())["tools"]
    called = {call.name for row in read_rows(BUNDLED / "mini" / "held_out.jsonl") for call in row.calls}
    assert called == {tool["function"]["name"] for tool in known}


def test_the_manifest_is_pinned_and_decides_every_path():
    assert {dataset.name for dataset in DATASETS} == set(MAKERS)
    for dataset in DATASETS:
        assert all(re.fullmatch(r"[\w.]+\.jsonl?", product.name) for product in dataset.products)
        assert all(re.fullmatch(r"[0-9a-f]{64}", product.sha256) for product in dataset.products)
        names = [Path(file.path).name for source in dataset.sources for file in source.files]
        assert len(set(names)) == len(names)
        for source in dataset.sources:
            assert re.fullmatch(r"[0-9a-f]{40}", source.commit)
            assert source.licence in ("CC0-1.0", "CC-BY-3.0")
            assert all(".." not in file.path for file in source.files)
