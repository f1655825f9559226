"""A signal at any moment of a run: it is saved, and goes on as if nothing had been. Here in one process; see also
`tests/e2e/test_train_stopped.py`."""

from __future__ import annotations

import json
import signal
import threading

import pytest

from redraft.cli import main
from redraft.train import run as run_module
from redraft.train import stopping as stopping_module
from redraft.train.run import train
from redraft.train.stopping import Interrupted
from tiny_recipe import write_recipe, written

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
STEPS = 6
SHORT = {"steps": STEPS, "eval_every": 2, "save_every": 3}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """With a recipe, its data, and the output of a run that nobody has interrupted: `whole/`."""
    path = tmp_path_factory.mktemp("stopping")
    train(write_recipe(path, **SHORT), ["output=whole"])
    return path


@pytest.fixture
def recipe(tmp_path):
    return write_recipe(tmp_path, **SHORT)


def raising(function, number, at):
    """The function, which is sent a signal at its `at`-th call."""
    calls = []

    def wrapped(*given, **named):
        calls.append(given)
        if len(calls) == at:
            signal.raise_signal(number)
        return function(*given, **named)

    return wrapped


@pytest.mark.parametrize(("number", "step"), [(SIGNALS[step % 2], step) for step in range(1, STEPS + 1)])
def test_a_run_that_a_signal_ends_goes_on_with_the_same_bits(recipe, directory, monkeypatch, number, step):
    handlers = [signal.getsignal(number) for number in SIGNALS]
    monkeypatch.setattr(run_module._Trainer, "_step", raising(run_module._Trainer._step, number, step))
    with pytest.raises(Interrupted) as raised:
        train(recipe, ["output=parts"])
    monkeypatch.undo()
    assert raised.value.signal == number
    assert raised.value.result is not None
    assert raised.value.result["steps"] == step
    assert raised.value.result["interrupted"]
    assert [signal.getsignal(number) for number in SIGNALS] == handlers
    assert not train(recipe, ["output=parts"])["interrupted"]
    assert written(recipe.parent / "parts") == written(directory / "whole")


@pytest.mark.parametrize("call", range(1, 9))
def test_an_evaluation_that_is_broken_off_is_made_up_for(recipe, directory, monkeypatch, call):
    """Calls are those of two steps, of the evaluation that follows, and so on."""
    monkeypatch.setattr(run_module, "loss_of", raising(run_module.loss_of, signal.SIGTERM, call))
    with pytest.raises(Interrupted):
        train(recipe, ["output=parts"])
    monkeypatch.undo()
    train(recipe, ["output=parts"])
    assert written(recipe.parent / "parts") == written(directory / "whole")


@pytest.mark.parametrize("saves", [1, 3])
def test_what_was_just_saved_is_not_saved_again(recipe, directory, monkeypatch, saves):
    saved = []
    save = run_module.save_state

    def noted(*parts):
        saved.append(parts[-1].step)
        save(*parts)

    monkeypatch.setattr(run_module, "save_state", raising(noted, signal.SIGINT, saves))
    with pytest.raises(Interrupted):
        train(recipe, ["output=parts"])
    assert saved == [2, 3, 4][:saves]
    monkeypatch.undo()
    train(recipe, ["output=parts"])
    assert written(recipe.parent / "parts") == written(directory / "whole")


def test_a_signal_after_the_last_step_changes_nothing(recipe, directory, monkeypatch):
    monkeypatch.setattr(run_module, "save_state", raising(run_module.save_state, signal.SIGTERM, 4))
    assert not train(recipe, ["output=parts"])["interrupted"]
    assert written(recipe.parent / "parts") == written(directory / "whole")


def test_a_second_signal_does_not_wait(recipe, monkeypatch):
    """It does what it would have done without us."""
    monkeypatch.setattr(stopping_module, "_SAME_S", -1.0)
    monkeypatch.setattr(run_module, "save_state", raising(run_module.save_state, signal.SIGINT, 1))
    monkeypatch.setattr(run_module._Trainer, "_step", raising(run_module._Trainer._step, signal.SIGTERM, 1))
    with pytest.raises(KeyboardInterrupt) as raised:
        train(recipe)
    assert not isinstance(raised.value, Interrupted)
    assert not (recipe.parent / "run" / "state").exists()


def test_a_signal_that_is_passed_on_twice_is_one(recipe, monkeypatch):
    twice = raising(raising(run_module._Trainer._step, signal.SIGINT, 2), signal.SIGINT, 2)
    monkeypatch.setattr(run_module._Trainer, "_step", twice)
    with pytest.raises(Interrupted) as raised:
        train(recipe)
    assert raised.value.result is not None
    assert raised.value.result["steps"] == 2


def test_another_thread_trains_without_signals(recipe, directory):
    handlers = [signal.getsignal(number) for number in SIGNALS]
    done = []
    thread = threading.Thread(target=lambda: done.append(train(recipe, ["output=parts"])))
    thread.start()
    while not done:
        assert [signal.getsignal(number) for number in SIGNALS] == handlers
        thread.join(0.1)
    assert written(recipe.parent / "parts") == written(directory / "whole")


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("moment", ["read_parts", "fitting"])
def test_before_the_first_step_it_ends_at_once(recipe, monkeypatch, capsys, number, moment):
    monkeypatch.setattr(run_module, moment, raising(getattr(run_module, moment), number, 1))
    assert main(["train", str(recipe), "--json"]) == 128 + number
    out, err = capsys.readouterr()
    assert json.loads(out)["interrupted"] is True
    [line] = [line for line in err.splitlines() if "nothing had to be saved" in line]
    assert line == (
        f"redraft: {number.name} before a step was taken: nothing had to be saved; to go on: "
        f"redraft train {recipe} --json"
    )


@pytest.mark.parametrize("number", SIGNALS)
def test_the_command_says_what_is_saved_and_how_to_go_on(recipe, monkeypatch, capsys, number):
    monkeypatch.setattr(run_module._Trainer, "_step", raising(run_module._Trainer._step, number, 5))
    data = recipe.with_name("data.jsonl")
    arguments = ["train", str(recipe), "--set", "output=a run", "--data", str(data)]
    assert main([*arguments, "--json"]) == 128 + number
    out, err = capsys.readouterr()
    document = json.loads(out)
    output = recipe.parent / "a run"
    assert document["interrupted"] is True
    assert (document["steps"], document["of_steps"]) == (5, STEPS)
    assert (document["state"], document["model"]) == (str(output / "state"), str(output / "model"))
    assert document["go_on"] == f"redraft train {recipe} --set 'output=a run' --data {data} --json"
    assert err.splitlines()[-1] == (
        f"redraft: {number.name}: step 5 of {STEPS} is saved in {output}/state; the best checkpoint so far is "
        f"{output}/model; to go on: {document['go_on']}"
    )
    monkeypatch.undo()
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith(f"steps          {STEPS}\n")
