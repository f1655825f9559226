"""From a request that has ended to what the user gets."""

from __future__ import annotations

from redraft.core.results import Generation
from redraft.engine.infill import filled
from redraft.engine.judge import spans
from redraft.engine.sequence import Sequence
from redraft.text.tokenizer import Tokenizer


def outcome(sequence: Sequence, tokenizer: Tokenizer | None) -> Generation:
    """The reply with its parts, stats and doubts; one that has not ended counts as cancelled."""
    reply, options = sequence.reply, sequence.options
    reply.finish = finish = reply.finish or "cancelled"
    parsed = reply.reading.parsed(reply.text, reply.end)
    if finish == "stop" and parsed.tool_calls:
        finish = "tool_calls"
    assert options.seed is not None
    places = [place for place in sequence.doubts if place < len(reply.token_ids)]
    return Generation(
        text=parsed.text,
        reasoning=parsed.reasoning,
        tool_calls=parsed.tool_calls,
        token_ids=tuple(reply.token_ids),
        finish_reason=finish,
        seed=options.seed,
        stats=sequence.costs.finish(
            len(sequence.prompt),
            len(reply.token_ids),
            verified=options.mode == "verified",
            image_tokens=sequence.image_tokens,
        ),
        error=sequence.failed,
        raw=reply.text,
        logprobs=tuple(sequence.logprobs[: len(reply.token_ids)]) if options.logprobs else None,
        doubts=spans(reply.token_ids, places, sequence.logprobs, tokenizer),
        fields=() if sequence.fields is None else sequence.fields.told(reply, sequence.logprobs),
        filled=filled(reply.text, sequence.pieces) if sequence.pieces else (),
        ignored=sequence.ignored,
    )
