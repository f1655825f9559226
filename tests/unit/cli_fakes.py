"""An engine that plays a script: what the command line needs of one, without torch or weights."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from redraft.core.engine import Request
from redraft.core.events import Commit, Draft, Event
from redraft.core.results import Generation, GenerationStats, ModelInfo, ToolCall

CALL = ToolCall(name="AddToPlaylist", arguments={"artist": "Daft Punk", "playlist": "Sunday morning"})
REPLY = [
    *("<|tool_call>", "call:", "Add", "To", "Play", "list", "{", "artist", ":", '<|"|>', "D", "aft", " Punk", '<|"|>'),
    *(",", "playlist", ":", '<|"|>', "Sunday", " morning", '<|"|>', "}", "<tool_call|>", "<turn|>"),
]  # fmt: skip
NOISE = ["ing", " the", "\n", "zu", " play", "<pad>", "qu", " 7", "{", "er", " rain", "'s"]


def stats(**changes: Any) -> GenerationStats:
    values = dict(
        prompt_tokens=12,
        cached_tokens=0,
        generated_tokens=23,
        canvases=1,
        denoising_steps=8,
        encode_passes=1,
        tokens_per_forward=2.875,
        time_to_first_canvas_s=0.04,
        encode_s=0.01,
        denoise_s=0.03,
        total_s=0.05,
        tokens_per_second=460.0,
    )
    return GenerationStats(**{**values, **changes})


def generation(**changes: Any) -> Generation:
    values = dict(
        text="",
        reasoning=None,
        tool_calls=(CALL,),
        token_ids=(1, 2, 3),
        finish_reason="tool_calls",
        seed=7,
        stats=stats(),
    )
    return Generation(**{**values, **changes})


class FakeEngine:
    """Replies with `reply`, drafted over `steps` steps; keeps what it was asked.

    Args:
        reply: the generation that ends every stream.
        pieces: the canvas that it settles on, padded to `length`.
        on_draft: called before each draft, for interrupts and errors.
    """

    def __init__(self, reply: Generation | None = None, pieces: Sequence[str] = REPLY, **settings: Any) -> None:
        self.reply = reply or generation()
        self.steps = settings.get("steps", 8)
        self.on_draft = settings.get("on_draft", lambda step: None)
        length = settings.get("length", 40)
        self.target = [*pieces, *["<pad>"] * (length - len(pieces))]
        self.vocabulary = [*dict.fromkeys([*self.target, *NOISE])]
        self.asked: list[tuple[Any, dict[str, Any]]] = []
        self.closed = 0
        self.adapters: dict[str, Any] = {}
        defaults = {"max_denoising_steps": 48}
        self.info = ModelInfo(
            name="fake", path="/fake", parameters=1, vocab_size=len(self.vocabulary), canvas_length=length,
            max_context=1024, device="cpu", dtype="float32", quantization=None, has_tokenizer=True,
            has_chat_template=True, defaults=defaults,
        )  # fmt: skip

    def pieces(self, token_ids: Sequence[int]) -> list[str]:
        return [self.vocabulary[token] for token in token_ids]

    def tokenize(self, prompt: Any, options: Any = None, **changes: Any) -> list[int]:
        return [1] * len(prompt)

    def generate(self, prompt: Any, options: Any = None, **changes: Any) -> Generation:
        return [event for event in self.stream(prompt, **changes)][-1]  # type: ignore[return-value]

    def generate_batch(self, requests: Sequence[Any]) -> list[Generation]:
        return [self.generate(r.prompt, **r.options) for r in requests if isinstance(r, Request)]

    def stream(self, prompt: Any, options: Any = None, **changes: Any) -> Iterator[Event]:
        self.asked.append((prompt, changes))
        try:
            yield from self._drafts()
            kept = self.target.index("<turn|>") if "<turn|>" in self.target else len(self.target)
            ids = tuple(map(self.vocabulary.index, self.target[:kept]))
            yield Commit(canvas=0, token_ids=ids, text="".join(self.target[:kept]), denoising_steps=self.steps)
            yield self.reply
        finally:
            self.closed += 1

    def _drafts(self) -> Iterator[Draft]:
        dice = random.Random(0)
        ranks = [dice.random() for _ in self.target]
        for step in range(self.steps):
            self.on_draft(step)
            done = (step + 1) / self.steps
            accepted = tuple(rank <= done for rank in ranks)
            pieces = [
                piece if done_here or dice.random() < done else dice.choice(NOISE)
                for piece, done_here in zip(self.target, accepted, strict=True)
            ]
            yield Draft(
                canvas=0,
                step=step,
                token_ids=tuple(map(self.vocabulary.index, pieces)),
                accepted=accepted,
                entropy_nats=tuple(0.01 if a else 3 * (1 - done) * dice.random() for a in accepted),
                temperature=0.8 - 0.4 * done,
            )
