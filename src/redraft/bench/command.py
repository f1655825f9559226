"""What `redraft bench` does: picks the subjects, measures, reports."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from redraft.adapters.attach import check_fits
from redraft.adapters.read import read_adapter
from redraft.bench.machine import measure_machine, others_share
from redraft.bench.report import KINDS, build_report
from redraft.bench.run import Plan, measure
from redraft.bench.shapes import shape_directory
from redraft.bench.subjects import Spec
from redraft.checkpoint.formats.sidecar import sidecar
from redraft.checkpoint.locate import is_gguf, locate
from redraft.checkpoint.source import Source
from redraft.core.errors import CheckpointError, InputError, RedraftError
from redraft.core.options import GenerationOptions
from redraft.core.threads import checked
from redraft.engine.defaults import Defaults
from redraft.model.model import shapes_of
from redraft.placement.device import auto_dtype
from redraft.text.chat import ChatTemplate
from redraft.text.tokenizer import Tokenizer

Progress = Callable[[str, int, int], None]


def bench(
    *,
    model: str | None,
    shape: str | None,
    layers: int | None,
    steps: int | None,
    prompt: str | None,
    prompt_tokens: int,
    dtype: str,
    against: str | None,
    settings: str,
    repetitions: int,
    threads: int | None,
    memory_gb: float | None = None,
    adapter: str | None = None,
    on_progress: Progress,
) -> dict[str, Any]:
    """Measures one model and returns the report; see `build_report`.

    Args:
        model: name of a model; exclusive with `shape`.
        shape: a named shape with random weights.
        layers: of the shape, instead of its own.
        steps: denoising steps of a canvas (fixed work); None lets the model stop by itself.
        prompt: text; None takes random ids.
        prompt_tokens: how many.
        dtype: whose figures stand at the top of the report: "auto", "float32", "bfloat16", "int8" or "int4".
        against: "transformers" or None.
        settings: of transformers: "default", or "all" to try its experts and its compiled step too.
        repetitions: measured generations of each subject.
        threads: CPU threads of each subject.
        memory_gb: of redraft's process; experts beyond it stay on disk.
        adapter: a directory with one that redraft runs with.
        on_progress: see `measure`.

    Raises:
        InputError: a model, shape or option that cannot be used.
    """
    if model is not None and shape is not None:
        raise InputError("--model and --shape exclude each other: drop one of them")
    if layers is not None and shape is None:
        raise InputError("--layers cuts a --shape; a model has the layers it has")
    if adapter is not None and against is not None:
        raise InputError(f"--adapter is redraft's own: {against} would run without it; drop one of them")
    if threads is not None:
        torch.set_num_threads(checked(threads, "threads"))
    # What is stored in a form of ours runs in it.
    stored = shape is None and dtype == "auto"
    if dtype == "auto":
        # The released shape is meant to be run in int4; nothing else fits a machine of common size.
        dtype = "int4" if shape == "full" and against is None else _name(auto_dtype(torch.device("cpu")))
    _check_rivals(against)
    directory = _directory(model, shape, layers, dtype, on_progress)
    source = Source.open(directory)
    config = source.config
    if not config.has_canvas:
        raise InputError(f"{directory} has no canvas mode, and bench measures denoising steps")
    if against is not None and (source.quantised or is_gguf(directory)):
        raise InputError(f"--against {against}: it does not read {directory}; bench the model that this was made from")
    room = config.max_position_embeddings - config.canvas_length
    if prompt is None and prompt_tokens > room:
        raise InputError(f"--prompt-tokens {prompt_tokens}: beside a canvas this model has {room} positions")
    if steps is not None:
        GenerationOptions(max_denoising_steps=steps)
    beside = sidecar(directory)
    # What loading would refuse: said here, before processes are started.
    source.parameters(shapes_of(config))
    if adapter is not None:
        check_fits(read_adapter(adapter, config), config)
    ChatTemplate.from_directory(beside)
    Defaults.of(beside, config, Tokenizer.from_directory(beside))
    if stored and source.forms is not None and source.forms[0] in KINDS:
        dtype = source.forms[0]
    ids = None if prompt is None else _prompt_ids(beside, prompt)
    plan = Plan(
        vocab_size=config.vocab_size,
        prompt_tokens=prompt_tokens,
        prompt=ids,
        # One canvas: a second one would add a commit, which is not a step.
        max_new_tokens=config.canvas_length,
        steps=steps,
        repetitions=repetitions,
    )
    on_progress("measuring the machine", 0, 1)
    machine = measure_machine()
    specs = _ours(directory, machine.threads, dtype, against is not None, memory_gb, adapter)
    if against is not None:
        specs += _theirs(directory, machine.threads, settings)
    found = measure(specs, plan, on_progress)
    if not any(measured.results for measured in found if measured.spec.library == "redraft"):
        reason = str(found[0].failed)
        # What only the loaded base can say, such as that it is another than the adapter's.
        given = adapter is not None and reason.startswith(CheckpointError.__name__)
        raise (InputError if given else RedraftError)(f"{directory} could not be measured: {reason}")
    report = build_report(found, plan, machine, config, shape or model or "mini", dtype)
    report["adapter"] = adapter
    report["machine"]["others_share_at_end"] = others_share()
    return report


def _check_rivals(against: str | None) -> None:
    if against is not None and importlib.util.find_spec(against) is None:
        raise InputError(f"--against {against}: it is not installed: pip install {against}")


def _prompt_ids(directory: Path, prompt: str) -> tuple[int, ...]:
    tokenizer, template = Tokenizer.from_directory(directory), ChatTemplate.from_directory(directory)
    if tokenizer is None:
        raise InputError(f"{directory} has no tokenizer: leave --prompt out, and random token ids are used")
    if template is not None:
        return tuple(template.prompt(tokenizer, [{"role": "user", "content": prompt}]).encode(tokenizer))
    return tuple(tokenizer.encode(prompt))


def _directory(model: str | None, shape: str | None, layers: int | None, dtype: str, on_progress: Progress) -> Path:
    if shape is None:
        return locate(model or "mini")
    changes = {} if layers is None else {"num_hidden_layers": layers}
    return shape_directory(shape, "int4" if dtype == "int4" else None, on_progress, **changes)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _ours(
    directory: Path, threads: int, kind: str, every: bool, memory_gb: float | None, adapter: str | None
) -> list[Spec]:
    """redraft in float32, bfloat16 and int8 where there is something to compare with, and in what was asked for."""
    float_kind = _name(auto_dtype(torch.device("cpu")))
    kinds = {
        "float32": ("float32", None),
        "bfloat16": ("bfloat16", None),
        "int8": (float_kind, "int8"),
        "int4": (float_kind, "int4"),
    }
    if kind not in kinds:
        raise InputError(f"--dtype must be auto, {', '.join(kinds)}; got {kind!r}")
    return [
        Spec(
            name=f"redraft {name}",
            library="redraft",
            directory=str(directory),
            dtype=dtype,
            quantize=quantize,
            memory_gb=memory_gb,
            adapter=adapter,
            threads=threads,
        )
        for name, (dtype, quantize) in kinds.items()
        if name == kind or (every and name != "int4")
    ]


def _theirs(directory: Path, threads: int, settings: str) -> list[Spec]:
    def spec(name: str, dtype: str, **changes: Any) -> Spec:
        return Spec(
            name=f"transformers {name}",
            library="transformers",
            directory=str(directory),
            dtype=dtype,
            threads=threads,
            **changes,
        )

    found = [spec("float32", "float32"), spec("bfloat16", "bfloat16")]
    if settings == "all":
        best = "bfloat16" if auto_dtype(torch.device("cpu")) == torch.bfloat16 else "float32"
        found += [spec(f"{best}, experts {name}", best, experts=name) for name in ("eager", "batched_mm")]
        found += [spec(f"{kind}, compiled", kind, compiled=True) for kind in ("float32", "bfloat16")]
    return found
