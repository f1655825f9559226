"""Scores of an automaton's classes, made beside the head's own pass over tiles of the vocabulary.

Explicit tokens are copied out of each tile. Every broad class has an online softmax of its own in each row, since it
may lie far below what the head's own sums still see, and sums over short runs of the vocabulary, in which a draw finds
its run afterwards; only that run's logits are made again.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from redraft.core.automaton import Parts
from redraft.kernels.accelerator import has_float64
from redraft.kernels.class_scores import BroadScores, ClassScores, first_above
from redraft.kernels.native.call import expect
from redraft.kernels.transfer import moved

# Columns of a run, at most; of a tile where a device walks the vocabulary for the classes alone: of 256 rows at the
# released shape some 350 MB at a time, an int8 embedding's tile included, in eight times some eighty launches.
RUN, COLUMNS = 512, 32768
# Nats, of which float32 has no exponential.
_NOTHING = -1e3

# N rows, X explicit tokens, G broad classes, J runs, T tiles, C columns of a tile, P draws

# Scaled logits of some columns of some rows: (rows [P], columns [P, RUN], which may lie beyond the vocabulary).
ScaledColumns = Callable[[Int[Tensor, "P"], Int[Tensor, "P R"]], Float[Tensor, "P R"]]


class Watch:
    """What the tiles of one pass say of the classes of one automaton, for all its rows."""

    def __init__(self, parts: Parts, rows: int, vocabulary: int, columns: int, device: torch.device) -> None:
        """Of a pass by tiles of `columns`. Raises ValueError where the automaton has another vocabulary."""
        if len(parts.broad_of) != vocabulary:
            raise ValueError(
                f"the automaton has the classes of {len(parts.broad_of)} tokens, the embedding has {vocabulary}"
            )
        self.parts, self.columns, self.vocabulary = parts, columns, vocabulary
        self.run = math.gcd(RUN, columns)
        self.tables = _Tables.of(parts, columns, self.run, device)
        G, tiles = len(parts.broad), -(-vocabulary // columns)
        kind = torch.float64 if has_float64(device) else torch.float32
        self.scores = torch.empty(rows, len(parts.ids), device=device)
        self.top = torch.full((rows, G), -torch.inf, device=device)
        self.token = torch.zeros(rows, G, dtype=torch.long, device=device)
        self.mass, self.moment = torch.zeros(2, rows, G, dtype=kind, device=device)
        self.sums = torch.zeros(rows, G, -(-vocabulary // self.run), device=device)
        # Of runs that add nothing, nothing is the reference.
        self.reference = torch.full((rows, G, tiles), -torch.inf, device=device)

    def native_arguments(self, first: int) -> tuple[Tensor | int, ...]:
        """What `head_tile_watched` takes beyond `head_tile`."""
        tables, tile = self.tables, first // self.columns
        begin, end = tables.bounds[tile], tables.bounds[tile + 1]
        expect("the runs' classes", tables.present, self.sums.shape[2])
        expect("the vocabulary's classes", tables.broad_of, self.vocabulary)
        return (
            end - begin, begin, tables.broad_of, tables.places, tables.present, *self.scores.shape[1:],
            *self.sums.shape[1:], self.reference.shape[2], self.run, tile, self.scores, self.top, self.token,
            self.mass, self.moment, self.sums, self.reference,
        )  # fmt: skip

    def see(self, scaled: Float[Tensor, "N C"], first: int) -> None:
        """A tile of scaled logits, in torch operations."""
        tile = first // self.columns
        begin, end = self.tables.bounds[tile], self.tables.bounds[tile + 1]
        self.scores[:, begin:end] = scaled[:, self.tables.places[begin:end].long()]
        for group, columns in enumerate(self.tables.columns[tile]):
            if len(columns):
                self._see_class(group, columns, scaled[:, columns], first)

    def _see_class(self, group: int, columns: Int[Tensor, "C"], scores: Float[Tensor, "N C"], first: int) -> None:
        largest, place = scores.max(-1)
        above = largest > self.top[:, group]
        self.token[:, group] = torch.where(above, columns[place] + first, self.token[:, group])
        before = self.top[:, group].to(self.mass.dtype)
        top = torch.where(above, largest, self.top[:, group])
        self.top[:, group] = top
        # -inf - -inf where no score is a number yet.
        step = (before - top).nan_to_num(0.0, neginf=-torch.inf)
        old, kind = self.mass[:, group], self.mass.dtype
        moment = torch.where(old > 0, (self.moment[:, group] + step * old) * step.exp(), 0.0)
        # Far below the exponential is 0, and what it is multiplied with a number.
        below = (scores - top[:, None]).clamp_(min=_NOTHING)
        weights = below.exp()
        self.mass[:, group] = torch.where(old > 0, old * step.exp(), 0.0) + weights.sum(-1, dtype=kind)
        self.moment[:, group] = moment + (weights * below).sum(-1, dtype=kind)
        self.reference[:, group, first // self.columns] = top
        self.sums[:, group].index_add_(1, (columns + first) // self.run, weights)

    def clear(self) -> None:
        """Before another pass. What the pass writes whole is left."""
        self.top.fill_(-torch.inf)
        self.token.zero_()
        self.mass.zero_()
        self.moment.zero_()
        self.sums.zero_()
        self.reference.fill_(-torch.inf)

    def result(self, scaled_columns: ScaledColumns) -> ClassScores:
        """What the tiles have said, on the host but for the explicit scores."""
        broad, token = self._broad()
        return self.told(self.scores, broad.cpu(), token.cpu(), scaled_columns)

    def statistics(self) -> tuple[Float[Tensor, "L X"], Float[Tensor, "3 L G"], Int[Tensor, "L G"]]:
        """What `told` is to be given, where it lies."""
        return self.scores, *self._broad()

    def told(
        self,
        explicit: Float[Tensor, "L X"],
        broad: Float[Tensor, "3 L G"],
        token: Int[Tensor, "L G"],
        scaled_columns: ScaledColumns,
    ) -> ClassScores:
        """The scores, of statistics that have been brought to the host."""
        best, log_mass, level = broad.double()
        return ClassScores(
            parts=self.parts,
            explicit=explicit,
            scale=1.0,
            broad=BroadScores(
                best=best,
                token=token,
                log_mass=log_mass,
                level=level,
                draw=lambda places, groups, uniform: self._draw(places, groups, uniform, scaled_columns),
            ),
        )

    def _broad(self) -> tuple[Float[Tensor, "3 L G"], Int[Tensor, "L G"]]:
        top = self.top.double() if has_float64(self.top.device) else self.top
        return torch.stack([top, top + self.mass.log(), top + self.moment / self.mass]), self.token

    def _draw(
        self, places: Int[Tensor, "P"], groups: Int[Tensor, "P"], uniform: Float[Tensor, "P"], scaled: ScaledColumns
    ) -> Int[Tensor, "P"]:
        """Inverse CDF over the runs, then inside one run, in float64: on the host where the device has none."""
        device = self.sums.device
        host = device if has_float64(device) else torch.device("cpu")
        given = [places, groups, uniform.double()] if host == device else [places, groups]
        rows, of, *draws = moved(given, device)
        uniform = draws[0] if draws else uniform
        top = self.top[rows, of].to(host).double()
        shift = (self.reference[rows, of].to(host).double() - top[:, None]).exp()
        per_tile = self.columns // self.run
        mass = self.sums[rows, of].to(host).double()
        mass *= shift.repeat_interleave(per_tile, 1)[:, : mass.shape[1]]
        cumulative = mass.cumsum(-1)
        threshold = uniform.to(host).double() * cumulative[:, -1]
        run = first_above(cumulative, threshold)
        before = (cumulative - mass).gather(1, run[:, None])[:, 0]
        columns = run.to(device)[:, None] * self.run + torch.arange(self.run, device=device)
        inside = self.tables.broad_of.to(device)[columns.clamp(max=self.vocabulary - 1)] == of[:, None]
        inside &= columns < self.vocabulary
        scores = scaled(rows, columns).masked_fill(~inside, -torch.inf)
        inner = (scores.to(host).double() - top[:, None]).exp().cumsum(-1)
        token = first_above(inner, threshold - before)
        return (run * self.run + token).cpu()


class _Tables:
    """An automaton's parts as a pass over tiles reads them; made once for each.

    Attributes:
        bounds: [T + 1] where each tile's explicit tokens begin.
        places: [X] explicit tokens as columns of their tiles.
        broad_of: [V] see `Parts`.
        present: [J] bits of the broad classes of each run.
    """

    def __init__(self, parts: Parts, columns: int, run: int, device: torch.device) -> None:
        V = len(parts.broad_of)
        self._parts, self._width, self._device = parts, columns, device
        self.bounds: list[int] = np.searchsorted(parts.ids, np.arange(0, V + columns, columns)).tolist()
        self.places = torch.from_numpy((parts.ids % columns).astype(np.int32)).to(device)
        self.broad_of = torch.from_numpy(parts.broad_of).to(device)
        bits = np.where(parts.broad_of >= 0, np.uint64(1) << parts.broad_of.clip(0).astype(np.uint64), np.uint64(0))
        present = np.bitwise_or.reduceat(bits, np.arange(0, V, run)).view(np.int64)
        self.present = torch.from_numpy(np.ascontiguousarray(present))

    @staticmethod
    @functools.lru_cache(maxsize=8)
    def of(parts: Parts, columns: int, run: int, device: torch.device) -> _Tables:
        """The tables, from the last few that were made."""
        return _Tables(parts, columns, run, device)

    @functools.cached_property
    def columns(self) -> list[list[Int[Tensor, "C"]]]:
        """By tile, the columns of each broad class in it: what torch operations gather."""
        groups, tiles = range(len(self._parts.broad)), torch.from_numpy(self._parts.broad_of).split(self._width)
        return [[torch.nonzero(tile == group)[:, 0].to(self._device) for group in groups] for tile in tiles]
