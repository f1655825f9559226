"""mini as it is shipped."""

from __future__ import annotations

import pytest
import torch

import redraft
from redraft.checkpoint.locate import BUNDLED

DIRECTORY = BUNDLED / "mini"


@pytest.fixture(scope="module")
def engine():
    return redraft.load("mini", dtype="float32", threads=1)


def test_it_is_small_and_complete():
    files = {path.name: path.stat().st_size for path in DIRECTORY.iterdir()}
    assert sum(files.values()) <= 16 * 2**20
    assert {"config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja", "README.md"} <= set(files)


@pytest.mark.parametrize(
    ("text", "name", "argument"),
    [
        ("Play some music by Nina Simone", "PlayMusic", "Nina Simone"),
        ("what is the weather in Paris", "GetWeather", "Paris"),
        ("book a table for two in Rome", "BookRestaurant", "Rome"),
        ("rate this book five stars", "RateBook", "five"),
    ],
)
def test_it_calls(engine, text, name, argument):
    reply = engine.generate(text, seed=0)
    assert reply.finish_reason == "tool_calls"
    assert [call.name for call in reply.tool_calls] == [name]
    assert argument in reply.tool_calls[0].arguments.values()
    assert not reply.tool_calls[0].repaired


def test_it_turns_down_what_it_cannot_do(engine):
    reply = engine.generate("how do i change the oil in my car", seed=0)
    assert reply.tool_calls == ()
    assert reply.text.startswith("I can only help with")
    assert reply.finish_reason == "stop"


def test_stop_strings_and_budgets_cut_its_text(engine):
    text = "how do i change the oil in my car"
    whole = engine.generate(text, seed=0).text
    cut = engine.generate(text, seed=0, stop="help")
    assert cut.text == whole.partition("help")[0].strip()
    assert cut.finish_reason == "stop"
    short = engine.generate(text, seed=0, max_new_tokens=3)
    assert (len(short.token_ids), short.finish_reason) == (3, "length")


def test_a_conversation_goes_on_and_encodes_only_what_is_new(engine):
    messages = [{"role": "user", "content": "what is the weather in Paris"}]
    first = engine.generate(messages, seed=0)
    call = first.tool_calls[0]
    messages.append(
        {"role": "assistant", "tool_calls": [{"function": {"name": call.name, "arguments": call.arguments}}]}
    )
    messages.append({"role": "user", "content": "play some jazz"})
    second = engine.generate(messages, seed=0)
    assert second.stats.cached_tokens == first.stats.prompt_tokens
    assert second.stats.prompt_tokens > first.stats.prompt_tokens + first.stats.generated_tokens


def test_five_different_requests_in_a_batch_are_what_each_is_alone(engine):
    texts = [
        "add this song to my playlist",
        "who wrote hamlet",
        "find the movie Casablanca",
        "will it rain tomorrow in Oslo",
        "give the saga three points out of 6",
    ]
    alone = [engine.generate(text, seed=i).token_ids for i, text in enumerate(texts)]
    requests = [redraft.Request(prompt=text, options={"seed": i}) for i, text in enumerate(texts)]
    assert [reply.token_ids for reply in engine.generate_batch(requests)] == alone


def test_transformers_loads_it_with_the_same_logits(engine):
    from checkpoints import quiet

    with quiet():
        from transformers import AutoTokenizer, DiffusionGemmaForBlockDiffusion

        reference = DiffusionGemmaForBlockDiffusion.from_pretrained(DIRECTORY, dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(DIRECTORY)
    text = engine.template.render([{"role": "user", "content": "play some jazz"}])
    ids = engine.tokenizer.encode(text)
    assert tokenizer.encode(text, add_special_tokens=False) == ids
    assert tokenizer.decode(ids) == text
    canvas = torch.randint(
        engine.info.vocab_size, (1, engine.info.canvas_length), generator=torch.Generator().manual_seed(0)
    )
    model = redraft.load_model(DIRECTORY)
    cache = model.new_cache()
    model.encode(torch.tensor([ids]), cache)
    with torch.no_grad():
        expected = reference(input_ids=torch.tensor([ids]), decoder_input_ids=canvas).logits
    assert torch.allclose(model.denoise(canvas, cache), expected, atol=1e-4)
