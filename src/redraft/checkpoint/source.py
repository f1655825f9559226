"""A checkpoint in any published form: its config, and every tensor of the text model under one set of names."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from redraft.checkpoint.formats.headers import Entry, TensorFiles, entries
from redraft.checkpoint.formats.modules import stored_tensors
from redraft.checkpoint.layout import METHOD, check_described, quantised_tensors
from redraft.checkpoint.locate import is_gguf
from redraft.checkpoint.names import Names, names_for
from redraft.checkpoint.stored import StoredTensor
from redraft.checkpoint.unread import what_file, why_no_weights
from redraft.core.errors import CheckpointError, ModelNotFoundError
from redraft.core.files import read_json
from redraft.model.config import ModelConfig, check_model_type

_PLAIN = ("bfloat16", "float16", "float32", "float64")
# Tied weights that were rounded apart differ by about their rounding; more than this is another tensor.
_TWIN_ERROR = 0.25


@dataclass(frozen=True, kw_only=True)
class Source:
    """An open checkpoint; only headers have been read.

    Attributes:
        path: its directory, or its GGUF file.
        config: of the model.
        raw: the content of `config.json`, or what stands for it.
        tensors: by the names that transformers gives them.
        names: how those are made of ours.
        quantised: whether it is in our own layout.
        entries: of the files, by the names in them; empty for GGUF.
    """

    path: Path
    config: ModelConfig
    raw: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]
    names: Names
    quantised: bool
    entries: Mapping[str, Entry]

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, mapped: bool = True) -> Source:
        """Opens a directory in Hugging Face layout, or a GGUF file; for `mapped`, see `entries`.

        Raises:
            ModelNotFoundError: there is neither.
            CheckpointError: a file, a field or a tensor at fault, by name.
        """
        path = Path(path)
        if is_gguf(path):
            return cls._gguf(path)
        if not path.is_dir():
            raise ModelNotFoundError(f"{path} {what_file(path)}" if path.exists() else f"{path} does not exist")
        said = path / "config.json"
        if (reason := why_no_weights(path)) is not None:
            if said.exists() and "model_type" in (named := read_json(said)):
                # Another model is named as such, whatever its weights are stored in.
                check_model_type(named, str(said))
            raise CheckpointError(f"{path} {reason}")
        raw, config = read_json(said), ModelConfig.from_directory(path)
        files = TensorFiles.of(path)
        described = raw.get("quantization_config") or raw.get("quantization")
        quantised = isinstance(described, Mapping) and described.get("quant_method") == METHOD
        if quantised and described is not None:
            check_described(described, path / "config.json")
        found = entries(files, mapped=mapped)
        try:
            tensors = quantised_tensors(found) if quantised else stored_tensors(found, described)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from None
        names = names_for(config, tensors)
        return cls(path=path, config=config, raw=raw, tensors=tensors, names=names, quantised=quantised, entries=found)

    @classmethod
    def _gguf(cls, path: Path) -> Source:
        from redraft.checkpoint.formats.gguf import open_gguf

        file = open_gguf(path)
        raw = file.config()
        config = ModelConfig.from_dict(raw, str(path))
        tensors = file.tensors()
        names = names_for(config, tensors)
        return cls(path=path, config=config, raw=raw, tensors=tensors, names=names, quantised=False, entries={})

    def parameters(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, StoredTensor]:
        """The tensor that fills each of the backbone's parameters and buffers; every other one is accounted for.

        Args:
            shapes: of the parameters, by our names.

        Raises:
            CheckpointError: a tensor that is missing, surplus or misshapen, or a tied one that differs from its owner.
        """
        wanted = {self.names.of(name): name for name in shapes}
        sources: dict[str, StoredTensor] = {}
        twins, surplus = [], []
        for name, tensor in self.tensors.items():
            if name.startswith(self.names.passed_through):
                continue
            owner = self.names.owner(name)
            if name in wanted:
                sources[wanted[name]] = tensor
            elif owner in wanted and owner in self.tensors:
                twins.append((tensor, self.tensors[owner]))
            elif owner in wanted:
                sources[wanted[owner]] = tensor
            else:
                surplus.append(name)
        if surplus:
            raise CheckpointError(f"{self.path}: surplus {listed(surplus)}, which the config has no place for")
        missing = sorted(name for name, parameter in wanted.items() if parameter not in sources)
        if missing:
            raise CheckpointError(f"{self.path}: missing {listed(missing)}")
        for parameter, tensor in sources.items():
            if tensor.shape != shapes[parameter]:
                raise CheckpointError(
                    f"{self.path}: tensor {tensor.name!r} has shape {tensor.shape}, "
                    f"the config asks for {shapes[parameter]}"
                )
        for twin, owner in twins:
            self._check_twin(twin, owner)
        return sources

    @property
    def forms(self) -> tuple[str, str] | None:
        """The forms of experts and the rest in our own layout; None for any other."""
        described = self.raw["quantization_config"] if self.quantised else None
        return None if described is None else (described["experts"], described["rest"])

    def is_held_as(self, dtype: torch.dtype) -> bool:
        """Whether a model's matrices in this dtype are those of the files themselves."""
        return self.quantised or all(t.form == str(dtype).removeprefix("torch.") for t in self.tensors.values())

    def passed_through(self) -> dict[str, StoredTensor]:
        """The tensors of parts that are not run."""
        return {n: tensor for n, tensor in self.tensors.items() if n.startswith(self.names.passed_through)}

    def _check_twin(self, twin: StoredTensor, owner: StoredTensor) -> None:
        """Copies of a plain tensor must be equal. Rounded ones may have been rounded apart: a part is compared."""
        if twin.shape != owner.shape:
            raise CheckpointError(
                f"{self.path}: {twin.name!r} has not the shape of {owner.name!r}, which it is tied to"
            )
        if twin.form in _PLAIN and owner.form in _PLAIN:
            if not torch.equal(twin.read().to(torch.float32), owner.read().to(torch.float32)):
                raise CheckpointError(
                    f"{self.path}: {twin.name!r} differs from {owner.name!r}; untied weights are not supported"
                )
            return
        part = 0 if len(owner.shape) == 3 else None
        left, right = twin.read(part).float(), owner.read(part).float()
        error = float((left - right).norm() / right.norm().clamp(min=1e-30))
        if error > _TWIN_ERROR:
            raise CheckpointError(
                f"{self.path}: {twin.name!r} differs from {owner.name!r} by {error:.0%}: they should be tied"
            )
        if error > 0:
            warnings.warn(
                f"{self.path}: {twin.name!r} differs from {owner.name!r} by {error:.1%}: the latter is used for both",
                stacklevel=2,
            )


def listed(names: list[str]) -> str:
    """Tensors as an error names them: the first three, and how many more."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ("tensor " if len(names) == 1 else "tensors ") + ", ".join(repr(n) for n in sorted(names)[:3]) + more
