"""Where a request goes on from what earlier ones have encoded, and what it leaves to later ones."""

from __future__ import annotations

from redraft.engine.prefix import PrefixCache
from redraft.engine.prompt_images import identity, runs_of
from redraft.engine.sequence import Sequence
from redraft.engine.stops import ENCODE_CHUNK, Stops


def resume(sequence: Sequence, prefixes: PrefixCache) -> None:
    """Gives a request what is known of its prompt."""
    # What follows the prompt depends on its last token, and no snapshot holds what the causal mode makes of it.
    most = len(sequence.prompt) - sequence.judged
    known = prefixes.take(sequence.identity, [stop for stop in sequence.stops if stop <= most])
    if known is not None:
        sequence.cache, sequence.pending = known, sequence.prompt[known.length :]
        sequence.costs.cached_tokens = known.length


def remember(sequence: Sequence, prefixes: PrefixCache, stops: Stops) -> None:
    """Keeps a place that a longer conversation can go on from. Of a long prompt, that is its last one."""
    if len(sequence.pending) > ENCODE_CHUNK:
        return
    length = sequence.cache.length
    ids = (sequence.prompt + sequence.reply.token_ids)[:length]
    if sequence.cache.ends == stops(ids, runs_of(sequence.images, length)):
        prefixes.put(identity(ids, sequence.images), sequence.cache)
