"""What becomes of a canvas that is done: chosen, drafted again, or committed."""

from __future__ import annotations

import time
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from redraft.core.events import Commit
from redraft.engine.canvas import CanvasNoise, CanvasState, Judged, new_canvas
from redraft.engine.instead import calls, say_instead
from redraft.engine.judge import cut_at_end, doubtful, score
from redraft.engine.sequence import Sequence
from redraft.model.model import DiffusionGemma
from redraft.sampler.text_stop import repeats

# A redraft begins this near the end of the schedule, where temperatures are low.
REDRAFT_STEPS = 12


class Settle:
    """Decides about settled canvases of one model."""

    def __init__(self, model: DiffusionGemma) -> None:
        self.model = model

    def __call__(self, sequence: Sequence, state: CanvasState) -> Commit | None:
        """The commit of a canvas, or None where it is drafted once more."""
        assert state.argmax is not None
        canvas = state.argmax.tolist()
        if calls(sequence, canvas):
            self._say_instead(sequence, state)
            return None
        place = self._empty_at(sequence, state, canvas)
        if place is not None and state.barred is None:
            self._bar(sequence, state, place)
            return None
        options = sequence.options
        if options.plateau_steps and not state.settled:
            canvas = self._likeliest(sequence, state)
        if options.redraft:
            chosen = self._redrafted(sequence, state, canvas)
            if chosen is None:
                return None
        elif options.logprobs or (sequence.fields is not None and sequence.fields.is_judged):
            chosen = self._judged(sequence, canvas)
        else:
            return self._commit(sequence, state, canvas, None, empty=place is not None)
        return self._commit(sequence, state, canvas, chosen, empty=place is not None)

    def _say_instead(self, sequence: Sequence, state: CanvasState) -> None:
        """Drafts the canvas once more, as what is said in a call's place."""
        fresh = new_canvas(
            self._noise(sequence, state), sequence.options.stability_threshold, initial=[], pinned=[], drawn=state.steps
        )
        if say_instead(sequence):
            # There is nothing to settle, and nothing to hand over.
            fresh.step = sequence.options.max_denoising_steps - 1
            sequence.options = replace(sequence.options, handover_steps=0)
        sequence.canvas = fresh

    def _empty_at(self, sequence: Sequence, state: CanvasState, canvas: list[int]) -> int | None:
        """Where end-of-turn stands when the reply would show nothing at all; None when it shows something."""
        if not sequence.options.retry_empty or state.pinned is not None:
            return None
        place = next((i for i, token in enumerate(canvas) if token in sequence.reply.end_ids), None)
        if place is None:
            return None
        written = sequence.reply.token_ids + canvas[:place]
        if sequence.constraint is not None:
            automaton = sequence.constraint.automaton
            if automaton.is_complete(automaton.advance(automaton.start, written)):
                return None
        if not written:
            return place
        if sequence.reply.tokenizer is None:
            return None
        parsed = sequence.reply.reading.parsed(sequence.reply.decoded(written))
        return None if parsed.text.strip() or parsed.tool_calls else place

    def _bar(self, sequence: Sequence, state: CanvasState, place: int) -> None:
        sequence.costs.empty_retries += 1
        fresh = new_canvas(
            self._noise(sequence, state), sequence.options.stability_threshold, initial=[], pinned=[], drawn=state.steps
        )
        fresh.barred = torch.arange(fresh.length, device=self.model.device) == place
        sequence.canvas = fresh

    def _likeliest(self, sequence: Sequence, state: CanvasState) -> list[int]:
        """The canvas that the judge likes best among those seen."""
        assert state.argmax is not None
        sequence.costs.plateaus += 1
        seen = {tuple(candidate.tolist()): None for candidate in (*state.candidates, state.argmax)}
        drafts = [list(canvas) for canvas in seen]
        totals = []
        for canvas in drafts:
            judged = self._judged(sequence, canvas)
            totals.append(float(judged.log_probs.sum()))
            self._take_back(sequence, judged)
        return drafts[max(range(len(drafts)), key=totals.__getitem__)]

    def _redrafted(self, sequence: Sequence, state: CanvasState, canvas: list[int]) -> Judged | None:
        """The draft to commit; None once another round has begun."""
        judged, before = self._judged(sequence, canvas), state.judged
        if before is not None and float(judged.log_probs.sum()) <= float(before.log_probs.sum()):
            self._take_back(sequence, judged)
            ends = before.token_ids[-1] in sequence.reply.end_ids
            return before if ends else self._judged(sequence, before.token_ids)
        sequence.costs.redrafts_kept += before is not None
        # Not `state.pinned`, which in a redraft also holds what the round before did not doubt.
        places = [
            place for place in judged.doubts if not any(token >= 0 for token in sequence.pinned[place : place + 1])
        ]
        if not places or state.rounds == sequence.options.redraft:
            return judged
        self._take_back(sequence, judged)
        sequence.costs.redrafts += 1
        held = [-1 if place in places else token for place, token in enumerate(canvas)]
        if len(judged.token_ids) - 1 in places and judged.token_ids[-1] in sequence.reply.end_ids:
            # Where its end is in doubt, what stands behind it holds nothing: it would bar the end.
            held = held[: len(judged.token_ids)]
        threshold = sequence.options.stability_threshold
        fresh = new_canvas(self._noise(sequence, state), threshold, initial=[], pinned=held, drawn=state.steps)
        fresh.step = max(0, sequence.options.max_denoising_steps - REDRAFT_STEPS)
        fresh.rounds, fresh.judged = state.rounds + 1, judged
        sequence.canvas = fresh
        return None

    def _judged(self, sequence: Sequence, canvas: list[int]) -> Judged:
        """Reads a canvas into the request's cache."""
        ids = cut_at_end(canvas, sequence.reply.end_ids, sequence.budget - sequence.committed)
        log_probs, entropies, hidden = score(self.model, sequence, ids)
        return Judged(token_ids=ids, log_probs=log_probs, doubts=doubtful(log_probs, entropies), last_hidden=hidden)

    def _take_back(self, sequence: Sequence, judged: Judged) -> None:
        wanted = sequence.cache.length - len(judged.token_ids)
        kept = sequence.cache.cut(wanted)
        assert kept == wanted, "a cache keeps one canvas more than its window"

    def _noise(self, sequence: Sequence, state: CanvasState) -> CanvasNoise:
        config = self.model.config
        return CanvasNoise(sequence.seed, state.number, sequence.canvas_length, config.vocab_size, self.model.device)

    def _commit(
        self, sequence: Sequence, state: CanvasState, canvas: list[int], judged: Judged | None, *, empty: bool
    ) -> Commit:
        costs = sequence.costs
        costs.canvases += 1
        if costs.first_canvas_s is None:
            costs.first_canvas_s = time.perf_counter() - costs.started
        canvas = canvas if judged is None else judged.token_ids
        before = sequence.committed
        own = None if state.held is None else state.held.own.tolist()
        if sequence.constraint is not None and sequence.strict:
            # What lies behind the budget is fill, and no end that the model has set.
            canvas = canvas[: sequence.budget - before]
        self._see_fields(sequence, state, canvas)
        ids, text, shown = sequence.reply.add(canvas)
        costs.repeats += repeats(ids)
        if own is not None:
            costs.disagreements += sum(token != wanted for token, wanted in zip(ids, own, strict=False))
        log_probs, doubts = None, []
        if judged is not None:
            sequence.logprobs += judged.log_probs.tolist()[: len(ids)]
            if sequence.options.logprobs or sequence.options.redraft:
                log_probs = judged.log_probs.tolist()[: len(ids)]
                doubts = [place for place in judged.doubts if place < len(ids)]
                sequence.doubts += [before + place for place in doubts]
            sequence.last_hidden = judged.last_hidden
        elif not sequence.finished:
            # Encoded only because another canvas follows it.
            sequence.pending = canvas
        follow(sequence, canvas)
        if empty:
            sequence.reply.finish = "empty"
        sequence.canvas = None
        return Commit(
            canvas=state.number,
            token_ids=tuple(ids),
            text=text,
            shown=shown,
            denoising_steps=state.steps,
            logprobs=None if log_probs is None else tuple(log_probs),
            doubts=tuple(doubts),
        )

    def _see_fields(self, sequence: Sequence, state: CanvasState, canvas: list[int]) -> None:
        """Takes down what the last step says of the fields that this canvas decides."""
        if sequence.fields is None or sequence.constraint is None or state.seen is None:
            return
        ids = cut_at_end(canvas, sequence.reply.end_ids, sequence.budget - sequence.committed)
        if ids and ids[-1] in sequence.reply.end_ids:
            ids = ids[:-1]
        started, hidden, pinned = time.perf_counter(), state.seen, state.pinned

        def score(first: int, behind: int) -> Tensor:
            logits = self.model.logits(hidden[None, first:behind])[0]
            return logits if pinned is None else held_to(logits, pinned[first:behind])

        automaton, written = sequence.constraint.automaton, sequence.reply.token_ids
        sequence.fields.see(score, automaton, written, ids, len(hidden), sequence.room())
        sequence.costs.denoise_s += time.perf_counter() - started


def held_to(logits: Float[Tensor, "R V"], token_ids: Int[Tensor, "R"]) -> Float[Tensor, "R V"]:
    """Logits of nothing but a position's token where that is none below 0."""
    rows = torch.nonzero(token_ids >= 0)[:, 0]
    logits = logits.clone()
    logits[rows] = -torch.inf
    logits[rows, token_ids[rows]] = 0.0
    return logits


def follow(sequence: Sequence, token_ids: list[int]) -> None:
    """Moves what is steered behind committed tokens. A reply that fills its budget has stopped well where
    nothing but its end could follow."""
    sequence.initial = sequence.initial[len(token_ids) :]
    sequence.pinned = sequence.pinned[len(token_ids) :]
    if sequence.constraint is None:
        return
    automaton = sequence.constraint.automaton
    sequence.constraint_state = automaton.advance(automaton.start, sequence.reply.token_ids)
    if sequence.reply.finish != "length":
        return
    # Behind a call that had to be made, more calls may follow; that there is no room for them cuts nothing off.
    called = sequence.strict and sequence.options.tools is not None and automaton.accepting[sequence.constraint_state]
    if called or automaton.is_complete(sequence.constraint_state):
        sequence.reply.finish = "stop"
