"""The shape of each layer's attention, from the config's two published forms, and how its positions turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redraft.core.errors import CheckpointError
from redraft.core.fields import Reader

SLIDING, FULL = "sliding_attention", "full_attention"
_MOST_LAYERS, _WIDEST_HEAD = 1000, 2**16
_DEFAULT_ROPE: dict[str, dict[str, Any]] = {
    SLIDING: {"rope_type": "default", "rope_theta": 10_000.0},
    FULL: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0},
}
# What an entry of `rope_parameters` may say; of the others, the values that change nothing.
_TURNS = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
_CHANGES_NOTHING = {"factor": 1, "attention_factor": 1}
# Spellings of other models and of older files, which the reference does not read here: (the layers, their field).
_ELSEWHERE = {
    "rope_theta": (FULL, "rope_theta"),
    "rope_global_base_freq": (FULL, "rope_theta"),
    "rope_local_base_freq": (SLIDING, "rope_theta"),
    "partial_rotary_factor": (FULL, "partial_rotary_factor"),
}


@dataclass(frozen=True, kw_only=True)
class LayerConfig:
    """The shape of one layer's attention. `window` is None where the layer sees everything."""

    num_key_value_heads: int
    head_dim: int
    window: int | None
    rope_theta: float
    partial_rotary_factor: float
    shares_key_value: bool

    @property
    def rope_key(self) -> tuple[float, float, int]:
        """Layers with equal keys share their rotary tables."""
        return (self.rope_theta, self.partial_rotary_factor, self.head_dim)


def read_layers(reader: Reader, *, shared: bool) -> tuple[LayerConfig, ...]:
    """Every layer's shape; `shared`: whether full layers use their keys as values.

    Raises:
        CheckpointError: names the field that cannot be used.
    """
    count = reader.integer("num_hidden_layers", most=_MOST_LAYERS)
    # The reference's rule when the file names no pattern: every sixth layer, and always the last, is full.
    default_types = [FULL if (i + 1) % 6 == 0 or i == count - 1 else SLIDING for i in range(count)]
    types = reader.optional("layer_types", default_types)
    if not isinstance(types, list) or len(types) != count or any(kind not in (SLIDING, FULL) for kind in types):
        raise CheckpointError(
            f"{reader.source}: {reader.prefix}layer_types must name {SLIDING!r} or {FULL!r} "
            f"for each of the {count} layers"
        )
    if types[-1] != FULL:
        # The reference makes the last layer full whatever the file says.
        raise CheckpointError(f"{reader.source}: {reader.prefix}layer_types must end with {FULL!r}")
    own = _own_shapes(reader, count)
    turns = _turns(reader)
    return tuple(
        _layer(reader, kind, _shape(reader, i, kind, shared, own), turns[kind], shared and kind == FULL)
        for i, kind in enumerate(types)
    )


def _own_shapes(reader: Reader, count: int) -> dict[int, Reader] | None:
    """What `per_layer_config` says of single layers, by their number; None without it.

    Its keys are numbers as texts, filled up with zeros to one width or not: transformers fills them up.
    """
    if reader.fields.get("per_layer_config") is None:
        return None
    found: dict[int, Reader] = {}
    for key in reader.mapping("per_layer_config", {}):
        number = int(key) if key.isascii() and key.isdecimal() and len(key) <= 9 else count
        if number >= count:
            raise CheckpointError(
                f"{reader.source}: {reader.prefix}per_layer_config has the key {key!r:.40}, "
                f"which is no layer from 0 to {count - 1}"
            )
        if number in found:
            raise CheckpointError(f"{reader.source}: {reader.prefix}per_layer_config names layer {number} twice")
        found[number] = reader.part("per_layer_config", key)
        for name, value in found[number].fields.items():
            # A layer may say what holds for all; what else would make it another one is not run.
            if name not in ("num_key_value_heads", "head_dim") and value not in (None, [], reader.fields.get(name)):
                raise CheckpointError(
                    f"{reader.source}: {reader.prefix}per_layer_config.{key}.{name} is {value!r:.60}: "
                    "of a layer, redraft reads its own head_dim and num_key_value_heads"
                )
    return found


def _shape(reader: Reader, index: int, kind: str, shared: bool, own: Mapping[int, Reader] | None) -> tuple[int, int]:
    """(key-value heads, head size) of one layer, from either form."""
    heads, head_dim = reader.integer("num_key_value_heads"), reader.integer("head_dim", most=_WIDEST_HEAD)
    if own is not None:
        said = own.get(index)
        return (
            (heads, head_dim)
            if said is None
            else (
                said.integer("num_key_value_heads", heads),
                said.integer("head_dim", head_dim, most=_WIDEST_HEAD),
            )
        )
    if kind == SLIDING:
        return heads, head_dim
    # The reference's rule: full layers that have their own values have as many heads as the others.
    heads = reader.integer("num_global_key_value_heads", heads) if shared else heads
    return heads, reader.integer("global_head_dim", most=_WIDEST_HEAD)


def _layer(
    reader: Reader, kind: str, shape: tuple[int, int], turn: tuple[float, float], shares_key_value: bool
) -> LayerConfig:
    heads, head_dim = shape
    if reader.integer("num_attention_heads") % heads:
        raise CheckpointError(f"{reader.source}: num_attention_heads is no multiple of {heads} key-value heads")
    if head_dim % 2:
        raise CheckpointError(f"{reader.source}: head size {head_dim} is odd, rotary embedding needs pairs")
    return LayerConfig(
        num_key_value_heads=heads,
        head_dim=head_dim,
        window=reader.integer("sliding_window") if kind == SLIDING else None,
        rope_theta=turn[0],
        partial_rotary_factor=turn[1],
        shares_key_value=shares_key_value,
    )


def _turns(reader: Reader) -> dict[str, tuple[float, float]]:
    """(theta, the share of a head that turns) of each kind of layer. Nothing that is said of it is passed over.

    Source: transformers `DiffusionGemmaTextConfig` and `DiffusionGemmaTextRotaryEmbedding`, which read
    `rope_parameters` by kind of layer and nothing else.
    """
    given = reader.mapping("rope_parameters", {})
    for key, value in given.items():
        if key not in (SLIDING, FULL) or value is None:
            raise CheckpointError(
                f"{reader.source}: {reader.prefix}rope_parameters.{key} is {value!r:.60}: "
                f"it must have an entry each for {SLIDING!r} and {FULL!r}"
            )
    found = {kind: _turn(reader, kind) for kind in (SLIDING, FULL)}
    if (scaling := reader.optional("rope_scaling", None)) is not None:
        raise CheckpointError(f"{reader.source}: {reader.prefix}rope_scaling={scaling!r:.60} is not supported")
    for name, (kind, field) in _ELSEWHERE.items():
        value = reader.optional(name, None)
        if value is not None and value != found[kind][field == "partial_rotary_factor"]:
            raise CheckpointError(
                f"{reader.source}: {reader.prefix}{name}={value!r:.60} is not read: "
                f"say it as rope_parameters.{kind}.{field}"
            )
    return found


def _turn(reader: Reader, kind: str) -> tuple[float, float]:
    default = _DEFAULT_ROPE[kind]
    rope = reader.part("rope_parameters", kind)
    turn = Reader(rope.fields or default, reader.source, rope.prefix)
    rope_type = turn.optional("rope_type", turn.optional("type", "default"))
    if rope_type not in ("default", "proportional"):
        raise CheckpointError(f"{reader.source}: rope_type {rope_type!r:.60} of {kind} is not supported")
    for name, value in turn.fields.items():
        if name not in _TURNS and value not in (None, _CHANGES_NOTHING.get(name)):
            raise CheckpointError(f"{reader.source}: {rope.prefix}{name}={value!r:.60} is not supported")
    partial = turn.number("partial_rotary_factor", 1.0)
    if partial > 1:
        raise turn.wrong("partial_rotary_factor", "at most 1", partial)
    if rope_type == "default" and partial != 1.0:
        raise CheckpointError(f"{reader.source}: partial_rotary_factor needs rope_type 'proportional'")
    return turn.number("rope_theta", default["rope_theta"]), partial
