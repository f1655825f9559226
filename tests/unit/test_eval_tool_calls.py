"""Every measure against a value worked out by hand."""

from __future__ import annotations

import json
import time

import pytest
from cli_fakes import generation, stats

import redraft
from redraft.cli import main
from redraft.core.errors import DataError, InputError
from redraft.core.results import ToolCall
from redraft.eval.data import Row, read_rows
from redraft.eval.tool_calls import evaluate, fold, grade, known_tools

SHARES = ("exact_match", "intent_accuracy", "slot_f1", "valid_calls", "wrongly_turned_down", "turned_down")


def call(name, repaired=False, **arguments):
    return ToolCall(name=name, arguments=arguments, repaired=repaired)


def row(*calls, text=""):
    return Row(prompt=({"role": "user", "content": "hi"},), calls=calls, text=text)


def reply(*calls, **changes):
    return generation(tool_calls=calls, **changes)


def measured(*pairs, rows=None):
    return grade(pairs, known_tools(rows or [row for row, _ in pairs]))


WEATHER = row(call("GetWeather", city="New York", day="today"))


@pytest.mark.parametrize(
    ("got", "exact", "intent", "f1", "valid"),
    [
        (reply(call("GetWeather", city="New York", day="today")), 1, 1, 1, 1),
        (reply(call("GetWeather", day="today", city="New York")), 1, 1, 1, 1),
        (reply(call("GetWeather", city=" new  YORK", day="Today")), 1, 1, 1, 1),
        # Extra slot: 2 right of 2 expected and 3 got: 4 / 5; "mood" is no argument of the tool.
        (reply(call("GetWeather", city="New York", day="today", mood="x")), 0, 1, 4 / 5, 0),
        # Missing slot: 1 right of 2 and 1: 2 / 3.
        (reply(call("GetWeather", city="New York")), 0, 1, 2 / 3, 1),
        # Wrong value: 1 right of 2 and 2: 2 / 4.
        (reply(call("GetWeather", city="York", day="today")), 0, 1, 1 / 2, 1),
        # Wrong function: its slots are wrong however right they look, and the function is unknown.
        (reply(call("PlayMusic", city="New York", day="today")), 0, 0, 0, 0),
        # A name is compared as it is.
        (reply(call("getweather", city="New York", day="today")), 0, 0, 0, 0),
        # One call too many: 2 right of 2 and 4: 4 / 6.
        (reply(*WEATHER.calls, *WEATHER.calls), 0, 0, 4 / 6, 1),
        (reply(call("GetWeather", repaired=True, city="New York", day="today")), 1, 1, 1, 0),
        (reply(), 0, 0, 0, 0),
    ],
)
def test_one_reply(got, exact, intent, f1, valid):
    measures = measured((WEATHER, got))
    assert [measures[name] for name in SHARES[:4]] == pytest.approx([exact, intent, f1, valid])
    assert measures["wrongly_turned_down"] == (not got.tool_calls)
    assert (measures["n_calls"], measures["n_text"], measures["turned_down"]) == (1, 0, None)


def test_several_replies_are_pooled():
    music = row(call("PlayMusic", artist="Air"))
    joke = row(text="I cannot do that.")
    measures = measured(
        (WEATHER, reply(*WEATHER.calls)),  # 2 slots right of 2 and 2
        (music, reply(call("GetWeather", city="Air"))),  # 0 right of 1 and 1
        (music, reply(text="Which one?")),  # 0 right of 1 and 0
        (joke, reply(text="No.")),
        (joke, reply(text="No.")),
        (joke, reply(call("PlayMusic", artist="joke"))),
    )
    assert measures["exact_match"] == pytest.approx(1 / 3)
    assert measures["intent_accuracy"] == pytest.approx(1 / 3)
    assert measures["slot_f1"] == pytest.approx(2 * 2 / (4 + 3))  # micro: a mean over rows would be 1 / 3
    assert measures["valid_calls"] == pytest.approx(2 / 3)
    assert measures["wrongly_turned_down"] == pytest.approx(1 / 3)
    assert measures["turned_down"] == pytest.approx(2 / 3)
    assert (measures["n_calls"], measures["n_text"]) == (3, 3)


def test_measures_without_rows_are_none():
    measures = measured((row(text="No."), reply(text="No.")))
    assert [measures[name] for name in SHARES] == [None] * 5 + [1.0]


def test_fold():
    assert fold({"b": [" A  b "], "a": 1.0}) == fold({"a": 1, "b": ["a B"]})
    assert fold("1") != fold(1)
    assert fold(True) != fold(1)
    assert fold("Straße") == fold("STRASSE")


class Engine:
    """Answers every request with the same reply and keeps the requests."""

    def __init__(self, answer):
        self.answer = answer
        self.groups = []

    def generate_batch(self, requests):
        self.groups.append(requests)
        time.sleep(0.02)
        return [self.answer] * len(requests)


def test_evaluate_groups_seeds_limits_and_counts():
    engine = Engine(reply(*WEATHER.calls, stats=stats(canvases=2, denoising_steps=8, generated_tokens=20)))
    progress, wrong = [], []
    measures = evaluate(
        engine,
        [WEATHER] * 18 + [row(text="No.")] * 9,
        seed=100,
        limit=20,
        on_progress=lambda *done: progress.append(done),
        on_wrong=wrong.append,
    )
    requests = [request for group in engine.groups for request in group]
    assert [len(group) for group in engine.groups] == [16, 4]
    assert [request.options for request in requests] == [{"seed": 100 + i} for i in range(20)]
    assert requests[0].prompt == [{"role": "user", "content": "hi"}]
    assert progress == [(0, 20), (16, 20), (20, 20)]
    # Rows 0, 1, 2, 4, 5, ...: of every third of the file as many as of the others.
    assert (measures["n"], measures["n_calls"], measures["n_text"], measures["n_failed"]) == (20, 14, 6, 0)
    assert measures["exact_match"] == 1
    assert measures["turned_down"] == 0
    assert measures["denoising_steps_per_canvas"] == 4
    assert measures["tokens_per_forward"] == 2.5
    assert 0.04 / 20 <= measures["seconds_per_request"] < 0.5 / 20
    assert [entry["expected"]["text"] for entry in wrong] == ["No."] * 6
    assert wrong[0]["got"]["calls"][0]["name"] == "GetWeather"


def test_declared_tools_go_to_the_engine_and_count_as_known():
    tool = {"type": "function", "function": {"name": "Sing", "parameters": {"properties": {"song": {}}}}}
    declared = Row(prompt=WEATHER.prompt, calls=WEATHER.calls, text="", tools=(tool,))
    engine = Engine(reply(call("Sing", song="x")))
    assert evaluate(engine, [declared])["valid_calls"] == 1
    assert engine.groups[0][0].options == {"seed": 0, "tools": [tool]}
    assert evaluate(engine, [WEATHER])["valid_calls"] == 0


def test_failed_requests_are_counted_and_wrong():
    wrong = []
    failed = reply(finish_reason="error", error="lost")
    measures = evaluate(Engine(failed), [row(text="No.")], on_wrong=wrong.append)
    assert measures["n_failed"] == 1
    assert wrong[0]["got"]["error"] == "lost"


def message(**reference):
    return {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", **reference}]}


def test_arguments_may_be_a_json_string(tmp_path):
    function = {"name": "A", "arguments": '{"x": "é", "n": 1}'}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(message(tool_calls=[{"type": "function", "function": function}])))
    [parsed] = read_rows(path)
    assert parsed.calls == (call("A", x="é", n=1),)
    assert parsed.prompt == ({"role": "user", "content": "hi"},)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"text": "hi"}, "messages"),
        ({"messages": []}, "empty"),
        ({"messages": [{"content": "hi"}]}, "role"),
        ({"messages": [{"role": "user", "content": "hi"}]}, "last message"),
        ({"messages": [{"role": "assistant", "content": "hi"}]}, "before"),
        (message(), "neither"),
        (message(content=[]), "neither"),
        (message(content=[{"type": "image_url"}]), "belong to the messages of user"),
        (message(content=3), "must be text"),
        (message(tool_calls={"a": 1}), "list"),
        (message(tool_calls=[{"name": "A"}]), "function"),
        (message(tool_calls=[{"function": {"name": "A", "arguments": "{"}}]), "no JSON"),
        (message(tool_calls=[{"function": {"name": "A", "arguments": "[1]"}}]), "mapping"),
        (message(content="hi") | {"tools": "none"}, "tools"),
    ],
)
def test_a_bad_row_names_file_line_and_reason(tmp_path, value, reason):
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{json.dumps(message(content='hi'))}\n\n{json.dumps(value)}\n")
    with pytest.raises(DataError, match=reason) as caught:
        read_rows(path)
    assert (caught.value.path, caught.value.line) == (str(path), 3)


def test_unreadable_files(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("{\n")
    with pytest.raises(DataError, match="no JSON"):
        read_rows(path)
    path.write_text("\n")
    with pytest.raises(InputError, match="no conversation"):
        read_rows(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="UTF-8"):
        read_rows(path)


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(vars(redraft), "load", lambda model, **settings: Engine(reply(call("B"))))
    data, errors = tmp_path / "rows.jsonl", tmp_path / "errors.jsonl"
    rows = [message(tool_calls=[{"function": {"name": name, "arguments": {}}}]) for name in "BA"]
    data.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    command = ["eval", "tool-calls", "--data", str(data), "--errors", str(errors)]
    assert main([*command, "--json"]) == 0
    out, err = capsys.readouterr()
    measures = json.loads(out)
    assert (measures["exact_match"], measures["n"], measures["slot_f1"]) == (0.5, 2, None)
    assert err == ""
    [wrong] = map(json.loads, errors.read_text().splitlines())
    assert wrong["expected"]["calls"] == [{"name": "A", "arguments": {}}]
    assert main([*command, "--limit", "1"]) == 0
    table = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert (table["exact_match"], table["slot_f1"], table["n"]) == ("100.0 %", "-", "1")
    assert main([*command[:-1], str(tmp_path / "no" / "where")]) == 2
    data.write_text("{}\n")
    assert main(command) == 2
    assert f"{data}, line 1: " in capsys.readouterr().err


def test_without_data_it_takes_what_the_model_brings(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(vars(redraft), "load", lambda model, **settings: Engine(reply(call("B"))))
    assert main(["eval", "tool-calls", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_calls"] == 300
    (tmp_path / "held_out.jsonl").write_text(json.dumps(message(content="No.")))
    assert main(["eval", "tool-calls", "--model", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_text"] == 1
    (tmp_path / "held_out.jsonl").unlink()
    assert main(["eval", "tool-calls", "--model", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"redraft: --data: {tmp_path} brings no held_out.jsonl; name a file of conversations\n"
    )
    assert main(["eval", "tool-calls", "--model", "nothing"]) == 2
    assert "no model 'nothing'" in capsys.readouterr().err
