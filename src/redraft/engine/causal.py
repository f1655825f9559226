"""The causal mode: the same weights as an autoregressive model, token by token through `encode`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch

from redraft.core.errors import OptionError
from redraft.core.events import Commit
from redraft.engine.next_token import choose
from redraft.engine.prefill import encode_pending
from redraft.engine.prompt_images import SoftTokens
from redraft.engine.sequence import Sequence
from redraft.engine.settle import follow
from redraft.kernels.constrained import NothingLeftError
from redraft.model.model import DiffusionGemma


class CausalLoop:
    """Writes one token a tick, see `choose`; each is a `Commit` of its own."""

    def __init__(
        self, model: DiffusionGemma, on_encoded: Callable[[Sequence], None], soft: SoftTokens | None = None
    ) -> None:
        """`on_encoded` is called after each piece of a prompt; `soft` makes soft tokens of pictures."""
        self.model = model
        self.on_encoded = on_encoded
        self._soft = soft

    def tick(self, sequence: Sequence) -> Iterator[tuple[Sequence, Commit]]:
        """The next token of one request, or the end of its reply."""
        hidden = encode_pending(self.model, sequence, soft=self._soft)
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
            chosen = choose(sequence, logits)
        except (NothingLeftError, OptionError) as error:
            sequence.fail_held(error)
            return
        assert chosen is not None
        token, log_prob = chosen
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
