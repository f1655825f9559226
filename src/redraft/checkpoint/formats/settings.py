"""What a checkpoint's `quantization_config` says that its tensors do not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from redraft.core.errors import CheckpointError


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Group sizes, bits and dialects; how each module is stored is told by its tensors alone.

    Attributes:
        group_sizes: every one that is named anywhere, for groups that do not divide the columns.
        packed_bits: of compressed-tensors' packed integers.
        zero_offset: what GPTQ's stored zero points lack; None to read it off the file.
        mlx_modules: MLX's own entries {group_size, bits, mode} by module path.
        mlx_default: MLX's entry for all others.
    """

    group_sizes: frozenset[int] = frozenset()
    packed_bits: int = 4
    zero_offset: int | None = None
    mlx_modules: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    mlx_default: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Mapping[str, Any] | None) -> Settings:
        """Reads `quantization_config`, or MLX's `quantization`; there is none in a plain checkpoint.

        Raises:
            CheckpointError: packed integers of several widths, which tensors do not tell apart.
        """
        config = config or {}
        bits = set(_integers(config.get("config_groups"), "num_bits", within="weights"))
        packed = {width for width in bits if _packs_integers(config)}
        if len(packed) > 1:
            raise CheckpointError(f"quantization_config: packed integers of {sorted(packed)} bits in one checkpoint")
        return cls(
            group_sizes=frozenset(_integers(config, "group_size")),
            packed_bits=next(iter(packed), 4),
            zero_offset=_zero_offset(config),
            mlx_modules={name: entry for name, entry in config.items() if isinstance(entry, Mapping)},
            mlx_default=config,
        )

    def mlx(self, module: str) -> Mapping[str, Any]:
        """MLX's entry for a module, its own or everyone's. Entries may leave out the outer modules."""
        own = next((entry for name, entry in self.mlx_modules.items() if f".{module}".endswith(f".{name}")), {})
        return {**self.mlx_default, **own}


def _packs_integers(config: Mapping[str, Any]) -> bool:
    formats = {config.get("format"), *(g.get("format") for g in (config.get("config_groups") or {}).values())}
    return "pack-quantized" in formats


def _integers(value: Any, key: str, within: str | None = None) -> Iterator[int]:
    """Every integer under this key, at any depth; only inside entries called `within`, if given."""
    if not isinstance(value, Mapping):
        return
    for name, part in value.items():
        if name == key and isinstance(part, int) and within is None:
            yield part
        yield from _integers(part, key, None if name == within else within)


def _zero_offset(config: Mapping[str, Any]) -> int | None:
    if config.get("sym") is True:
        # The middle of the range is stored as itself or as one less: the file tells.
        return None
    if config.get("quant_method") == "gptq":
        return 0 if config.get("checkpoint_format") == "gptq_v2" else 1
    packing = str(config.get("packing_format") or "")
    if "gptq" in packing:
        return 1
    return 0 if packing else None
