"""Reads: one look at what the model would write, of which nothing is kept. `decide/` asks, `engine/` answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # It needs numpy, for which `redraft --help` would wait.
    from redraft.core.automaton import TokenAutomaton

NOISE = -1


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A position whose distribution is wanted.

    Attributes:
        position: in the canvas, from 0.
        token_ids: tokens whose log-probabilities are wanted.
    """

    position: int
    token_ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Texts:
    """Options by their own text, of any number of tokens.

    What an option weighs is summed over all its spellings in tokens: P(option) is in proportion to the sum, over the
    sequences that spell it and end there, of the product of the canvas's own probabilities.

    Attributes:
        automaton: takes every option; what stands behind one it does not say.
        whole: of each option, the automaton's states in which it is whole.
        end_ids: tokens that may stand behind it, end-of-turn first; none where it is but what a reply begins with:
            anything may follow then, and no edge leads on from where it is whole.
        fill_ids: tokens that may stand behind those, up to the canvas's end.
    """

    automaton: TokenAutomaton
    whole: tuple[tuple[int, ...], ...]
    end_ids: tuple[int, ...]
    fill_ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class CanvasRead:
    """One denoising step, at temperature 1, of a canvas that is never committed.

    Attributes:
        prompt: token ids.
        kept: lengths of the prompt behind which its encoding is kept, and taken up again by whoever begins so.
        canvas: [L] token ids, `NOISE` where a draw's own noise stands.
        seed: of the noise.
        draws: numbers of the draws; the noise of a position is a function of (seed, draw, position).
        slots: what is wanted of each draw.
        texts: options whose joint weight over the whole canvas is wanted.
        steps: denoising steps; before the last, what is no noise is held, and the rest moves as in a reply.
        images: pictures that stand in the prompt, as the engine has laid them out.
    """

    prompt: tuple[int, ...]
    canvas: tuple[int, ...]
    seed: int
    kept: tuple[int, ...] = ()
    draws: tuple[int, ...] = (0,)
    slots: tuple[Slot, ...] = ()
    texts: Texts | None = None
    steps: int = 1
    images: tuple[Any, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CausalRead:
    """What the causal mode would write behind a prompt.

    Attributes:
        prompt, kept, images: as in `CanvasRead`.
        token_ids: tokens whose log-probabilities are wanted, as the next one.
        continuations: texts in tokens whose log-probabilities are wanted, each as a whole.
        endings: of each continuation, for each of its places, tokens with which it is whole there: what is wanted then
            is any of the texts that begin as it does and go on with one of these. None: it is whole with its last.
    """

    prompt: tuple[int, ...]
    kept: tuple[int, ...] = ()
    token_ids: tuple[int, ...] = ()
    continuations: tuple[tuple[int, ...], ...] = ()
    endings: tuple[tuple[tuple[int, ...], ...], ...] | None = None
    images: tuple[Any, ...] = ()


Read = CanvasRead | CausalRead


@dataclass(frozen=True, kw_only=True)
class SlotReading:
    """A position's distribution, at temperature 1.

    Attributes:
        log_probs: nats, of each token that was wanted, over the whole vocabulary.
        entropy_nats: of the whole distribution.
        argmax: the likeliest token of all.
    """

    log_probs: tuple[float, ...]
    entropy_nats: float
    argmax: int


@dataclass(frozen=True, kw_only=True)
class DrawReading:
    """What one draw of a canvas says, or the causal mode.

    Attributes:
        slots: in the read's order; of a causal read the next token's, where any was wanted.
        log_weights: nats, of each option by its own text, or of each continuation; over all there is to write.
        opening_nats: log-probability, at the first position, of all tokens that any of the options may begin with.
    """

    slots: tuple[SlotReading, ...] = ()
    log_weights: tuple[float, ...] = ()
    opening_nats: float | None = None


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The answer to a read.

    Attributes:
        draws: one a draw; one of a causal read.
        prompt_tokens: of its prompt.
        cached_tokens: those of them that were encoded before.
        positions: that were run through the model for it: of the prompt, of canvases, of continuations.
        forwards: of the model.
        seconds: that it took.
    """

    draws: tuple[DrawReading, ...]
    prompt_tokens: int
    cached_tokens: int
    positions: int
    forwards: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Readings:
    """The last event of reads under way: their answers, in order.

    Attributes:
        readings: as many as were asked for; fewer where it failed or was cancelled.
        finish_reason: "stop", "cancelled" or "error".
        error: why it failed.
    """

    readings: tuple[Reading, ...]
    finish_reason: str = "stop"
    error: str | None = None


@dataclass
class ReadCosts:
    """Counters of reads, to be added up.

    Attributes:
        reads, forwards, positions, prompt_tokens, cached_tokens, seconds: sums of what `Reading` has.
    """

    reads: int = 0
    forwards: int = 0
    positions: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    seconds: float = 0.0
    by_reader: dict[str, int] = field(default_factory=dict)

    def add(self, read: Read, reading: Reading) -> None:
        """Counts one."""
        name = "canvas" if isinstance(read, CanvasRead) else "causal"
        self.by_reader[name] = self.by_reader.get(name, 0) + 1
        self.reads += 1
        for field_name in ("forwards", "positions", "prompt_tokens", "cached_tokens", "seconds"):
            setattr(self, field_name, getattr(self, field_name) + getattr(reading, field_name))
