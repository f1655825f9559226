"""Assignments grouped by expert on the device: their order, and a table of blocks of at most BLOCK rows.

No atomics and nothing that the host waits for: each expert's program counts all assignments itself, which is a few
kilobytes from cache, and so knows where its own begin. Within an expert assignments keep their order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Int
from torch import Tensor

from redraft.kernels.triton.dependent import after_the_last
from redraft.kernels.triton.target import launch, power_of_two

# N rows, A experts a row, E experts, B blocks

_CHUNK = 2048


@triton.jit
def group_kernel(
    index_ptr, order_ptr, table_ptr, total, num_blocks, BLOCK: tl.constexpr, BINS: tl.constexpr, CHUNK: tl.constexpr
):  # fmt: skip
    """One expert's part of the order and of the table."""
    after_the_last()
    expert = tl.program_id(0)
    bins = tl.arange(0, BINS)
    counts = tl.zeros([BINS], tl.int32)
    for first in range(0, total, CHUNK):
        at = first + tl.arange(0, CHUNK)
        chosen = tl.load(index_ptr + at, mask=at < total, other=0).to(tl.int32)
        counts += tl.histogram(chosen, BINS, mask=at < total)
    blocks = (counts + BLOCK - 1) // BLOCK
    start = tl.sum(tl.where(bins < expert, counts, 0))
    block = tl.sum(tl.where(bins < expert, blocks, 0))
    count = tl.sum(tl.where(bins == expert, counts, 0))

    place = start
    for first in range(0, total, CHUNK):
        at = first + tl.arange(0, CHUNK)
        mine = tl.load(index_ptr + at, mask=at < total, other=-1).to(tl.int32) == expert
        rank = tl.cumsum(mine.to(tl.int32), 0)
        tl.store(order_ptr + place + rank - 1, at, mask=mine)
        place += tl.sum(mine.to(tl.int32))

    for done in range(0, count, BLOCK):
        tl.store(table_ptr + 3 * block, expert)
        tl.store(table_ptr + 3 * block + 1, start + done)
        tl.store(table_ptr + 3 * block + 2, tl.minimum(count - done, BLOCK))
        block += 1
    if expert == tl.num_programs(0) - 1:
        # What is left of the table: programs that find no rows there return.
        for first in range(block, num_blocks, 128):
            at = first + tl.arange(0, 128)
            tl.store(table_ptr + 3 * at + 2, tl.zeros([128], tl.int32), mask=at < num_blocks)


def group(
    index_NA: Int[Tensor, "N A"], num_experts: int, block: int
) -> tuple[Int[Tensor, "NA"], Int[Tensor, "B 3"]]:  # fmt: skip
    """(order, table): assignments (row * A + place) by expert, and each block's (expert, first, rows).

    Args:
        index_NA: the experts of each row.
        num_experts: E.
        block: the most rows in a block.
    """
    total = index_NA.numel()
    # Every expert that is chosen has at most one block that is not full.
    num_blocks = min(num_experts, total) + total // block
    order = torch.empty(total, dtype=torch.int32, device=index_NA.device)
    table = torch.empty(num_blocks, 3, dtype=torch.int32, device=index_NA.device)
    bins = max(power_of_two(num_experts), 16)
    chunk = min(_CHUNK, max(power_of_two(total), 128))
    index = index_NA.contiguous()
    launch(group_kernel, (num_experts,), index, order, table, total, num_blocks, block, bins, chunk)
    return order, table
