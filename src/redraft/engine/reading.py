"""The loop of reads: a prompt is encoded piece by piece, then looked at once. Nothing is committed."""

from __future__ import annotations

import math
import time

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from redraft.core.reads import NOISE, CanvasRead, CausalRead, DrawReading, Read, Reading, SlotReading
from redraft.engine.canvas import NOISE_STEPS, CanvasNoise
from redraft.engine.prefill import Encode, encode_pending, next_piece
from redraft.engine.prefix import PrefixCache
from redraft.engine.prompt_images import SoftTokens
from redraft.engine.read import FORKS, OneRead, ReadList, identity_of, pieces
from redraft.kernels.option_weights import OptionWeights
from redraft.kernels.readout import Row, log_prob_tiles, rows_of
from redraft.model.cache import KVCache, SequenceCache
from redraft.model.model import DiffusionGemma
from redraft.sampler.accept import accept, renoise
from redraft.sampler.noise import as_int64
from redraft.sampler.schedule import temperature

# Canvases that share a forward where a batch need not be as each alone.
TOGETHER = 32
# Of reads that denoise further, as replies do by default.
_T_MAX, _T_MIN, _BOUND = 0.8, 0.4, 0.1


class ReadLoop:
    """Runs reads on a model.

    With `exact`, a forward carries one read, so that its numbers are the same bit for bit alone and in company; its
    draws, and the continuations of a causal read, share forwards, since they are its own. Without it canvases of one
    width run as a batch, but for the first of those that share a beginning which nobody has encoded.
    """

    def __init__(
        self, model: DiffusionGemma, *, exact: bool, encode: Encode | None = None, soft: SoftTokens | None = None
    ) -> None:
        self.model, self.exact, self._encode, self._soft = model, exact, encode, soft

    def tick(self, under_way: ReadList, prefixes: PrefixCache) -> None:
        """One forward: a piece of a prompt, a batch of canvases, or what continues one."""
        if not under_way.open:
            self._begin(under_way, prefixes)
        waiting = [one for one in under_way.open.values() if one.last_hidden is None and not self._joins(one)]
        if waiting:
            self._prefill(waiting, prefixes)
            return
        try:
            canvases = {number: one for number, one in under_way.open.items() if isinstance(one.read, CanvasRead)}
            if canvases:
                found = self._canvases(list(canvases.values()))
                for (number, one), draws in zip(canvases.items(), found, strict=True):
                    under_way.readings[number] = _reading(one, draws)
            else:
                (number, one), *_ = under_way.open.items()
                under_way.readings[number] = _reading(one, [self._causal(one)])
        except ValueError as error:
            under_way.fail(str(error))
            return
        under_way.open.clear()
        if len(under_way.readings) == len(under_way.reads):
            under_way.finish = "stop"

    def _begin(self, under_way: ReadList, prefixes: PrefixCache) -> None:
        """Takes up the next of them."""
        width, together, leads = None, 0, set[tuple[int, ...]]()
        for number in range(len(under_way.readings), len(under_way.reads)):
            read = under_way.reads[number]
            own = len(read.canvas) if isinstance(read, CanvasRead) and read.steps == 1 else None
            stops = pieces(len(read.prompt), read.kept, [(image.start, image.end) for image in read.images])
            told = identity_of(read)
            # What the causal mode says follows from the last token's state, which no snapshot holds; and a canvas may
            # share the last piece's forward, whatever others have kept.
            most = len(read.prompt) - (isinstance(read, CausalRead) or len(read.prompt) not in read.kept)
            known = prefixes.take(told, [stop for stop in stops if stop <= most])
            lead = tuple(told[: max(read.kept, default=0)])
            waits = known is None and lead in leads
            if under_way.open and (self.exact or own is None or own != width or waits):
                return
            width = own
            if known is None and lead:
                leads.add(lead)
            cache = known or SequenceCache(self.model.config, self.model.dtype, self.model.device)
            cache.adapter = under_way.place
            one = OneRead(
                read=read, cache=cache, pending=list(read.prompt[cache.length :]), stops=stops, images=read.images
            )
            one.costs.cached_tokens = cache.length
            one.positions = len(one.pending)
            if not one.pending:
                one.last_hidden = self._nothing()
            under_way.open[number] = one
            together += len(read.draws) if isinstance(read, CanvasRead) else 1
            if together >= TOGETHER:
                return

    def _joins(self, one: OneRead) -> bool:
        """Whether a canvas shares a forward with the last piece of its prompt, so that each matrix is read once.

        It follows from the read alone: what is kept behind the whole prompt is encoded by itself.
        """
        read = one.read
        if not (self.exact and self.model.runner is None and isinstance(read, CanvasRead) and read.steps == 1):
            return False
        begun = one.cache.length
        return (
            len(read.prompt) not in read.kept
            and all(image.end <= begun for image in one.images)
            and one.cache.length == (one.stops[-2] if len(one.stops) > 1 else 0)
            and bool(one.pending)
        )

    def _prefill(self, ones: list[OneRead], prefixes: PrefixCache) -> None:
        """Encodes the next piece of each."""
        shown = [one for one in ones if any(image.end > one.cache.length for image in one.images)]
        others = [one for one in ones if all(one is not other for other in shown)]
        for one in others if len(others) == 1 else ():
            one.last_hidden = encode_pending(self.model, one, self._encode)
        for one in shown:
            one.last_hidden = encode_pending(self.model, one, self._encode, self._soft)
        if len(others) > 1:
            self._prefill_together(others)
        for one in ones:
            one.forwards += 1
            if one.cache.length in one.read.kept:
                prefixes.put(identity_of(one.read)[: one.cache.length], one.cache)

    def _prefill_together(self, ones: list[OneRead]) -> None:
        chunks = [next_piece(one) for one in ones]
        lengths = [len(chunk) for chunk in chunks]
        ids = torch.tensor([chunk + [0] * (max(lengths) - len(chunk)) for chunk in chunks], device=self.model.device)
        hidden = self.model.encode(ids, KVCache(one.cache for one in ones), lengths)
        for row, one in enumerate(ones):
            if not one.pending:
                one.last_hidden = hidden[row : row + 1, lengths[row] - 1 : lengths[row]].clone()

    def _nothing(self) -> Tensor:
        model = self.model
        return torch.zeros(1, 1, model.config.hidden_size, dtype=model.dtype, device=model.device)

    def _canvases(self, ones: list[OneRead]) -> list[list[DrawReading]]:
        """What the draws of several canvases of one width say, of no more than `TOGETHER` at a time."""
        drawn = [(number, draw) for number, one in enumerate(ones) for draw in _draws(one.read)]
        found: list[list[DrawReading]] = [[] for _ in ones]
        for first in range(0, len(drawn), TOGETHER):
            some = drawn[first : first + TOGETHER]
            hidden = self._denoised([(ones[number], draw) for number, draw in some])
            for (number, _), rows in zip(some, hidden, strict=True):
                read = ones[number].read
                assert isinstance(read, CanvasRead)
                found[number].append(self._looked_at(read, rows))
        return found

    def _denoised(self, drawn: list[tuple[OneRead, int]]) -> Float[Tensor, "B L D"]:
        """Hidden states of canvases in their last step."""
        model, reads = self.model, [one.read for one, _ in drawn]
        (first, _), *_ = drawn
        read = reads[0]
        assert isinstance(read, CanvasRead)
        canvas = torch.stack([self._start(one.read, draw) for one, draw in drawn])
        # A canvas's own keys lie behind the prefix only while it is attended to, one after the other.
        cache, soft = KVCache(one.cache for one, _ in drawn), None
        for one, _ in drawn:
            one.positions += canvas.shape[1] * read.steps
        for one in {id(one): one for one, _ in drawn}.values():
            one.forwards += read.steps
        for step in range(read.steps - 1):
            canvas, soft = self._moved(canvas, cache, soft, read, [draw for _, draw in drawn], step)
        if first.pending:
            ids = torch.tensor(next_piece(first), device=model.device)
            return model.encode_then_denoise(ids, canvas, first.cache)
        return model.denoise_hidden(canvas, cache, soft)

    def _start(self, read: Read, draw: int) -> Int[Tensor, "L"]:
        assert isinstance(read, CanvasRead)
        canvas = torch.tensor(read.canvas, device=self.model.device)
        return torch.where(canvas == NOISE, self._noise(read, draw).start(0), canvas)

    def _noise(self, read: CanvasRead, draw: int) -> CanvasNoise:
        model = self.model
        return CanvasNoise(as_int64(read.seed), draw, len(read.canvas), model.config.vocab_size, model.device)

    def _moved(
        self, canvas: Tensor, cache: KVCache, soft: Tensor | None, read: CanvasRead, draws: list[int], step: int
    ) -> tuple[Tensor, Tensor]:
        """A step as a reply takes it, in which what is no noise is held: the next canvas, and what it is conditioned
        on."""
        model, place = self.model, step % NOISE_STEPS
        blocks = [self._noise(read, draw).block(step - place) for draw in draws]
        uniform, fresh = (torch.stack([block[part][place] for block in blocks]) for part in (0, 1))
        degree = temperature(step, read.steps, _T_MAX, _T_MIN)
        hidden = model.denoise_hidden(canvas, cache, soft)
        stats = model.head(hidden, torch.full((len(canvas),), degree, device=model.device), uniform)
        held = torch.tensor(read.canvas, device=model.device) != NOISE
        entropy = torch.where(held, torch.inf, stats.entropy)
        moved = renoise(accept(entropy, _BOUND), stats.sample, fresh)
        return torch.where(held, canvas, moved), stats.soft_embedding

    def _looked_at(self, read: CanvasRead, hidden: Float[Tensor, "L D"]) -> DrawReading:
        """The head computes the rows that are asked for."""
        slots: list[SlotReading] = []
        wanted = [slot.token_ids for slot in read.slots]
        if wanted:
            places = torch.tensor([slot.position for slot in read.slots], device=hidden.device)
            for first, tile in log_prob_tiles(hidden[places], self.model.logits):
                slots += map(_slot, rows_of(tile, wanted[first : first + len(tile)]))
        if read.texts is None:
            return DrawReading(slots=tuple(slots))
        weights = OptionWeights(read.texts, len(hidden))
        for first, tile in log_prob_tiles(hidden[: weights.positions], self.model.logits):
            weights.add(first, tile)
        log_weights, opening = weights.result()
        return DrawReading(slots=tuple(slots), log_weights=log_weights, opening_nats=opening)

    def _causal(self, one: OneRead) -> DrawReading:
        read, slots = one.read, ()
        assert isinstance(read, CausalRead)
        assert one.last_hidden is not None
        ((_, tile),) = log_prob_tiles(one.last_hidden[0], self.model.logits)
        if read.token_ids:
            slots = (_slot(rows_of(tile, [read.token_ids])[0]),)
        if not read.continuations:
            return DrawReading(slots=slots)
        wanted = [[(token,) for token in continuation] for continuation in read.continuations]
        if read.endings is not None:
            wanted = [
                [(*token, *ends) for token, ends in zip(tokens, endings, strict=True)]
                for tokens, endings in zip(wanted, read.endings, strict=True)
            ]
        rows = [rows_of(tile, [places[0]]) for places in wanted]
        longer = [number for number, continuation in enumerate(read.continuations) if len(continuation) > 1]
        for begin in range(0, len(longer), FORKS):
            numbers = longer[begin : begin + FORKS]
            behind = self._behind(one, [read.continuations[n] for n in numbers], [wanted[n][1:] for n in numbers])
            for number, found in zip(numbers, behind, strict=True):
                rows[number] += found
        weights = tuple(_whole(found) if read.endings is None else _ended(found) for found in rows)
        return DrawReading(slots=slots, log_weights=weights)

    def _behind(
        self, one: OneRead, continuations: list[tuple[int, ...]], wanted: list[list[tuple[int, ...]]]
    ) -> list[list[Row]]:
        """What is wanted of the places of each text behind its first token."""
        lengths = [len(continuation) - 1 for continuation in continuations]
        ids = torch.zeros(len(lengths), max(lengths), dtype=torch.long, device=self.model.device)
        for row, continuation in enumerate(continuations):
            ids[row, : lengths[row]] = torch.tensor(continuation[:-1], device=ids.device)
        hidden = self.model.encode(ids, KVCache(one.cache.fork() for _ in lengths), lengths)
        one.forwards += 1
        one.positions += sum(lengths)
        found: list[list[Row]] = []
        for row, places in enumerate(wanted):
            found.append([])
            for first, tile in log_prob_tiles(hidden[row, : lengths[row]], self.model.logits):
                found[-1] += rows_of(tile, places[first : first + len(tile)])
        return found


def _whole(rows: list[Row]) -> float:
    """The log-probability of a text by that of each of its tokens."""
    return math.fsum(row.log_probs[0] for row in rows)


def _ended(rows: list[Row]) -> float:
    """The log-probability of all texts that go along with one, and end with one of the tokens behind its own."""
    total, before = -math.inf, 0.0
    for row in rows:
        own, *ends = row.log_probs
        for end in ends:
            total = float(np.logaddexp(total, before + end))
        before += own
    return total


def _draws(read: Read) -> tuple[int, ...]:
    return read.draws if isinstance(read, CanvasRead) else ()


def _slot(row: Row) -> SlotReading:
    return SlotReading(log_probs=row.log_probs, entropy_nats=row.entropy_nats, argmax=row.argmax)


def _reading(one: OneRead, draws: list[DrawReading]) -> Reading:
    return Reading(
        draws=tuple(draws),
        prompt_tokens=len(one.read.prompt),
        cached_tokens=one.costs.cached_tokens,
        positions=one.positions,
        forwards=one.forwards,
        seconds=time.perf_counter() - one.began,
    )
