"""Where a prompt is encoded in pieces.

How many rows a product has can change a last bit of each, so the pieces follow from the ids alone: whatever an earlier
turn has left of a prompt, the rest is encoded as it would be without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from redraft.text.chat import ChatTemplate
from redraft.text.markers import RESPONSE_CLOSE
from redraft.text.tokenizer import Tokenizer

# Longer prompts are encoded piece by piece, a piece a step: that bounds the attention mask, lets a cancelled request
# go, and keeps short requests beside a long one moving.
ENCODE_CHUNK = 512
# (first, behind the last) of a picture's places among ids.
Run = tuple[int, int]
_USER = [{"role": "user", "content": "x"}]


@dataclass(frozen=True, kw_only=True)
class Stops:
    """The rule: a piece ends where a reply begins, then with each whole canvas of it, and behind a tool's result.

    Attributes:
        canvas_length: of the model; 0 where it has no canvas.
        opening: what a template puts before a reply.
        results: tokens that end a tool's result.
        ends: tokens that end a reply.
    """

    canvas_length: int
    opening: tuple[int, ...] = ()
    results: frozenset[int] = frozenset()
    ends: frozenset[int] = frozenset()

    @classmethod
    def of_model(
        cls, tokenizer: Tokenizer | None, template: ChatTemplate | None, ends: frozenset[int], canvas_length: int
    ) -> Stops:
        """The rule for a model's conversations."""
        if tokenizer is None or template is None:
            return cls(canvas_length=canvas_length)
        result = tokenizer.id_of(RESPONSE_CLOSE)
        results = frozenset() if result is None else frozenset({result})
        return cls(canvas_length=canvas_length, opening=_opening(tokenizer, template), results=results, ends=ends)

    def __call__(self, ids: Sequence[int], runs: Sequence[Run] = ()) -> list[int]:
        """The ends of the pieces; the last of them is the prompt's. `runs` are those of its pictures."""
        found = self.lasting(ids, runs)
        return found if found[-1:] == [len(ids)] or not ids else [*found, len(ids)]

    def lasting(self, ids: Sequence[int], runs: Sequence[Run] = ()) -> list[int]:
        """Those ends that stay where they are in every longer prompt."""
        if runs:
            return self._around(ids, runs)
        found: list[int] = []
        begun, replying = 0, False
        opening, width = self.opening, len(self.opening)
        for end, token in enumerate(ids, start=1):
            opens = bool(opening) and token == opening[-1] and tuple(ids[max(0, end - width) : end]) == opening
            opens = opens or token in self.results
            longest = min(self.canvas_length or ENCODE_CHUNK, ENCODE_CHUNK) if replying else ENCODE_CHUNK
            if opens or end - begun == longest:
                found.append(end)
                begun = end
            replying = opens or (replying and token not in self.ends)
        return found

    def _around(self, ids: Sequence[int], runs: Sequence[Run]) -> list[int]:
        """The same, with pictures that no piece may end in: who is in one sees what follows. One that does not fit
        begins a piece, which is as long as it is."""
        found: list[int] = []
        begun, replying, behind = 0, False, 0
        ends_of, width = dict(runs), len(self.opening)
        for place, token in enumerate(ids):
            longest = min(self.canvas_length or ENCODE_CHUNK, ENCODE_CHUNK) if replying else ENCODE_CHUNK
            if place in ends_of:
                behind = ends_of[place]
                if begun < place and behind - begun > longest:
                    found.append(place)
                    begun = place
            end = place + 1
            if end < behind:
                continue
            opens = width > 0 and tuple(ids[max(0, end - width) : end]) == self.opening
            opens = opens or token in self.results
            if opens or end - begun >= longest:
                found.append(end)
                begun = end
            replying = opens or (replying and token not in self.ends)
        return found


def _opening(tokenizer: Tokenizer, template: ChatTemplate) -> tuple[int, ...]:
    try:
        before, whole = (template.render(_USER, add_generation_prompt=more) for more in (False, True))
    except Exception:
        # A template that refuses the plainest conversation will say so when it is asked for a real one.
        return ()
    return tuple(tokenizer.encode(whole[len(before) :])) if whole.startswith(before) else ()
