"""An accelerator that is not there: tensors that say they are on it and lie on the CPU, under its rules.

Under `pretending`, what is made on the device, or of what is there, is there. Operators that mix it with the CPU are
refused as a device would, and so is a dtype that the device lacks: what runs so asks nothing that an Apple GPU has not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

# What asks the device itself, before any rule hears of it; and what gives no tensor.
_ASKING = {
    torch.nonzero, torch.Tensor.__getitem__, torch.Tensor.__invert__, F.scaled_dot_product_attention,
}  # fmt: skip
_ASKED = {getattr(torch.Tensor, name) for name in ("__setitem__", "tolist", "item", "__int__", "__float__", "__bool__")}
aten = torch.ops.aten
# Between devices by their nature; and an index may be the host's.
_BRIDGES = {aten.copy_.default, aten._to_copy.default, aten.index.Tensor, aten.index_put_.default}


class Pretended(torch.Tensor):
    """Says that it is on `device`; its numbers are those of `inner`."""

    inner: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor, device: torch.device) -> Pretended:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=device,
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, operator, types, arguments=(), options=None):  # type: ignore[no-untyped-def]
        raise RuntimeError(f"{operator} outside of what pretends that there is a device")


class Rules(TorchDispatchMode):
    """What operators do there."""

    def __init__(self, device: torch.device, lacks: tuple[torch.dtype, ...]) -> None:
        super().__init__()
        self.device, self.lacks = device, lacks

    def __torch_dispatch__(self, operator, types, arguments=(), options=None):  # type: ignore[no-untyped-def]
        options = dict(options or {})
        given = [x for x in tree_leaves((arguments, options)) if isinstance(x, torch.Tensor)]
        theirs = [x for x in given if isinstance(x, Pretended)]
        here = bool(theirs)
        if (wanted := options.get("device")) is not None:
            here = torch.device(wanted).type == self.device.type
            options["device"] = torch.device("cpu") if here else wanted
            options.pop("pin_memory", None)
        strangers = [x for x in given if not isinstance(x, Pretended) and x.ndim]
        if theirs and strangers and operator not in _BRIDGES:
            raise RuntimeError(f"{operator}: expected all tensors on one device, found {self.device.type} and cpu")
        owners = {id(x.inner): x for x in theirs}
        found = operator(*tree_map(_inner, arguments), **tree_map(_inner, options))
        return tree_map(lambda x: self._there(x, owners) if here and isinstance(x, torch.Tensor) else x, found)

    def _there(self, found: torch.Tensor, owners: dict[int, Pretended]) -> torch.Tensor:
        if found.dtype in self.lacks:
            raise TypeError(f"{self.device.type} has no {found.dtype}")
        # In place: the same one.
        return owners[id(found)] if id(found) in owners else Pretended(found, self.device)


class _Names(TorchFunctionMode):
    """Before any rule hears of it, torch asks which device is current where one has no number; some functions ask the
    device itself."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, function, types, arguments=(), options=None):  # type: ignore[no-untyped-def]
        if function is torch.device:
            return function(*arguments, **(options or {}))
        arguments, options = tree_map(self._numbered, (arguments, dict(options or {})))
        if arguments and isinstance(arguments[0], Pretended):
            if function in _ASKED:
                return function(*tree_map(_inner, arguments))
            if function is torch.Tensor.copy_:
                function(*tree_map(_inner, arguments))
                return arguments[0]
            if function in _ASKING:
                inner = function(*tree_map(_inner, arguments), **tree_map(_inner, options))
                return Pretended(inner, self.device)
        if function is torch.tensor and options.get("device") == self.device:
            return function(*arguments, **options | {"device": "cpu"}).to(self.device)
        return function(*arguments, **options)

    def _numbered(self, x: Any) -> Any:
        is_name = isinstance(x, torch.device) or (isinstance(x, str) and x.partition(":")[0] == self.device.type)
        return self.device if is_name and torch.device(x).type == self.device.type else x


class Cards:
    """Stands for torch.cuda with several of them."""

    def __init__(self) -> None:
        self.at = 0

    def current_device(self) -> int:
        return self.at

    @contextmanager
    def device(self, index: int) -> Iterator[None]:
        before, self.at = self.at, index
        yield
        self.at = before


def _inner(x: Any) -> Any:
    return x.inner if isinstance(x, Pretended) else x


@contextmanager
def pretending(kind: str, lacks: tuple[torch.dtype, ...] = ()) -> Iterator[None]:
    """Inside, there is such a device, without these dtypes."""
    device = torch.device(kind, 0)
    with _Names(device), Rules(device, lacks):
        yield
