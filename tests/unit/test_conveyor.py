"""Experts in host memory: on a CPU the same code copies them from one place to another."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest
import torch

import redraft
from redraft.checkpoint.locate import BUNDLED
from redraft.kernels.matrices.float8 import Float8Matrix
from redraft.kernels.matrices.int4 import Int4Matrix, quantise_int4
from redraft.placement import conveyor as conveyors
from redraft.placement.conveyor import Conveyor, PlainStack, convey

MINI = BUNDLED / "mini"
CPU = torch.device("cpu")


def int4(weight):
    parts = zip(*(quantise_int4(one) for one in weight), strict=True)
    data, scale, row_scale = (torch.stack(part) for part in parts)
    return Int4Matrix(data=data, scale=scale, row_scale=row_scale)


FORMS = {"float32": lambda weight: PlainStack(weight.clone()), "int4": int4, "fp8": Float8Matrix.of}


def model_in(form, layers):
    """mini, its experts in a form; those of `layers` conveyed."""
    model = redraft.load("mini", dtype="float32", threads=1).model
    pairs = {
        number: (FORMS[form](layer.experts.gate_up_proj), FORMS[form](layer.experts.down_proj))
        for number, layer in enumerate(model.backbone.layers)
    }
    for number, pair in pairs.items():
        model.backbone.layers[number].experts = conveyors._module_of(*pair)
    belt = convey(model.backbone, [(n, pairs[n]) for n in layers], CPU) if layers else None
    return model, belt


def logits(model):
    generator = torch.Generator().manual_seed(0)
    cache = model.new_cache(1)
    model.encode(torch.randint(0, model.config.vocab_size, (1, 20), generator=generator), cache)
    return model.denoise(torch.randint(0, model.config.vocab_size, (1, 24), generator=generator), cache)


@pytest.mark.parametrize("layers", [[3], [1, 2], [0, 2, 5], [0, 1, 2, 3, 4, 5]], ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_what_comes_from_the_host_gives_the_same(form, layers):
    expected = logits(model_in(form, [])[0])
    model, belt = model_in(form, layers)
    assert torch.equal(logits(model), expected)
    assert torch.equal(logits(model), expected)
    assert len(belt.places) == min(2, len(layers))
    assert belt.layers == layers
    sizes = [t.nbytes for pair in belt._host.values() for stack in pair for t in vars(stack).values()]
    assert belt.bytes_moved == 4 * sum(sizes), "each layer once a forward: two encodes, two canvases"


def test_a_forward_that_broke_off_leaves_nothing_behind():
    model, _ = model_in("int4", [0, 2, 5])
    expected = logits(model)

    def stop(*_):
        raise KeyboardInterrupt

    handle = model.backbone.layers[3].register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        logits(model)
    handle.remove()
    assert torch.equal(logits(model), expected)


def test_a_copy_waits_for_what_is_in_use_and_a_product_for_its_copy(monkeypatch):
    """The order of what two streams are told, which a CPU would forgive."""
    told = []

    class Event:
        def record(self, stream):
            told.append((stream.name, "records", id(self)))

    class Stream:
        def __init__(self, name="copies"):
            self.name = name

        def wait_event(self, event):
            told.append((self.name, "waits", id(event)))

    main = Stream("computes")
    streams = SimpleNamespace(
        Event=Event,
        Stream=Stream,
        is_available=lambda: False,
        current_stream=lambda device: main,
        stream=lambda stream: contextlib.nullcontext(),
    )
    monkeypatch.setattr(conveyors.torch, "get_device_module", lambda device: streams)
    weight = torch.zeros(1, 2, 2)
    belt = Conveyor([(n, (PlainStack(weight), PlainStack(weight))) for n in range(4)], CPU)
    belt.begin()
    for layer in range(4):
        place = belt.take(layer)
        told.append(("computes", "uses", place))
        belt.give_back(layer)
    arrived, free = [[id(event) for event in events] for events in (belt._arrived, belt._free)]
    for layer in range(4):
        place = layer % 2
        used = [n for n, what in enumerate(told) if what == ("computes", "uses", place)][layer // 2]
        copied = [n for n, what in enumerate(told) if what == ("copies", "records", arrived[place])][layer // 2]
        waited = max(n for n, what in enumerate(told[:used]) if what == ("computes", "waits", arrived[place]))
        assert copied < waited < used
        before = max(n for n, what in enumerate(told[:copied]) if what == ("copies", "waits", free[place]))
        freed = max(n for n, what in enumerate(told[:before]) if what == ("computes", "records", free[place]))
        if layer >= 2:
            assert freed > [n for n, what in enumerate(told) if what == ("computes", "uses", place)][layer // 2 - 1]
    # A layer ahead: the second one's copy is under way before the first one is used.
    assert told.index(("copies", "records", arrived[1])) < told.index(("computes", "uses", 0))
    assert told[-1][0] == "computes", "no copy is left over, which a captured forward could not have"


@pytest.mark.parametrize("form", ["float32", "int4", "fp8"])
def test_a_checkpoint_loads_so(form):
    options = {} if form == "float32" else {"quantize": form}
    whole = redraft.load_model(MINI, **options)
    model = redraft.load_model(MINI, streamed=frozenset({1, 2, 4}), in_memory=True, **options)
    kinds = [type(layer.experts).__name__ for layer in model.backbone.layers]
    assert [number for number, kind in enumerate(kinds) if kind == "ConveyedExperts"] == [1, 2, 4]
    assert torch.equal(logits(model), logits(whole))


def test_int8_experts_are_refused():
    with pytest.raises(TypeError, match="int8"):
        redraft.load_model(MINI, streamed=frozenset({1}), in_memory=True, quantize="int8")
