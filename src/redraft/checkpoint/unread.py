"""What people have that is no checkpoint which redraft reads: each kind is named as what it is, with the way out."""

from __future__ import annotations

from pathlib import Path

GGUF_MAGIC = b"GGUF"
# What a conversion writes down first.
CONVERSION = "redraft-conversion.json"
_PICKLE = "pickled weights, which can run code and are never opened: save them as safetensors"
_BY_SUFFIX = {
    ".uqff": "a UQFF file of mistral.rs: give the checkpoint that it was made from",
    ".bin": _PICKLE,
    ".pt": _PICKLE,
    ".pth": _PICKLE,
    ".ckpt": _PICKLE,
    ".onnx": "an ONNX graph: give the checkpoint that it was exported from",
    ".npz": "arrays of NumPy or an old MLX: save them as safetensors",
    ".mlx": "a file of MLX: save it as safetensors",
    ".dgq": "a pack of another engine: give the checkpoint that it was made from",
    ".litertlm": "a LiteRT bundle: give the checkpoint that it was made from",
    ".task": "a LiteRT bundle: give the checkpoint that it was made from",
}
_ADAPTER = (
    "a LoRA adapter without its base model: give that as the model and this as --adapter, or `redraft merge` them"
)
_OWN_NAMES = "model.safetensors or model.safetensors.index.json"


def what_file(path: Path) -> str:
    """What a file is that was given for a model, as the end of a sentence that begins with its name."""
    try:
        with path.open("rb") as file:
            first = file.read(len(GGUF_MAGIC))
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    if first == GGUF_MAGIC:
        return "is a GGUF file by another name: let its name end with .gguf"
    if path.name.startswith("adapter_model."):
        return f"is {_ADAPTER}"
    if path.suffix.lower() == ".safetensors":
        return f"is one file of a checkpoint: give its directory, {path.parent}"
    known = _BY_SUFFIX.get(path.suffix.lower())
    return "is a file, not a directory and no GGUF file" if known is None else f"is {known}"


def why_no_weights(directory: Path) -> str | None:
    """Why a directory's weights cannot be read, as the end of a sentence that begins with its name; None where it holds
    files under the names that are read."""
    try:
        names = sorted(path.name for path in directory.iterdir())
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    if CONVERSION in names and "config.json" not in names:
        return "holds a conversion that was cut off, and no config.json yet: run the same command again, and it goes on"
    if any(name in names for name in _OWN_NAMES.split(" or ")) or "redraft.safetensors.index.json" in names:
        return None
    if "adapter_config.json" in names or any(name.startswith("adapter_model.") for name in names):
        return f"holds {_ADAPTER}"
    for suffix, what in ((".gguf", "a GGUF file: give that file instead"), *_BY_SUFFIX.items()):
        found = [name for name in names if name.lower().endswith(suffix) and name != "training_args.bin"]
        if found:
            return f"holds no {_OWN_NAMES}, but {found[0]}, {what}"
    found = [name for name in names if name.lower().endswith(".safetensors")]
    if any(name.startswith("consolidated") for name in found):
        return (
            f"holds {found[0]}, weights under the names of their makers' own tools: give them in Hugging Face's layout"
        )
    if found:
        return f"holds {found[0]}, but no {_OWN_NAMES}, which would say what belongs to the model"
    missing = "" if "config.json" in names else ", and no config.json"
    return f"holds no weights: neither {_OWN_NAMES} nor a GGUF file{missing}"
