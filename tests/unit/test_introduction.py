"""What a model says of itself to whoever opens the page."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from cli_fakes import FakeEngine

import redraft
from redraft.core.errors import CheckpointError
from redraft.server.introduction import GENERAL, MOST_CHARACTERS, Introduction
from redraft.server.run import run
from redraft.server.settings import Settings

# What each of mini's examples asks for, in the words of SNIPS's slots.
RIGHT = {
    "Will it snow in Oslo on Friday?": (
        "GetWeather",
        {"condition_description": "snow", "city": "Oslo", "timeRange": "Friday"},
    ),
    "Play something by Nina Simone on Spotify": ("PlayMusic", {"artist": "Nina Simone", "service": "Spotify"}),
    "Add this song to my summer hits playlist": (
        "AddToPlaylist",
        {"music_item": "song", "playlist_owner": "my", "playlist": "summer hits"},
    ),
    "Book a restaurant for five people in Paris": (
        "BookRestaurant",
        {"restaurant_type": "restaurant", "party_size_number": "five", "city": "Paris"},
    ),
    "Rate The Great Gatsby 5 out of 6 stars": (
        "RateBook",
        {"object_name": "The Great Gatsby", "rating_value": "5", "best_rating": "6", "rating_unit": "stars"},
    ),
    "Find the movie The Godfather": ("SearchCreativeWork", {"object_type": "movie", "object_name": "The Godfather"}),
    "When is Star Wars playing at the nearest cinema?": (
        "SearchScreeningEvent",
        {"movie_name": "Star Wars", "spatial_relation": "nearest", "object_location_type": "cinema"},
    ),
}


@pytest.fixture(scope="module")
def mini():
    return redraft.load("mini", dtype="float32", threads=1)


def test_minis_examples_are_one_for_each_call(mini):
    assert set(Introduction.of(mini.info).examples) == set(RIGHT)
    known = {tool["function"]["name"] for tool in mini.info.defaults["tools"]}
    assert {name for name, _ in RIGHT.values()} == known
    assert "toy" in str(Introduction.of(mini.info).about)


@pytest.mark.parametrize("text", RIGHT)
def test_minis_examples_are_answered_rightly(mini, text):
    replies = [mini.generate(text, seed=seed) for seed in range(10)]
    calls = [[(call.name, dict(call.arguments)) for call in reply.tool_calls] for reply in replies]
    assert calls.count([RIGHT[text]]) >= 9, calls


def test_who_follows_instructions_and_says_nothing_gets_general_requests():
    info = FakeEngine().info
    assert Introduction.of(info) == Introduction(examples=GENERAL)
    assert Introduction.of(replace(info, has_chat_template=False)).examples == ()
    assert Introduction.of(replace(info, defaults={"tools": [{}]})).examples == ()


def test_a_directory_introduces_its_model(tmp_path):
    info = replace(FakeEngine().info, path=str(tmp_path))
    (tmp_path / "introduction.json").write_text(json.dumps({"about": "It rhymes.", "examples": ["A rhyme on sea"]}))
    assert Introduction.of(info) == Introduction(about="It rhymes.", examples=("A rhyme on sea",))


@pytest.mark.parametrize(
    ("found", "named"),
    [
        ({"about": 3}, "'about'"),
        ({"about": "x" * (MOST_CHARACTERS + 1)}, "'about'"),
        ({"examples": "Write"}, "'examples'"),
        ({"examples": [" "]}, "'examples'"),
        ({"examples": ["Write"] * 13}, "'examples'"),
        ({"prompts": []}, "'prompts'"),
        ({"infill": {"text": "a [[...]]"}}, "'infill'"),
        ({"infill": {"text": "a [[...]]", "request": 5}}, "'infill'"),
        ({"infill": "a [[...]]"}, "'infill'"),
    ],
)
def test_an_introduction_that_is_none_is_refused_by_name(tmp_path, found, named):
    (tmp_path / "introduction.json").write_text(json.dumps(found))
    with pytest.raises(CheckpointError, match=named):
        Introduction.of(replace(FakeEngine().info, path=str(tmp_path)))


def test_a_server_that_could_not_introduce_its_model_does_not_start(tmp_path):
    (tmp_path / "introduction.json").write_text("[]")
    engine = FakeEngine()
    engine.info = replace(engine.info, path=str(tmp_path))
    with pytest.raises(CheckpointError, match=r"introduction\.json"):
        run(engine, Settings(port=0), announce=pytest.fail)  # type: ignore[arg-type]


def test_the_tokens_that_end_a_reply_are_said(mini):
    assert mini.pieces(mini.info.end_ids) == ["<pad>", "<eos>", "<turn|>", "<|tool_response>"]
