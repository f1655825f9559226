"""From a request's fields to the engine's options, and back from its results to OpenAI's words."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import asdict
from typing import Any

from redraft.core.options import exact
from redraft.core.results import Generation, ToolCall
from redraft.server.errors import ApiError
from redraft.server.schema import ChatRequest, CompletionRequest, Diffusion, InfillRequest

_FINISH = {"empty": "stop"}
_DIFFUSION = {"steps": "max_denoising_steps"}


def options_of(body: ChatRequest | CompletionRequest | InfillRequest) -> dict[str, Any]:
    """Generation options; what a client left unset is left to the checkpoint.

    Raises:
        ApiError: two fields that contradict each other.
    """
    wanted: dict[str, Any] = {
        "temperature": body.temperature,
        "seed": body.seed,
        "max_new_tokens": body.max_tokens,
    }
    if not isinstance(body, InfillRequest):
        wanted["stop"] = body.stop or None
        wanted["top_p"] = body.top_p
    if isinstance(body, ChatRequest):
        wanted |= _of_chat(body)
    if body.diffusion is not None:
        wanted |= _of_diffusion(body.diffusion)
    return {name: value for name, value in wanted.items() if value is not None}


def _of_chat(body: ChatRequest) -> dict[str, Any]:
    if None not in (body.max_tokens, body.max_completion_tokens) and body.max_tokens != body.max_completion_tokens:
        raise ApiError(400, "max_tokens and max_completion_tokens differ: give one of them", param="max_tokens")
    thinking = body.chat_template_kwargs and body.chat_template_kwargs.enable_thinking
    if body.reasoning_effort is not None:
        thinking = thinking or body.reasoning_effort not in ("none", "minimal")
    found: dict[str, Any] = {
        "response_format": body.response_format,
        "tools": body.tools,
        "tool_choice": _tool_choice(body.tool_choice),
        "parallel_tool_calls": body.parallel_tool_calls,
        "logprobs": body.logprobs,
        "enable_thinking": thinking,
        "initial_canvas": body.prediction and body.prediction.content,
    }
    if body.max_completion_tokens is not None:
        found["max_new_tokens"] = body.max_completion_tokens
    return found


def _tool_choice(choice: str | dict[str, Any] | None) -> str | None:
    if isinstance(choice, dict):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if choice.get("type") != "function" or not isinstance(name, str) or not name:
            raise ApiError(400, "tool_choice must name a function", param="tool_choice")
        return name
    if choice not in (None, "auto", "none", "required"):
        raise ApiError(400, f"tool_choice must be auto, none, required or a function, got {choice!r}",
                       param="tool_choice")  # fmt: skip
    return choice


def _of_diffusion(diffusion: Diffusion) -> dict[str, Any]:
    fields = diffusion.model_dump(exclude={"drafts", "known_tools"}, exclude_none=True)
    return {_DIFFUSION.get(name, name): value for name, value in fields.items()}


def finish_reason(generation: Generation) -> str:
    """In OpenAI's words."""
    return _FINISH.get(generation.finish_reason, generation.finish_reason)


def without_calls(generation: Generation) -> Generation:
    """The reply for a client that has declared no tool, and could do nothing with a call."""
    finish = "stop" if generation.finish_reason == "tool_calls" else generation.finish_reason
    return dataclasses.replace(generation, tool_calls=(), finish_reason=finish)


def message_of(generation: Generation, ids: list[str]) -> dict[str, Any]:
    """The assistant's message; `ids` are those of its calls."""
    message: dict[str, Any] = {"role": "assistant", "content": generation.text, "refusal": None}
    if generation.reasoning is not None:
        message["reasoning_content"] = generation.reasoning
    if generation.tool_calls:
        message["content"] = generation.text or None
        message["tool_calls"] = [call_of(call, id) for call, id in zip(generation.tool_calls, ids, strict=True)]
    return message


def call_of(call: ToolCall, call_id: str) -> dict[str, Any]:
    """One call; its arguments are a text of JSON."""
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    return {"id": call_id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def logprobs_of(pieces: list[str], logprobs: tuple[float, ...]) -> dict[str, Any]:
    """Each token with the causal mode's log-probability of it."""
    content = [
        {"token": piece, "logprob": value, "bytes": list(piece.encode()), "top_logprobs": []}
        for piece, value in zip(pieces, logprobs, strict=True)
    ]
    return {"content": content, "refusal": None}


def usage_of(generations: list[Generation]) -> dict[str, Any]:
    """Tokens of all choices; the prompt counts once."""
    first = generations[0].stats
    completion = sum(generation.stats.generated_tokens for generation in generations)
    return {
        "prompt_tokens": first.prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": first.prompt_tokens + completion,
        "prompt_tokens_details": {
            "cached_tokens": first.cached_tokens,
            "image_tokens": first.image_tokens,
        },
    }


def extras_of(generation: Generation) -> dict[str, Any]:
    """What OpenAI's form has no place for."""
    return {
        "seed": exact(generation.seed),
        "finish_reason": generation.finish_reason,
        "ignored": list(generation.ignored),
        "stats": asdict(generation.stats),
        "doubts": [asdict(doubt) for doubt in generation.doubts],
        "fields": [asdict(field) for field in generation.fields],
        "raw": generation.raw,
    }
