"""Where a run begins: a checkpoint that is there, or one made from scratch with a tokenizer of the data's."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch

from redraft.checkpoint.load import load_model
from redraft.checkpoint.locate import locate
from redraft.checkpoint.save import save_checkpoint
from redraft.core.errors import CheckpointError, RecipeError
from redraft.core.files import read_json
from redraft.model.model import DiffusionGemma
from redraft.model.scratch import generation_config, initialise, scratch_config
from redraft.text.chat import ChatTemplate
from redraft.text.tokenizer import Tokenizer
from redraft.train.data import Part
from redraft.train.examples import rendered
from redraft.train.recipe import Recipe
from redraft.train.tokenizer import save_tokenizer, train_tokenizer
from redraft.vision.config import VisionConfig
from redraft.vision.scratch import scratch_vision

_MARKERS = {"boi_token_id": "<|image>", "eoi_token_id": "<image|>", "image_token_id": "<|image|>"}


def start_directory(recipe: Recipe, parts: list[Part]) -> Path:
    """The checkpoint to begin with; one from scratch is written to `initial/` once, tokenizer and all."""
    if recipe.init is not None:
        return locate(recipe.init)
    directory = recipe.output / "initial"
    if not (directory / "model.safetensors").exists():
        _make_initial(recipe, parts, directory)
    _check_shape(recipe, directory)
    return directory


def load_start(directory: Path, device: torch.device) -> DiffusionGemma:
    """The model to train.

    Raises:
        CheckpointError: it has no canvas mode, or is stored in a quantised form.
    """
    model = load_model(directory, device).requires_grad_(True)
    if model.quantization is not None:
        raise CheckpointError(f"{directory} is stored in {model.quantization}: give what it was made from as init")
    if not model.config.has_canvas:
        raise CheckpointError(f"{directory} has no canvas mode to train: init must be a DiffusionGemma checkpoint")
    return model


def _check_shape(recipe: Recipe, directory: Path) -> None:
    """Refuses to go on with a model that an earlier form of the recipe has made."""
    assert recipe.model is not None
    config = read_json(directory / "config.json")
    made = config.get("text_config", {}) | {"canvas_length": config.get("canvas_length")}
    wanted = recipe.model.model_dump(exclude={"vision"})
    seen, vision = config.get("vision_config") or {}, recipe.model.vision
    made |= {f"vision.{name}": value for name, value in seen.items()} | {"vision": bool(seen)}
    sizes = {} if vision is None else vision.model_dump(exclude={"image_tokens"})
    wanted |= {f"vision.{name}": value for name, value in sizes.items()} | {"vision": vision is not None}
    for name, value in wanted.items():
        if made.get(name) != value:
            raise RecipeError(
                f"model.{name} is {value}, and the model in {directory} was made with {made.get(name)}: give the run "
                f"another output, or delete {recipe.output} to begin anew"
            )


def _make_initial(recipe: Recipe, parts: list[Part], directory: Path) -> None:
    assert recipe.model is not None
    assert recipe.tokenizer is not None
    try:
        source = recipe.tokenizer.chat_template.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{recipe.tokenizer.chat_template}: the chat template cannot be read: {error}") from None
    template = ChatTemplate(source, {"bos_token": "<bos>"})
    # Each source weighs in the vocabulary as it does in training.
    rows = [(row, part.path) for part in parts for row in part.train[: math.ceil(part.share * len(part.train))]]
    texts = (rendered(template, row, path, add_generation_prompt=False) for row, path in rows)
    vision = recipe.model.vision
    backend = train_tokenizer(texts, recipe.tokenizer.vocab_size, () if vision is None else tuple(_MARKERS.values()))
    save_tokenizer(backend, directory, source)
    tokenizer = Tokenizer(backend)
    pad, eos, bos = (tokenizer.id_of(token) for token in ("<pad>", "<eos>", "<bos>"))
    shape = recipe.model.model_dump(exclude={"canvas_length", "vision"})
    shape |= {"vocab_size": tokenizer.vocab_size, "pad_token_id": pad, "eos_token_id": eos, "bos_token_id": bos}
    sizes = None if vision is None else vision.model_dump(exclude={"image_tokens"})
    places = None if vision is None else {name: tokenizer.id_of(marker) or 0 for name, marker in _MARKERS.items()}
    config = scratch_config(shape, recipe.model.canvas_length, vision=sizes, image_tokens=places)
    model, tower = DiffusionGemma(config), None
    initialise(model, recipe.seed)
    if vision is not None:
        tower = scratch_vision(VisionConfig.from_dict(config.raw, config.hidden_size), recipe.seed + 1)
        processor = {"image_processor": {"max_soft_tokens": vision.image_tokens}}
        (directory / "processor_config.json").write_text(json.dumps(processor, indent=2) + "\n", encoding="utf-8")
    defaults = generation_config(pad, bos, list(tokenizer.end_of_turn_ids()))
    (directory / "generation_config.json").write_text(json.dumps(defaults, indent=2) + "\n", encoding="utf-8")
    save_checkpoint(model, directory, vision=tower)
