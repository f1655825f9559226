"""Puts an adapter into a model, and takes it out again."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from redraft.adapters.adapter import Adapter, Pair
from redraft.adapters.base import differs, fingerprint
from redraft.adapters.modules import AdaptedExperts, AdaptedLinear, Dropout, Mode
from redraft.adapters.settings import adaptable, is_stack
from redraft.core.errors import CheckpointError, OptionError
from redraft.model.config import ModelConfig
from redraft.model.feedforward import Experts
from redraft.model.model import DiffusionGemma
from redraft.model.runner import Runner
from redraft.placement.quantized import FrozenExperts, FrozenModule


@dataclass(kw_only=True)
class Attached:
    """An adapter that is in a model.

    Attributes:
        adapter: what was put in; its pairs are the model's modules now, on its device.
        dropout: of its inputs, in training.
    """

    adapter: Adapter
    dropout: Dropout
    _model: DiffusionGemma
    _replaced: Mapping[str, nn.Module]
    _runner: Runner | None
    _forget: Callable[[], None]

    def detach(self) -> None:
        """Leaves the model as it was before."""
        for path, module in self._replaced.items():
            _put(self._model.backbone, path, module)
        for module in self._model.backbone.modules():
            if isinstance(module, FrozenModule):
                module.weight_only = False
        self._forget()
        self._model.run_by(self._runner)


def attach(model: DiffusionGemma, adapter: Adapter, *, learning: bool = False) -> Attached:
    """Puts an adapter into a model, whose own weights are frozen from here on. Its modules run it, whatever runner
    there is.

    Args:
        model: in any form; each product with quantised weights goes on as it was, and the adapter's is added.
        adapter: its factors are moved to the model's device.
        learning: whether the factors shall get gradients. Then quantised weights are widened where gradients are on.

    Raises:
        CheckpointError: it was made for another base, or its tensors have no place or another shape here.
        OptionError: there is one already, or experts that lie on disk or in host memory are in the way.
    """
    backbone = model.backbone
    check_bare(model)
    check_fits(adapter, model.config)
    check_base(adapter, fingerprint(model))
    mode, dropout = Mode(), Dropout(adapter.settings.dropout)
    model.requires_grad_(False)
    made: dict[str, nn.Module] = {}
    for path in changed_modules(adapter):
        module = backbone.get_submodule(path)
        if path.startswith("self_conditioning."):
            pair = adapter.denoise.get(f"{path}.weight")
            made[path] = AdaptedLinear(module, pair, pair, mode, dropout)
        elif path.endswith(".experts"):
            _check_held(module, f"{path} cannot be adapted")
            stacks = [_stack_pairs(pairs, path) for pairs in (adapter.encode, adapter.denoise)]
            made[path] = AdaptedExperts(module, *stacks, mode=mode)  # type: ignore[arg-type]
        else:
            encode, denoise = adapter.encode.get(f"{path}.weight"), adapter.denoise.get(f"{path}.weight")
            made[path] = AdaptedLinear(module, encode, denoise, mode, dropout)
    if learning:
        for number, layer in enumerate(backbone.layers):
            _check_held(layer.experts, f"layer {number} cannot be trained through")  # type: ignore[arg-type]
        for module in backbone.modules():
            if isinstance(module, FrozenModule):
                module.weight_only = True
    replaced = {path: backbone.get_submodule(path) for path in made}
    for path, module in made.items():
        for pair in _pairs_of(module):
            pair.to(model.device).requires_grad_(learning)
        _put(backbone, path, module)
    forget = (lambda: None) if adapter.is_one else _tell_mode(backbone, mode)
    runner = model.runner
    model.run_by(None)
    return Attached(
        adapter=adapter,
        dropout=dropout,
        _model=model,
        _replaced=replaced,
        _runner=runner,
        _forget=forget,
    )


def changed_modules(adapter: Adapter) -> list[str]:
    """Paths of the modules that an adapter stands before, relative to the backbone."""
    return list(dict.fromkeys(name.rpartition(".")[0] for name in (*adapter.encode, *adapter.denoise)))


def _stack_pairs(pairs: Mapping[str, Pair], path: str) -> tuple[Pair | None, Pair | None]:
    return pairs.get(f"{path}.gate_up_proj"), pairs.get(f"{path}.down_proj")


def _pairs_of(module: nn.Module) -> list[Pair]:
    return [part for part in module.modules() if isinstance(part, Pair)]


def _put(root: nn.Module, path: str, module: nn.Module) -> None:
    owner, _, child = path.rpartition(".")
    setattr(root.get_submodule(owner), child, module)


def _tell_mode(backbone: nn.Module, mode: Mode) -> Callable[[], None]:
    def note(_: nn.Module, __: tuple[Any, ...], given: Mapping[str, Any]) -> None:
        mode.causal = given["causal"]

    return backbone.register_forward_pre_hook(note, with_kwargs=True).remove


def _check_held(module: nn.Module, what: str) -> None:
    if not isinstance(module, (Experts, FrozenExperts)):
        raise OptionError(f"{what}: experts lie on disk or in host memory; give the model the memory to hold them")


def check_bare(model: DiffusionGemma) -> None:
    """Raises OptionError where an adapter is in the model."""
    if any(isinstance(module, (AdaptedExperts, AdaptedLinear)) for module in model.backbone.modules()):
        raise OptionError("there is an adapter in this model: take it out first")


def check_fits(adapter: Adapter, config: ModelConfig) -> None:
    """Raises CheckpointError where a pair has no place in the model, or another shape."""
    shapes = adaptable(config)
    for name, pair in (*adapter.encode.items(), *adapter.denoise.items()):
        if name not in shapes:
            raise CheckpointError(f"the adapter changes {name!r}, which this model does not have")
        *stacked, out, inner = shapes[name]
        first, second = tuple(pair.a.shape), tuple(pair.b.shape)
        counts = {(), (1,), tuple(stacked)} if is_stack(name) else {()}
        fits = first[-1] == inner and second[-2] == out and first[-2] == second[-1]
        if not fits or first[:-2] not in counts or second[:-2] not in counts:
            raise CheckpointError(
                f"the adapter's factors of {name!r} are {list(first)} and {list(second)}, the base's matrix is "
                f"{list(shapes[name])}: it was made for another shape"
            )


def check_base(adapter: Adapter, here: Mapping[str, str]) -> None:
    """Raises CheckpointError where the adapter says that it was made for another base; warns of another form."""
    known = adapter.base
    if not known:
        return
    if differs(known, here):
        raise CheckpointError(
            f"the adapter was made for another base: {_shown(known)}, and this one is {_shown(here)}: give that base"
        )
    if known.get("form") != here["form"]:
        warnings.warn(
            f"the adapter was tuned on this base as {known.get('form')}, around the errors of that form; "
            f"here it is {here['form']}",
            stacklevel=3,
        )


def _shown(base: Mapping[str, str]) -> str:
    return f"{base.get('family')}/{base.get('weights')} ({base.get('form')})"
