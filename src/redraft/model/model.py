"""DiffusionGemma: the backbone with its head, as `encode`, `denoise` and what lies between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from redraft.core.automaton import Parts
from redraft.core.errors import OptionError
from redraft.kernels.head import head, raw_logits, softcap
from redraft.kernels.head_stats import HeadStats
from redraft.kernels.matrices.int8 import Int8Matrix
from redraft.kernels.triton.fallback import attempt
from redraft.kernels.walk import Walk
from redraft.model.attend import Denoise, Encode, EncodeThenDenoise
from redraft.model.attention import Attend
from redraft.model.backbone import Backbone
from redraft.model.cache import KVCache, SequenceCache
from redraft.model.config import ModelConfig
from redraft.model.gemma4 import NO_CANVAS
from redraft.model.images import Placed, Reading, check_placed, with_soft_tokens
from redraft.model.runner import Runner


class DiffusionGemma(nn.Module):
    """The text model. `load_model` makes one from a checkpoint.

    `encode` is causal and writes the cache; `denoise` is bidirectional over the canvas and leaves no trace. A Gemma 4
    checkpoint (`config.has_canvas` false) has `encode` only.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.source: Path | None = None
        self.quantization: str | None = None
        self.backbone = Backbone(config)
        # Quantised matrices are no parameters any more.
        self.num_parameters = sum(parameter.numel() for parameter in self.backbone.parameters())
        self.tower: nn.Module | None = None  # What sees, where a run trains both.
        # In a tuple, since its tensors are the backbone's; `placement` puts it in.
        self._runner: tuple[Runner | None] = (None,)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.backbone.norm.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What activations, and weights that are not quantised, are held in."""
        return self.backbone.norm.weight.dtype

    @property
    def _form(self) -> str:
        return self.quantization or str(self.dtype).removeprefix("torch.")

    @property
    def embedding(self) -> Float[Tensor, "V D"] | Int8Matrix:
        """The embedding, which is also the head's matrix."""
        tokens = self.backbone.embed_tokens
        return tokens.weight if isinstance(tokens, nn.Embedding) else tokens.matrix

    def new_cache(self, batch_size: int = 1, max_length: int = 0) -> KVCache:
        """An empty cache, preallocated for `max_length` positions of each sequence; it grows beyond that."""
        cache = KVCache(SequenceCache(self.config, self.dtype, self.device) for _ in range(batch_size))
        cache.reserve(max_length)
        return cache

    @torch.no_grad()
    def encode(
        self,
        token_ids: Int[Tensor, "B T"],
        cache: KVCache,
        lengths: Int[Tensor, "B"] | list[int] | None = None,
        images: Sequence[Sequence[Placed]] = (),
        reading: Reading = "google",
    ) -> Float[Tensor, "B T D"]:
        """Appends the first `lengths[b]` (default T) ids of each row to the cache.

        Args:
            token_ids: ids; those in the place of pictures mean nothing, but are ids.
            cache: of as many sequences.
            lengths: of the rows.
            images: the pictures in each row, whole; nothing where no row has any.
            reading: who sees whom inside a picture, see `redraft.model.images`.

        Returns:
            Hidden states after the final norm; those beyond a row's length mean nothing.

        Raises:
            ValueError: shapes that do not fit the cache, or a picture that does not fit its row.
        """
        B, T = token_ids.shape
        counts = [T] * B if lengths is None else [int(n) for n in lengths]
        if len(cache.sequences) != B or len(counts) != B or not all(0 <= n <= T for n in counts):
            raise ValueError(f"{B} rows of {T} ids with lengths {counts} do not fit {len(cache.sequences)} sequences")
        check_placed(images or [()] * B, counts, self.config.hidden_size)
        attend = Encode(cache, counts, images, reading)
        hidden = self.encode_with(token_ids, cache.lengths.to(self.device), attend, images)
        for sequence, count in zip(cache.sequences, counts, strict=True):
            sequence.advance(count)
        return hidden

    @torch.no_grad()
    def encode_with(
        self,
        token_ids: Int[Tensor, "B T"],
        lengths: Int[Tensor, "B"],
        attend: Attend,
        images: Sequence[Sequence[Placed]] = (),
    ) -> Float[Tensor, "B T D"]:
        """As `encode`, behind prefixes of these lengths, on the device, that `attend` knows of and adds to."""
        runner = self.runner
        # What stands for the backbone looks its ids up by itself.
        if runner is not None and attend.repeatable and not images:
            return attempt(
                "layers",
                lambda: runner(token_ids, lengths, attend, causal=True),
                lambda: self._encode(token_ids, lengths, attend),
                form=f"encoding {self._form}",
            )
        return self._encode(token_ids, lengths, attend, images)

    def _encode(
        self, token_ids: Tensor, lengths: Tensor, attend: Attend, images: Sequence[Sequence[Placed]] = ()
    ) -> Float[Tensor, "B T D"]:
        positions = lengths[:, None] + torch.arange(token_ids.shape[1], device=lengths.device)
        embedded = self.backbone.embed(token_ids)
        if images:
            embedded = with_soft_tokens(embedded, images)
        return self.backbone(embedded, positions, attend, causal=True)

    @torch.no_grad()
    def denoise_hidden(
        self,
        canvas: Int[Tensor, "B L"],
        cache: KVCache,
        self_conditioning: Float[Tensor, "B L D"] | None = None,
    ) -> Float[Tensor, "B L D"]:
        """Hidden states of a canvas after the final norm; the cache is left as it was.

        Args:
            canvas: token ids; L may differ from the checkpoint's canvas_length.
            self_conditioning: soft embedding of the previous step, None at the first. A row of zeros in it is a
                row without signal.

        Raises:
            OptionError: the checkpoint has no canvas mode.
        """
        return self.denoise_with(canvas, cache.lengths.to(self.device), Denoise(cache), self_conditioning)

    @torch.no_grad()
    def denoise_with(
        self,
        canvas: Int[Tensor, "B L"],
        lengths: Int[Tensor, "B"],
        attend: Attend,
        self_conditioning: Float[Tensor, "B L D"] | None = None,
    ) -> Float[Tensor, "B L D"]:
        """As `denoise_hidden`, with prefixes of these lengths, on the device, that `attend` knows of."""
        if not self.config.has_canvas:
            raise OptionError(NO_CANVAS)
        runner = self.runner
        if runner is not None and attend.repeatable:
            return attempt(
                "layers",
                lambda: runner(canvas, lengths, attend, self_conditioning),
                lambda: self._denoise(canvas, lengths, attend, self_conditioning),
                form=self._form,
            )
        return self._denoise(canvas, lengths, attend, self_conditioning)

    @torch.no_grad()
    def encode_then_denoise(
        self, token_ids: Int[Tensor, "T"], canvas: Int[Tensor, "B L"], sequence: SequenceCache
    ) -> Float[Tensor, "B L D"]:
        """Appends ids to a sequence, and denoises canvases behind them without signal, in one forward: what `encode`
        and then `denoise_hidden` do, but that each matrix is read once. The modules run it, whatever runner there is.

        Raises:
            OptionError: the checkpoint has no canvas mode.
        """
        if not self.config.has_canvas:
            raise OptionError(NO_CANVAS)
        (new,), (B, L), backbone = token_ids.shape, canvas.shape, self.backbone
        embedded = backbone.self_conditioning.condition(backbone.embed(canvas), None)
        rows = torch.cat([backbone.embed(token_ids[None]), embedded.flatten(0, 1)[None]], dim=1)
        place = torch.arange(new + L, device=self.device) + sequence.length
        positions = torch.cat([place[:new], place[new:].repeat(B)])[None]
        causal = torch.arange(new + B * L, device=self.device) < new
        hidden = backbone(rows, positions, EncodeThenDenoise(sequence, new, B), causal=causal)
        sequence.advance(new)
        return hidden[0, new:].view(B, L, -1)

    @property
    def runner(self) -> Runner | None:
        """What stands for the backbone where the weights lie; None: its modules run."""
        return self._runner[0]

    def run_by(self, runner: Runner | None) -> None:
        """Puts a runner in. No attribute: torch would make a module of it one of the model's own."""
        self._runner = (runner,)

    def without_branches(self) -> bool:
        """From here on everything of a layer is told to one stream; False if it was already."""
        return self.runner is not None and self.runner.without_branches()

    @contextmanager
    def by_modules(self) -> Iterator[None]:
        """Without what stands for the backbone: what that is measured against."""
        held = self.runner
        self.run_by(None)
        try:
            yield
        finally:
            self.run_by(held)

    def _denoise(
        self, canvas: Tensor, lengths: Tensor, attend: Attend, self_conditioning: Tensor | None
    ) -> Float[Tensor, "B L D"]:
        embedded = self.backbone.self_conditioning.condition(self.backbone.embed(canvas), self_conditioning)
        positions = lengths[:, None] + torch.arange(canvas.shape[1], device=lengths.device)
        return self.backbone(embedded, positions, attend, causal=False)

    def denoise(
        self,
        canvas: Int[Tensor, "B L"],
        cache: KVCache,
        self_conditioning: Float[Tensor, "B L D"] | None = None,
    ) -> Float[Tensor, "B L V"]:
        """Float32 logits of every canvas position; see `denoise_hidden`, which the engine uses with `head`."""
        return self.logits(self.denoise_hidden(canvas, cache, self_conditioning))

    @torch.no_grad()
    def logits(self, hidden: Float[Tensor, "B T D"]) -> Float[Tensor, "B T V"]:
        """Soft-capped float32 logits."""
        return softcap(raw_logits(hidden, self.embedding), self.config.final_logit_softcapping)

    @torch.no_grad()
    def soft_embedding(self, processed_logits: Float[Tensor, "B L V"]) -> Float[Tensor, "B L D"]:
        """Expected scaled embedding under softmax(logits).

        Zero *logits* give the mean embedding, not a zero signal: pass None to `denoise` for that.
        """
        embedding = self.embedding
        weight = embedding.dequantised(self.dtype) if isinstance(embedding, Int8Matrix) else embedding
        probs = torch.softmax(processed_logits, dim=-1, dtype=torch.float32).to(weight.dtype)
        return (probs @ weight) * self.backbone.embed_scale

    @torch.no_grad()
    def head(
        self,
        hidden: Float[Tensor, "B L D"],
        temperature: Float[Tensor, "B"] | Float[Tensor, "B L"],
        uniform: Float[Tensor, "B L"],
        watch: Sequence[Parts | None] = (),
    ) -> HeadStats:
        """What the sampler needs of each position, with a temperature for each row, or for each position; logits never
        leave it.

        `watch` has the parts of each row's automaton, if any: `classes` of the result are their scores.
        """
        if any(parts is not None for parts in watch):
            rows = [slice(row, row + 1) for row in range(len(hidden))]
            return HeadStats.joined(
                [self._head(hidden[row], temperature[row], uniform[row], watch[row.start]) for row in rows]
            )
        return self._head(hidden, temperature, uniform, None)

    def walk(self, parts: Parts, hidden: Float[Tensor, "N D"]) -> Walk:
        """What scores an automaton's classes behind a head that did not, of whatever `hidden` holds when it runs."""
        return Walk(self.embedding, cap=self.config.final_logit_softcapping, parts=parts, hidden=hidden)

    def _head(self, hidden: Tensor, temperature: Tensor, uniform: Tensor, parts: Parts | None) -> HeadStats:
        B, L, D = hidden.shape
        if temperature.ndim == 1:
            temperature = temperature[:, None].expand(B, L)
        stats = head(
            hidden.reshape(B * L, D),
            self.embedding,
            cap=self.config.final_logit_softcapping,
            embed_scale=self.backbone.embed_scale,
            temperature_N=temperature.reshape(B * L),
            uniform_N=uniform.reshape(B * L),
            parts=parts,
        )
        return stats.by_canvas(B, L)


def shapes_of(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter and buffer of the backbone, by name; nothing is allocated."""
    with torch.device("meta"):
        state = DiffusionGemma(config).backbone.state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}
