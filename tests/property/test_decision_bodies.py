"""Whatever stands in a body's fields, it is read, or refused with its place: never with an error of ours."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from redraft.core.errors import InputError
from redraft.decide.state import state_of
from redraft.server.decision_formats import asked, options_of, refused
from redraft.server.decision_schema import AnyRequest
from redraft.server.errors import ApiError

WORDS = (
    "message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output", "user",
    "assistant", "system", "tool", "input_text", "input_json", "input_image", "output_text", "refusal", "c1", "{}",
    '{"a": 1}', "predicate", "noul", "choice", "score", "auto", "label", "", " ", "x",
)  # fmt: skip
FIELDS = (
    "type", "role", "content", "call_id", "name", "namespace", "arguments", "input", "output", "text", "data",
    "refusal", "instructions", "choices", "levels", "criteria", "value", "label", "description", "true",
    "false", "form",
)  # fmt: skip
leaves = st.none() | st.booleans() | st.integers(-2, 300) | st.floats() | st.sampled_from(WORDS)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=5),
    max_leaves=24,
)
odd = st.lists(leaves, max_size=2) | leaves
part = st.fixed_dictionaries({"type": st.sampled_from(WORDS[9:14]) | odd}, optional={"text": values})
parts = st.lists(part, max_size=3)
calls = st.fixed_dictionaries(
    {"type": st.sampled_from(WORDS[:5]) | odd, "call_id": st.just("c1") | values},
    optional={"name": values, "namespace": values, "arguments": values, "input": values, "output": values},
)
messages = st.fixed_dictionaries({"role": st.sampled_from(WORDS[5:9]) | values, "content": parts | values})
questions = st.fixed_dictionaries(
    {"type": st.sampled_from(("predicate", "noul", "choice", "score")) | values},
    optional={name: values for name in ("instructions", "choices", "levels", "criteria", "name", "form")},
)
names = st.text(max_size=3) | st.sampled_from(FIELDS)
bodies = st.fixed_dictionaries(
    {"model": st.just("mini"), "input": st.lists(calls | messages, max_size=4) | st.lists(values, max_size=3) | values,
     "questions": st.lists(questions | values, max_size=4) | values},
) | st.fixed_dictionaries(
    {"state": values, "questions": st.dictionaries(names, questions | values, max_size=4)},
    optional={"instructions": values},
)  # fmt: skip


def answer(body) -> ApiError | list:
    """The questions of a body that is one, or what its sender is told."""
    read = TypeAdapter(AnyRequest).validate_python(body)
    try:
        state, found = asked(read)
        options_of(read)
        state_of(state)
    except ApiError as error:
        return error
    except InputError as error:
        return refused(error, read)
    return found


@settings(max_examples=600, deadline=None)
@given(body=bodies)
def test_a_body_is_read_or_refused(body):
    try:
        came = answer(body)
    except ValidationError:
        return
    if isinstance(came, ApiError):
        assert (came.status, bool(came.param)) == (400, True), came.message
    else:
        assert len(came) == len(body["questions"])


def test_a_body_that_is_fine_is_no_error():
    """So that the one above has something to find."""
    body = {"model": "mini", "input": "x", "questions": [{"type": "predicate", "instructions": "x"}]}
    assert len(answer(body)) == 1
    assert answer(body | {"input": [3]}).param == "input.0"
