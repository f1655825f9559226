"""The loss of all canvases in one pass is that of transformers' model with the same noise and masks written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference import load_reference, random_ids

from checkpoints import CANVAS, VOCAB
from redraft.train.collate import Weights, collate_rows
from redraft.train.draws import corrupt
from redraft.train.objective import Objective, loss_at
from redraft.train.rows import Reply, Row

WINDOW = 16


def conversation(*parts, seed):
    """Alternately context and replies, by length."""
    whole, replies = random_ids(sum(parts), seed=seed).tolist(), []
    for number, length in enumerate(parts):
        start = sum(parts[:number])
        if number % 2:
            replies.append(Reply(start, whole[start : start + length], [False] * length))
    return Row(whole, replies, [False] * len(whole))


def masks_of(batch, r, canvases):
    """Who sees whom in one row, position by position: encoder [T, T] and canvases [C L, T + C L], by kind of layer."""
    T, L = batch.tokens.shape[1], CANVAS
    begins = batch.begins[r].tolist()
    found = {}
    for kind, window in (("full_attention", None), ("sliding_attention", WINDOW)):
        encoder = torch.zeros(T, T, dtype=torch.bool)
        for q in range(T):
            for p in range(q + 1):
                encoder[q, p] = begins[p] == begins[q] and (window is None or q - p < window)
        decoder = torch.zeros(len(canvases) * L, T + len(canvases) * L, dtype=torch.bool)
        for c, n in enumerate(canvases):
            start = int(batch.prefix[n])
            for q in range(c * L, c * L + L):
                for p in range(start):
                    decoder[q, p] = begins[p] == begins[start - 1] and (window is None or p >= start - (window - 1))
                decoder[q, T + c * L : T + c * L + L] = True
        found[kind] = encoder[None, None], decoder[None, None]
    return tuple({kind: pair[side] for kind, pair in found.items()} for side in (0, 1))


@pytest.mark.parametrize("pack", [None, 110])
def test_the_loss_is_the_references(checkpoint, model, pack):
    from transformers import DynamicCache

    rows = [conversation(21, 2 * CANVAS + 3, 4, 6, seed=1), conversation(3, 5, 30, CANVAS, seed=2)]
    rows.append(conversation(7, CANVAS, seed=3))
    batch = collate_rows(rows, CANVAS, 1, np.random.default_rng(0), pack=pack or 0, weights=Weights(prompt=0.5))
    assert batch.begins is not None
    noisy, _ = corrupt(batch.canvas, VOCAB, torch.Generator().manual_seed(0), spread=True)
    with torch.no_grad():
        loss, parts = loss_at(model, batch, noisy, lambda: None, Objective())
    reference = load_reference(checkpoint)
    of_canvas, of_row = torch.zeros(noisy.shape), torch.zeros(batch.tokens.shape)
    for r in range(len(batch.tokens)):
        canvases = (batch.row == r).nonzero()[:, 0].tolist()
        encoder, decoder = masks_of(batch, r, canvases)
        places = torch.cat(
            [batch.prefix[n] - batch.begins[r, batch.prefix[n] - 1] + torch.arange(CANVAS) for n in canvases]
        )
        with torch.no_grad():
            out = reference(
                input_ids=batch.tokens[r : r + 1], attention_mask=encoder,
                position_ids=(torch.arange(batch.tokens.shape[1]) - batch.begins[r])[None],
                # One that does not know of windows keeps all keys.
                cache=DynamicCache(),
                decoder_input_ids=noisy[canvases].reshape(1, -1), decoder_attention_mask=decoder,
                decoder_position_ids=places[None],
            )  # fmt: skip
            hidden = out.encoder_last_hidden_state
            causal = torch.tanh(reference.lm_head(hidden).float() / 30.0) * 30.0
        of_canvas[canvases] = F.cross_entropy(out.logits[0], batch.canvas[canvases].flatten(), reduction="none").view(
            -1, CANVAS
        )
        of_row[r] = F.cross_entropy(causal[0], batch.targets[r], reduction="none")
    expected = (of_canvas * batch.scored).sum() / batch.scored.sum()
    next_token = (of_row * batch.causal).sum() / batch.causal.sum()
    assert float(parts["diffusion"]) == pytest.approx(float(of_canvas[batch.scored > 0].mean()), rel=1e-5)
    assert float(loss) == pytest.approx(float(expected + next_token), rel=1e-5)
    assert float(expected) > 1
