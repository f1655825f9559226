"""What a model takes in memory in each of the forms it can be held in, counted from its config alone."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from redraft.checkpoint.rounding import RECIPES, rounded_bytes
from redraft.engine.graphs import rows_for
from redraft.engine.stops import ENCODE_CHUNK
from redraft.kernels.dots import dot_lanes
from redraft.kernels.head import MAX_TILE_BYTES
from redraft.kernels.head_product import TILE_COLUMNS
from redraft.kernels.head_stats import MAX_ROWS as DEVICE_ROWS
from redraft.kernels.head_tiles import MAX_ROWS
from redraft.kernels.int8 import has_exact_products
from redraft.kernels.tile_softmax import BLOCK
from redraft.model.cache import LayerCache, SequenceCache
from redraft.model.config import ModelConfig
from redraft.model.model import shapes_of
from redraft.placement.canvas_cache import CanvasCache, room_for
from redraft.placement.device import auto_dtype

# Python with torch and what a first forward touches of both, without a model: resident bytes on Linux, CPU build.
PROCESS_BYTES = 267 * 10**6
# oneDNN's code, the kernels that it makes and what it keeps for them, once it multiplies.
ONEDNN_BYTES = 22 * 10**6
# Making automata of mini's seven tools takes this for a moment, and the process keeps it.
STEERING_BYTES = 20 * 10**6
# A tokenizer in memory over its file.
_TOKENIZER_GROWTH = 15
# What a GPU's driver and libraries keep on the device; an estimate, it differs by vendor and version.
DEVICE_BYTES = 600 * 10**6


@dataclass(frozen=True, kw_only=True)
class Form:
    """How weights are held.

    Attributes:
        name: as `--quantize` or `--dtype` call it.
        expert_bits, dense_bits: of one weight of an expert and of any other matrix.
        quantised: whether each row of a matrix has a float32 scale beside it.
    """

    name: str
    expert_bits: int
    dense_bits: int
    quantised: bool

    def activation_bytes(self, on_cpu: bool) -> int:
        """Bytes of one number of what is not quantised, in the dtype that `load` takes by itself: activations, keys and
        values, norms, scalars and the router."""
        if self.name == "float32":
            return 4
        if self.name == "bfloat16" or not on_cpu:
            return 2
        return auto_dtype(torch.device("cpu")).itemsize


FORMS = (
    Form(name="float32", expert_bits=32, dense_bits=32, quantised=False),
    Form(name="bfloat16", expert_bits=16, dense_bits=16, quantised=False),
    Form(name="fp8", expert_bits=8, dense_bits=8, quantised=True),
    Form(name="int8", expert_bits=8, dense_bits=8, quantised=True),
    Form(name="int4", expert_bits=4, dense_bits=8, quantised=True),
)


tensor_shapes = functools.lru_cache(maxsize=4)(shapes_of)


def weight_bytes(config: ModelConfig, form: Form, *, on_cpu: bool, itemsize: int | None = None) -> tuple[int, int]:
    """(bytes of the experts, bytes of all other weights), with so many bytes a number that is not quantised."""
    experts = others = 0
    itemsize = itemsize or form.activation_bytes(on_cpu)
    shapes = tensor_shapes(config)
    recipe = RECIPES.get(form.name)
    for name, shape in shapes.items():
        rounded = None if recipe is None else recipe.form_of(shapes, name)
        size = rounded_bytes(shape, rounded) if rounded else math.prod(shape) * itemsize
        if ".experts." in name:
            experts += size
        else:
            others += size
    return experts, others


def kv_bytes(config: ModelConfig, *, context: int, batch: int, itemsize: int) -> int:
    """Bytes that the caches of `batch` sequences have allocated once `context` positions are encoded in the engine's
    pieces and a canvas lies behind them. Buffers grow by doubling, so this may be nearly twice what is in use."""
    dtype = {4: torch.float32, 2: torch.bfloat16}[itemsize]
    seen: dict[tuple[int, int, int | None], int] = {}
    total = 0
    for layer in SequenceCache(config, dtype, torch.device("meta")).layers:
        key = (layer.keys.shape[0], layer.keys.shape[2], layer.keep)
        if key not in seen:
            seen[key] = _grown(layer, context, config.canvas_length)
        total += seen[key]
    return batch * total


def _grown(layer: LayerCache, context: int, canvas: int) -> int:
    for new in _pieces(context):
        positions = layer.keys.new_empty(layer.keys.shape[0], new, layer.keys.shape[2])
        layer.append(positions, positions)
    positions = layer.keys.new_empty(layer.keys.shape[0], canvas, layer.keys.shape[2])
    layer.with_canvas(positions, positions, None)
    return layer.keys.nbytes + layer.values.nbytes


def _pieces(context: int) -> Iterator[int]:
    for first in range(0, context, ENCODE_CHUNK):
        yield min(ENCODE_CHUNK, context - first)


def workspace_bytes(
    config: ModelConfig,
    form: Form,
    *,
    context: int,
    batch: int,
    on_cpu: bool,
    itemsize: int | None = None,
    path: Path | None = None,
) -> dict[str, int]:
    """What a forward needs besides weights and cache, by name; an estimate.

    The larger of a denoising step and of encoding a piece of the prompt counts. Each term is the largest set of
    intermediate results that live at one time in that part; parts follow one another, but freed memory stays with the
    process, so they are added up.

    Args:
        config: of the model.
        form: of its weights.
        context: cached positions of each sequence.
        batch: sequences at a time.
        on_cpu: whether a CPU runs it.
        itemsize: bytes of an activation; None takes what `load` takes by itself.
        path: of the checkpoint; None leaves out its texts.
    """
    a, D = itemsize or form.activation_bytes(on_cpu), config.hidden_size
    # What comes out of products of integers on a CPU is float32; outside the experts it becomes an activation at once.
    wide = 4 if on_cpu and form.name in ("int8", "int4") else a
    # On a CPU each request goes through the products alone.
    canvas = config.canvas_length * (1 if on_cpu else rows_for(batch))
    rows = max(canvas, min(ENCODE_CHUNK, context))
    layer = max(config.layers, key=lambda layer: (layer.window is None, layer.head_dim * layer.num_key_value_heads))
    seen = context + config.canvas_length
    queries, keys = config.num_attention_heads * layer.head_dim, layer.num_key_value_heads * layer.head_dim
    piece = min(ENCODE_CHUNK, context)
    group = config.num_attention_heads // layer.num_key_value_heads
    return {
        # The residual, its normed copies, and what the branches of a layer hand back.
        "hidden": 6 * rows * D * a,
        # Queries as projected, rotated and grouped, and the result; keys and values joined with the prefix.
        "attention": rows * queries * (3 * a + wide) + 2 * seen * keys * a,
        # The causal mask for the heads of a group, as it comes and as attention adds it.
        "mask": group * piece * seen * (1 + a),
        "dense": rows * config.intermediate_size * (2 * a + wide),
        "experts": _expert_bytes(config, form, rows, a, wide, on_cpu),
        "head": _head_bytes(config, form, canvas, wide) if on_cpu else _device_head_bytes(config, canvas),
        "launches": 0 if on_cpu else _launch_bytes(config, context, batch, a),
        "text": _text_bytes(path) if on_cpu and path is not None else 0,
        "process": PROCESS_BYTES + _library_bytes(form, a) if on_cpu else DEVICE_BYTES,
    }


def _launch_bytes(config: ModelConfig, context: int, batch: int, itemsize: int) -> int:
    """Prefixes at fixed addresses: a room for the step of the batch, as much again for the graphs that are kept beside
    it, and one for encoding its canvases."""
    dtype = {4: torch.float32, 2: torch.bfloat16}[itemsize]
    counts = (rows_for(batch), rows_for(batch), 1)
    return sum(CanvasCache(config, rows, room_for(context), dtype, torch.device("meta")).nbytes for rows in counts)


def _library_bytes(form: Form, activation: int) -> int:
    """torch hands float32 products to another library, and int8 ones stay with our C++ where oneDNN's are not exact."""
    integers = form.name in ("int8", "int4") and has_exact_products()
    return ONEDNN_BYTES if integers or activation == 2 else 0


def _text_bytes(path: Path) -> int:
    """A tokenizer, and the automata of the tools that a checkpoint offers by itself."""
    tokenizer = path / "tokenizer.json"
    size = _TOKENIZER_GROWTH * tokenizer.stat().st_size if tokenizer.exists() else 0
    return size + (STEERING_BYTES if size and (path / "tools.json").exists() else 0)


def _expert_bytes(config: ModelConfig, form: Form, rows: int, activation: int, wide: int, on_cpu: bool) -> int:
    """Gathered rows, gate and up, their product, and the results, which are joined from pieces in int8."""
    D, I = config.hidden_size, config.moe_intermediate_size
    slots = rows * config.top_k_experts
    if on_cpu and form.name == "int8" and dot_lanes() and I % dot_lanes() == 0:
        return rows * D * (1 + 4) + slots * I * (4 + 1)
    if on_cpu and form.name in ("int8", "int4"):
        pieces = 2 if form.name == "int8" else 1
        slots += 15 * config.num_experts if form.name == "int8" else 0
        return slots * (D + 2 * I * 4 + I + pieces * D * 4)
    slots += 15 * config.num_experts if on_cpu else 0
    return slots * (D * activation + 3 * I * wide + 2 * D * wide)


def _head_bytes(config: ModelConfig, form: Form, rows: int, wide: int) -> int:
    """Logits and probabilities of one tile, or of all where they wait for the largest logits, block sums of all in
    float32 and three times in float64, soft embedding."""
    rows = min(rows, MAX_ROWS)
    kind = torch.int8 if form.quantised else torch.bfloat16 if form.name == "bfloat16" else torch.float32
    tile = min(TILE_COLUMNS[kind], config.vocab_size)
    blocks = -(-config.vocab_size // BLOCK)
    waiting = 0 if kind == torch.float32 else config.vocab_size * kind.itemsize
    return rows * (2 * tile * max(4, wide) + waiting + blocks * (4 + 3 * 8) + 3 * config.hidden_size * 4)


def _device_head_bytes(config: ModelConfig, rows: int) -> int:
    """Logits in 16 bits, four numbers of each of their tiles, and the soft embedding in six parts; without Triton, some
    tiles of rows."""
    rows = min(rows, DEVICE_ROWS)
    tiled = rows * (2 * config.vocab_size + 16 * config.vocab_size // 128 + 6 * 4 * config.hidden_size)
    return max(tiled, 6 * MAX_TILE_BYTES)
