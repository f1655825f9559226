"""What each published form costs on mini's task: each is written, loaded and asked the same rows with the same seeds.

    python benchmarks/formats.py --data data/mini/snips.test.jsonl --limit 230 --out formats.jsonl

Forms are made by the writers of the tests, which keep to the formats and search for nothing. Where a form's groups do
not divide mini's matrices, mini is widened by zeros first (`widened.py`): the same function in a shape that can hold
them. Activations are float32 and one thread runs. A form that stands in --out already is not measured again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rounding import logits
from safetensors.torch import load_file, save_file
from torch import Tensor
from widened import widen

import redraft
from redraft.checkpoint.convert import quantize
from redraft.checkpoint.locate import BUNDLED
from redraft.checkpoint.rounding import RECIPES
from redraft.checkpoint.source import Source
from redraft.engine.engine import LocalEngine
from redraft.eval.data import Row, read_rows
from redraft.eval.tool_calls import evaluate
from redraft.model.model import shapes_of
from redraft.text.lines import json_lines

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from quantised import FORMATS, write_in_format

MINI = BUNDLED / "mini"
REFERENCE = "float32"
# What inner dimensions must be multiples of; mini's are 64, 192, 288 and 384. GGUF's K types fall back otherwise.
GROUPS = {"gguf-q6_k": 256, "gguf-q5_k_m": 256, "gguf-q4_k_m": 256}
GROUPS |= {name: 64 for name in FORMATS if name.startswith(("gptq", "auto-round", "awq", "w4a16-asym", "mlx-"))}
# Microscaling has groups of 32.
GROUPS = {name: size for name, size in GROUPS.items() if not name.endswith(("mxfp4", "mxfp8", "bf16"))}
FALLBACK = "+fallback"
WIDENED = "float32+widened"
# Forms of 4-bit integers, whose published files are rounded with regard to what the matrices met.
CALIBRATED = "+calibrated"
INTEGERS = tuple(name for name in FORMATS if name.startswith(("w4a16", "gptq", "auto-round", "awq")))
FORMS = (REFERENCE, *RECIPES, WIDENED, *FORMATS, *(f"{name}{FALLBACK}" for name in FORMATS if GROUPS.get(name) == 256))
FORMS += tuple(f"{name}{CALIBRATED}" for name in INTEGERS)
CALIBRATION_REQUESTS = 64
PROMPTS = 16
# A matrix that differs by less was stored in another dtype and not rounded.
STORED = 1e-3


def main() -> None:
    """Measures what is missing, then prints a table or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=230)
    parser.add_argument("--calibrate", type=Path, metavar="ROWS", help="of other requests, for what is calibrated")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS), metavar="FORM")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = read_rows(arguments.data)
    texts = read_rows(arguments.calibrate or arguments.data.with_name("snips.train.jsonl"))
    texts = texts[:: len(texts) // CALIBRATION_REQUESTS]
    engine = redraft.load(MINI, dtype="float32", threads=1)
    wanted = [(ids, logits(engine.model, ids)) for ids in prompt_ids(engine, rows)]
    for number, form in enumerate(arguments.forms, 1):
        if form in (found := read_lines(arguments.out)):
            continue
        say(f"[{number}/{len(arguments.forms)}] {form}")
        try:
            line = measured(form, rows, texts, arguments.limit, wanted, found)
        except Exception as error:
            say(traceback.format_exc())
            line = {"failed": f"{type(error).__name__}: {error}"}
        with arguments.out.open("a", encoding="utf-8") as file:
            print(json.dumps({"form": form, **line}), file=file)
    found = read_lines(arguments.out)
    print(json.dumps(found, indent=2) if arguments.json else table(found))


def measured(
    form: str,
    rows: list[Row],
    texts: list[Row],
    limit: int,
    wanted: list[tuple[list[int], Tensor]],
    found: dict[str, dict],
) -> dict[str, Any]:
    """One line of --out: errors of the weights and logits, and the task, unless another form has the same weights."""
    with tempfile.TemporaryDirectory() as folder:
        held, base = write(form, MINI, Path(folder) / "mini", texts)
        error, share = weight_error(held, base)
        line: dict[str, Any] = {"weight_error": error, "share_rounded": share, "shape": GROUPS.get(form, 1)}
        nearest = form.removesuffix(CALIBRATED)
        nominal, _ = weight_error(*write(nearest, gaussian(MINI, Path(folder) / "gaussian"), Path(folder) / "nominal"))
        engine = load(held)
        pairs = [(logits(engine.model, ids), want) for ids, want in wanted]
        size = sum(float(want.square().sum()) for _, want in pairs)
        line |= {
            "nominal_error": nominal,
            "logit_error": (sum(float((got - want).square().sum()) for got, want in pairs) / size) ** 0.5,
            # Matrices of our own forms are none of a model's parameters.
            "weights": form if form in RECIPES else digest(engine.model.backbone.state_dict()),
        }
        twin = next((name for name, other in found.items() if other.get("weights") == line["weights"]), None)
        if twin is not None:
            kept = ("wrong", "exact_match", "valid_calls", "denoising_steps_per_canvas", "n", "n_failed")
            return line | {"same_weights_as": twin} | {key: found[twin][key] for key in kept}
        wrong: list[int] = []
        began = time.perf_counter()
        measures = evaluate(
            engine,
            rows,
            limit=limit,
            on_progress=lambda done, count: say(f"{form}: {done}/{count}, {time.perf_counter() - began:.0f} s"),
            # Row i is answered with seed i.
            on_wrong=lambda report: wrong.append(report["seed"]),
        )
        return line | {"wrong": wrong} | measures


def write(form: str, source: Path, directory: Path, texts: Sequence[Row] = ()) -> tuple[Path, Path]:
    """(the form of a checkpoint, the float checkpoint that it is of, which is the source or the source widened)."""
    name = form.partition("+")[0]
    if form == WIDENED:
        return (base := widen(source, directory, max(GROUPS.values()))), base
    base = (
        source if form.endswith(FALLBACK) or name not in GROUPS else widen(source, directory / "widened", GROUPS[name])
    )
    if name == REFERENCE:
        return base, base
    if name in RECIPES:
        quantize(base, directory / "form", RECIPES[name])
    else:
        write_in_format(base, directory / "form", name, hessians(base, texts) if form.endswith(CALIBRATED) else None)
    return next((directory / "form").glob("*.gguf"), directory / "form"), base


def hessians(base: Path, texts: Sequence[Row]) -> dict[str, Tensor]:
    """By module of attention and dense layers, the sum of x x^T over what it multiplies while texts are answered."""
    engine, found = load(base), dict[str, Tensor]()

    def watch(name: str) -> Callable[..., None]:
        def hook(_: Any, given: tuple[Tensor]) -> None:
            rows = given[0].flatten(0, -2).double()
            found[name] = found.get(name, 0.0) + rows.T @ rows

        return hook

    for name, module in engine.model.backbone.named_modules():
        if isinstance(module, torch.nn.Linear) and (".self_attn." in name or ".mlp." in name):
            module.register_forward_pre_hook(watch(f"model.decoder.{name}"))
    for seed, row in enumerate(texts):
        engine.generate(row.prompt, seed=seed)
    return found


def load(held: Path) -> LocalEngine:
    """An engine with mini's tokenizer and defaults: the tests' writer of GGUF files has another vocabulary."""
    model = redraft.load(held, dtype="float32", threads=1).model
    return LocalEngine(model, name="mini", directory=MINI, exact=True, max_context=None, prefix_cache_bytes=2**29)


def gaussian(source: Path, directory: Path) -> Path:
    """The checkpoint with matrices of random numbers, on which a form's rounding errs by what it nominally does."""
    directory.mkdir(parents=True)
    for file in source.glob("*.json*"):
        (directory / file.name).write_bytes(file.read_bytes())
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: tensor if tensor.ndim < 2 else (torch.randn(tensor.shape, generator=generator) / 20).to(tensor.dtype)
        for name, tensor in load_file(source / "model.safetensors").items()
    }
    save_file(tensors, directory / "model.safetensors")
    return directory


def weight_error(held: Path, base: Path) -> tuple[float, float]:
    """(relative root mean square error of the matrices that are rounded, the share of all weights that these are)."""
    shapes = shapes_of(Source.open(base).config)
    ours, theirs = Source.open(held).parameters(shapes), Source.open(base).parameters(shapes)
    squares, rounded, count = 0.0, 0, 0
    for name, tensor in theirs.items():
        exact = tensor.read().float()
        error = float((ours[name].read().float() - exact).norm() / exact.norm().clamp(min=1e-30))
        count += exact.numel()
        if exact.ndim >= 2 and error > STORED:
            squares, rounded = squares + exact.numel() * error**2, rounded + exact.numel()
    return (squares / max(1, rounded)) ** 0.5, rounded / count


def prompt_ids(engine: LocalEngine, rows: list[Row]) -> list[list[int]]:
    """Some of the prompts as tokens."""
    assert engine.tokenizer is not None
    assert engine.template is not None
    chosen = rows[:: len(rows) // PROMPTS][:PROMPTS]
    return [engine.tokenizer.encode(engine.template.render(row.prompt)) for row in chosen]


def digest(tensors: dict[str, Tensor]) -> str:
    """Of what a model holds."""
    hashed = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        hashed.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        hashed.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()[:16]


def read_lines(path: Path) -> dict[str, dict[str, Any]]:
    """The forms that stand in --out."""
    return {line["form"]: line for _, line in json_lines(path)} if path.exists() else {}


def table(found: dict[str, dict[str, Any]]) -> str:
    """Markdown; right and wrong against float32 are rows that only one of the two has right."""
    base = found[REFERENCE]
    text = ["| form | exact | against float32 | steps | ratio | valid | logit error | weight error (Gaussian) |"]
    text.append("|" + "---|" * 8)
    for form, line in sorted(found.items(), key=lambda item: FORMS.index(item[0])):
        if "failed" in line:
            text.append(f"| {form} | {line['failed']} |" + " |" * 6)
            continue
        gained, lost = (len(set(a["wrong"]) - set(b["wrong"])) for a, b in ((base, line), (line, base)))
        steps, change = line["denoising_steps_per_canvas"], line["exact_match"] - base["exact_match"]
        text.append(
            f"| {form} | {line['exact_match']:.3f} | {100 * change:+.1f} (+{gained}/-{lost}) | {steps:.2f} "
            f"| {steps / base['denoising_steps_per_canvas']:.3f} | {line['valid_calls']:.3f} "
            f"| {line['logit_error']:.4f} | {line['weight_error']:.4f} ({line['nominal_error']:.4f}) |"
        )
    return "\n".join(text)


def say(text: str) -> None:
    """Progress, where no result goes."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
