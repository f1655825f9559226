"""The causal mode: the same weights as an autoregressive model, token by token through `encode`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from redraft.core.events import Commit
from redraft.engine.prefill import encode_pending
from redraft.engine.sequence import Sequence
from redraft.kernels.head import inverse_cdf
from redraft.model.model import DiffusionGemma
from redraft.sampler import noise
from redraft.sampler.noise import Stream
from redraft.sampler.nucleus import nucleus


class CausalLoop:
    """Writes one token a tick; each is a `Commit` of its own.

    A token's draw belongs to its place in the reply: canvas 0, step = tokens before it, position 0.
    """

    def __init__(self, model: DiffusionGemma, on_encoded: Callable[[Sequence], None]) -> None:
        """`on_encoded` is called once a request, when its prompt is encoded."""
        self.model = model
        self.on_encoded = on_encoded

    def tick(self, sequence: Sequence) -> Iterator[tuple[Sequence, Commit]]:
        """The next token of one request, or the end of its reply."""
        hidden = encode_pending(self.model, sequence)
        written = len(sequence.reply.token_ids)
        if written == 0:
            self.on_encoded(sequence)
        started = time.perf_counter()
        token = self._sample(sequence, hidden, written)
        sequence.costs.encode_s += time.perf_counter() - started
        if token is None:
            sequence.failed = f"the model's output is not finite at token {written}"
            sequence.reply.close("error")
            return
        if sequence.costs.first_canvas_s is None:
            sequence.costs.first_canvas_s = time.perf_counter() - sequence.costs.started
        ids, text = sequence.reply.add([token])
        if not sequence.finished and len(sequence.prompt) + written + 1 >= sequence.max_context:
            text += sequence.reply.close("length")
        sequence.pending = [token]
        yield sequence, Commit(canvas=written, token_ids=tuple(ids), text=text, denoising_steps=0)

    def _sample(self, sequence: Sequence, hidden: Tensor, written: int) -> int | None:
        """The token that the request's draw means; None where the model's output is not finite."""
        options, device = sequence.options, self.model.device
        temperature = 1.0 if options.temperature is None else options.temperature
        logits = self.model.logits(hidden)[0]
        if not bool(torch.isfinite(logits).all()):
            return None
        if temperature == 0:
            return int(logits.argmax())
        at = [torch.tensor([value], device=device) for value in (sequence.seed, 0, written)]
        uniform = noise.uniform(at[0], Stream.SAMPLE, at[1], at[2], 1)[0]
        probabilities = torch.softmax(logits / temperature, dim=-1)
        return int(inverse_cdf(nucleus(probabilities, options.top_p), uniform))
