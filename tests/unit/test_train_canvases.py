"""Every canvas of every reply in one pass: as the canvases one by one, whatever stands in a row."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import redraft
from checkpoints import CANVAS, VOCAB, write_checkpoint
from redraft.train.batch import Batch
from redraft.train.collate import Weights, collate_rows, packed
from redraft.train.draws import Ahead, StepDraws, corrupt
from redraft.train.examples import Example
from redraft.train.objective import Objective, loss_at, loss_of
from redraft.train.rows import Reply, Row, rows_of

FILL = 1


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Its sliding layers see 16 positions; rows here have up to 70. In double precision, so that sums have no order."""
    return redraft.load_model(write_checkpoint(tmp_path_factory.mktemp("canvases"))).double().requires_grad_(True)


def ids(count, seed):
    return torch.randint(4, VOCAB, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def row(*parts, seed=0, complete=True):
    """Alternately what is context and what is learned, by length."""
    whole, replies = [], []
    for number, length in enumerate(parts):
        piece = ids(length, 100 * seed + number)
        if number % 2:
            replies.append(Reply(len(whole), piece, [i % 3 == 0 for i in range(length)], complete))
        whole += piece
    return Row(whole, replies, [False] * len(whole))


ROWS = [row(5, 20, 3, 7, 9, 4), row(40, 2 * CANVAS + 3, 2, CANVAS, seed=1), row(3, 2, seed=2), row(19, 30, seed=3)]


def batch_of(rows, **how):
    return collate_rows(rows, CANVAS, FILL, np.random.default_rng(0), **how)


def alone(batch: Batch, n: int) -> Batch:
    """One canvas of a batch behind its own conversation, in the form that draws a canvas of each reply."""
    r, end = int(batch.row[n]), int(batch.prefix[n])
    begin = 0 if batch.begins is None else int(batch.begins[r, end - 1])
    one = slice(n, n + 1)
    tokens = batch.tokens[r : r + 1, begin:end]
    return Batch(
        tokens=tokens, lengths=torch.tensor([end - begin]), prefix=torch.tensor([end - begin]),
        canvas=batch.canvas[one], scored=batch.scored[one], values=batch.values[one],
        causal=torch.zeros(tokens.shape), causal_values=torch.zeros(tokens.shape, dtype=torch.bool),
    )  # fmt: skip


def gradients(model):
    found = {name: p.grad for name, p in model.backbone.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("how", [{}, {"pack": 160}, {"pad_to": 32}, {"pack": 100, "weights": Weights(value=3, fill=0)}])
@pytest.mark.parametrize("signal", [False, True])
def test_loss_and_gradients_are_those_of_the_canvases_one_by_one(model, how, signal):
    batch, generator = batch_of(ROWS, **how), torch.Generator().manual_seed(1)
    N = len(batch.canvas)
    assert N == 4 + 1 + 1 + 4 - 1 + 1 + 3 - 1 + 1 + 1
    noisy, _ = corrupt(batch.canvas, VOCAB, generator, spread=True)
    uniform, lot = torch.rand(noisy.shape, generator=generator), torch.rand(N, generator=generator)
    chosen = torch.arange(0, N, 2)

    def ahead(places):
        steps = [StepDraws(uniform[places], None, lot[places])]
        return Ahead(torch.arange(len(places)), torch.ones(len(places)), steps)

    objective = Objective(causal_weight=0.0)
    given = Ahead(chosen, torch.ones(len(chosen)), [StepDraws(uniform[chosen], None, lot[chosen])]) if signal else None
    loss, _ = loss_at(model, batch, noisy, lambda: given, objective)
    loss.backward()
    together = gradients(model)
    total = 0.0
    for n in range(N):
        single = ahead(torch.tensor([n])) if signal and n % 2 == 0 else None
        one, _ = loss_at(model, alone(batch, n), noisy[n : n + 1], lambda single=single: single, objective)
        # Each is the mean over its own positions.
        share = float(batch.scored[n].sum() / batch.scored.sum())
        (one * share).backward()
        total += float(one.detach()) * share
    assert float(loss.detach()) == pytest.approx(total, rel=1e-6)
    singly = gradients(model)
    assert together.keys() == singly.keys()
    off = {name: float((together[name] - gradient).norm()) for name, gradient in singly.items()}
    # Norms compute in float32 whatever the model does, so a single one may be a little further off than all together.
    for name, gradient in singly.items():
        assert off[name] <= 5e-6 * float(gradient.norm()) + 1e-12, name
    assert np.linalg.norm(list(off.values())) <= 1e-6 * np.linalg.norm([float(g.norm()) for g in singly.values()])


def test_packed_rows_are_read_as_if_alone(model):
    """The causal loss, too; and what stands before a conversation changes nothing in it."""
    objective = Objective(self_conditioning=0.0)
    apart, joined = batch_of(ROWS), batch_of(ROWS, pack=160)
    assert len(joined.tokens) == 2 < len(apart.tokens)
    order = [int((apart.canvas == canvas).all(1).nonzero()[0]) for canvas in joined.canvas]
    noisy, _ = corrupt(apart.canvas, VOCAB, torch.Generator().manual_seed(0))
    first, parts = loss_at(model, apart, noisy, lambda: None, objective)
    second, others = loss_at(model, joined, noisy[order], lambda: None, objective)
    assert float(first.detach()) == pytest.approx(float(second.detach()), rel=1e-7)
    assert {name: float(x) for name, x in parts.items()} == pytest.approx({n: float(x) for n, x in others.items()})


def test_a_window_that_is_off_by_one_shows(model, monkeypatch):
    """The comparison would see it."""
    from redraft.train import attend

    batch = batch_of([row(40, 20)])
    noisy, _ = corrupt(batch.canvas, VOCAB, torch.Generator().manual_seed(0))
    right = float(loss_at(model, batch, noisy, lambda: None, Objective(causal_weight=0.0))[0].detach())
    mask = attend._canvas_mask
    monkeypatch.setattr(attend, "_canvas_mask", lambda *given: mask(*given[:4], given[4] and given[4] + 1))
    wrong = float(loss_at(model, batch, noisy, lambda: None, Objective(causal_weight=0.0))[0].detach())
    assert abs(wrong - right) > 1e-5 * right


def test_the_times_of_a_step_are_spread_over_its_canvases():
    canvas = torch.zeros(40, 6, dtype=torch.long)
    _, t = corrupt(canvas, VOCAB, torch.Generator().manual_seed(0), spread=True)
    assert torch.allclose(t.sort().values.diff(), torch.full((39,), 1 / 40), atol=1e-3)
    assert not torch.equal(t, t.sort().values)


def test_rollouts_and_draws_go_over_every_canvas(model):
    batch = batch_of(ROWS, pack=160)
    plan = Objective(self_conditioning=0.7, rollout=1.0, rollout_steps=3, draws=2)
    losses = [float(loss_of(model, batch, torch.Generator().manual_seed(s), plan)[0].detach()) for s in (3, 3, 4)]
    assert losses[0] == losses[1] != losses[2]


def test_what_a_batch_of_rows_holds():
    spoken = row(3, 2, 4, 3)
    told = Row(spoken.ids, spoken.replies, [*[False] * 5, True, True, *[False] * 5])
    batch = batch_of([told, row(2, CANVAS + 1, seed=5)], weights=Weights(value=2.0, prompt=0.5, fill=0.25), pad_to=8)
    assert batch.tokens.shape == (2, 16)
    assert batch.row.tolist() == [0, 0, 1, 1]
    assert batch.prefix.tolist() == [3, 9, 2, 2 + CANVAS]
    assert batch.canvas[0].tolist() == [*told.replies[0].ids, *[FILL] * (CANVAS - 2)]
    assert batch.scored[0].tolist() == [2.0, 1.0, *[0.25] * (CANVAS - 2)]
    assert batch.content[0].tolist() == [True, True, *[False] * (CANVAS - 2)]
    # Positions predict the next token: two of the prompt, the reply's two, none that a tool said, and so on.
    assert batch.causal[0].tolist() == [0.5, 0.5, 2, 1, 0, 0, 0.5, 0.5, 2, 1, 1, 0, 0, 0, 0, 0]
    assert batch.targets[0, :11].tolist() == told.ids[1:]
    even = batch_of(ROWS, weights=Weights(mean="conversations"), pack=200)
    assert even.causal.sum() == pytest.approx(len(ROWS))
    assert even.scored.sum() == pytest.approx(len(ROWS))
    firsts = {tuple(reply.ids[:2]) for reply in ROWS[2].replies}
    of_first = [n for n in range(len(even.row)) if tuple(even.canvas[n, :2].tolist()) in firsts]
    assert float(even.scored[of_first].sum()) == pytest.approx(1)


def test_a_truncated_replys_last_canvas_is_left_out_where_another_is():
    cut = row(3, CANVAS + 2, complete=False)
    assert batch_of([cut]).prefix.tolist() == [3]
    short = batch_of([row(3, 2, complete=False)])
    assert short.scored[0].tolist() == [1.0, 1.0, *[0.0] * (CANVAS - 2)]


def test_groups_hold_everything_once_and_no_more_than_fits():
    lengths = [int(n) for n in np.random.default_rng(0).integers(1, 60, 50)]
    groups = packed(lengths, 64)
    assert sorted(i for group in groups for i in group) == list(range(50))
    assert all(sum(lengths[i] for i in group) <= 64 for group in groups)
    assert len(groups) <= sum(lengths) / 64 * 1.3


def example(prompt, response):
    return Example(prompt, response, [False] * len(response))


def test_a_conversation_is_one_row_where_its_past_stays_and_several_where_not():
    first, second = example([1, 2], [3, 4, 106]), example([1, 2, 3, 4, 106, 7, 8], [9, 106])
    [one] = rows_of([first, second])
    assert one.ids == [*second.prompt, *second.response]
    assert [(reply.start, reply.ids) for reply in one.replies] == [(2, first.response), (7, second.response)]
    # A thought that the next prompt no longer has.
    thinking = example([1, 2], [5, 5, 3, 4, 106])
    rows = rows_of([thinking, second])
    assert [len(row.replies) for row in rows] == [1, 1]
    assert rows[0].ids == [1, 2, 5, 5, 3, 4, 106]
    # A call ends with its turn when it is the last word, and with its result where one follows.
    result = example([1, 2, 3, 4, 50, 60, 51], [9, 106])
    [called] = rows_of([first, result])
    assert called.ids[4] == 50
    assert called.replies[0].ids == [3, 4, 106]
    batch = batch_of([called])
    assert batch.targets[0].tolist()[1:4] == [3, 4, 106]
    assert batch.canvas[0, :3].tolist() == [3, 4, 106]


def test_rows_are_fitted():
    long = row(4, 6, 3, 8)
    whole = long.fitted(21)
    assert whole == long
    cut = long.fitted(16)
    assert [(len(reply.ids), reply.complete) for reply in cut.replies] == [(6, True), (3, False)]
    assert len(cut.ids) == len(cut.told) == 16
    dropped = long.fitted(16, "drop")
    assert [len(reply.ids) for reply in dropped.replies] == [6]
    assert len(dropped.ids) == 10
    assert long.fitted(4) is None
    assert long.fitted(6, "drop") is None
