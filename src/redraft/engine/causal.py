"""The causal mode: the same weights as an autoregressive model, token by token through `encode`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from redraft.core.errors import OptionError
from redraft.core.events import Commit
from redraft.engine.instead import calls, say_instead
from redraft.engine.next_token import allowed_logits, causal_probabilities
from redraft.engine.prefill import encode_pending
from redraft.engine.sequence import Sequence
from redraft.engine.settle import follow
from redraft.kernels.constrained import NothingLeftError
from redraft.kernels.head import inverse_cdf
from redraft.model.model import DiffusionGemma
from redraft.sampler import noise
from redraft.sampler.noise import Stream


class CausalLoop:
    """Writes one token a tick; each is a `Commit` of its own.

    A token's draw belongs to its place in the reply: canvas 0, step = tokens before it, position 0.
    """

    def __init__(self, model: DiffusionGemma, on_encoded: Callable[[Sequence], None]) -> None:
        """`on_encoded` is called after each piece of a prompt."""
        self.model = model
        self.on_encoded = on_encoded

    def tick(self, sequence: Sequence) -> Iterator[tuple[Sequence, Commit]]:
        """The next token of one request, or the end of its reply."""
        hidden = encode_pending(self.model, sequence)
        written = len(sequence.reply.token_ids)
        if written == 0:
            self.on_encoded(sequence)
        if hidden is None:
            return
        started = time.perf_counter()
        logits = self.model.logits(hidden)[0, 0]
        if not bool(torch.isfinite(logits).all()):
            sequence.fail(f"the model's output is not finite at token {written}")
            return
        try:
            token, log_prob = self._choose(sequence, logits, written)
        except (NothingLeftError, OptionError) as error:
            sequence.fail_held(error)
            return
        sequence.costs.encode_s += time.perf_counter() - started
        if sequence.costs.first_canvas_s is None:
            sequence.costs.first_canvas_s = time.perf_counter() - sequence.costs.started
        ids, text, shown = sequence.reply.add([token])
        logprobs = (log_prob,) * len(ids) if sequence.options.logprobs else None
        sequence.logprobs += logprobs or ()
        follow(sequence, [token])
        sequence.pending = [token]
        yield (
            sequence,
            Commit(canvas=written, token_ids=tuple(ids), text=text, shown=shown, denoising_steps=0, logprobs=logprobs),
        )

    def _choose(self, sequence: Sequence, logits: Tensor, written: int) -> tuple[int, float]:
        """The token that the request's draw means, and its log-probability."""
        at = [torch.tensor([value], device=self.model.device) for value in (sequence.seed, 0, written)]
        uniform = noise.uniform(at[0], Stream.SAMPLE, at[1], at[2], 1)[0]
        while True:
            allowed = allowed_logits(sequence, logits, sequence.constraint_state, sequence.room())
            probabilities = causal_probabilities(sequence, allowed)
            greedy = sequence.options.temperature == 0
            token = int(probabilities.argmax() if greedy else inverse_cdf(probabilities[None], uniform))
            if calls(sequence, [token]):
                say_instead(sequence)
            elif not sequence.narrow([token]):
                return token, float(torch.log_softmax(allowed, dim=-1)[token])
