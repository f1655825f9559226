"""Training recipes: YAML, checked field by field."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from redraft.core.errors import RecipeError

# What is wrong with a field, by pydantic's name for it.
_REASONS = {
    "missing": "it is missing: write it in the recipe, or add --set",
    "extra_forbidden": "a recipe has no such field: take it out",
}
_OTHER = "{msg}; it is {input!r:.80}"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VisionShape(_Part):
    """Shape of a tower made from scratch, in the checkpoint's own names; a picture becomes `image_tokens` at most where
    nobody says."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    patch_size: int = 16
    pooling_kernel_size: int = 3
    position_embedding_size: int = 3360
    standardize: bool = False
    image_tokens: Literal[70, 140, 280, 560, 1120] = 280


class ModelShape(_Part):
    """Shape of a model made from scratch, in the checkpoint's own names; `vision` has it see."""

    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    global_head_dim: int
    num_global_key_value_heads: int
    num_experts: int
    top_k_experts: int
    moe_intermediate_size: int
    num_hidden_layers: int = 6
    sliding_window: int = 256
    max_position_embeddings: int = 2048
    canvas_length: int = 64
    vision: VisionShape | None = None


class TokenizerRecipe(_Part):
    """A tokenizer trained on the data of the recipe."""

    vocab_size: int = Field(gt=300)
    chat_template: Path


class Source(_Part):
    """One file of conversations; `share` of it is used in each epoch, another part each time. Its own `held_out` goes
    before the recipe's. Paths of pictures are counted from `images`, or else from the file's folder, and stay in it."""

    path: Path
    share: float = Field(default=1.0, gt=0)
    held_out: float | None = Field(default=None, ge=0, lt=1)
    images: Path | None = None


class Augment(_Part):
    """See `Augmentation`."""

    swap: float = 0.0
    random_words: float = 0.0
    word_noise: float = 0.0
    earlier_turn: float = 0.0
    fresh: float = 0.0


class AdapterRecipe(_Part):
    """An adapter that is trained in the place of the model; see `redraft.adapters.settings.Settings`.

    Attributes:
        quantize: form that the base's matrices are rounded to as it loads; a base that is stored in one stays so.
    """

    targets: list[str] = ["attention", "dense"]
    rank: int = 16
    alpha: float = 32.0
    rank_pattern: dict[str, int] = {}
    alpha_pattern: dict[str, float] = {}
    dropout: float = 0.0
    rslora: bool = False
    shared_experts: bool = False
    kind: str = "lora"
    quantize: Literal["int8", "int4", "fp8"] | None = None


class Recipe(_Part):
    """One training run. Paths are relative to the recipe file.

    Attributes:
        init: None makes a model from scratch; else "mini" or a checkpoint directory.
        adapter: trains and writes this and leaves the model of `init` as it is, in any form; None trains all weights.
        vision: what becomes of the tower that rows with pictures need: it stays as it is, or learns with the model.
        soft_tokens_gib: of a tower that stays, what it makes of pictures is kept in the output's `soft_tokens`, so much
            at most.
        optimizer: of the matrices inside the layers; embeddings and vectors always take AdamW.
        held_out: share of the conversations, chosen by text, that is only evaluated on.
        trim_fill: share of the batches whose canvases end behind their longest response.
        canvases: "one" draws a canvas of each reply; "all" scores every canvas of every reply in one pass.
        packing: with "all", puts several conversations into rows of `max_length` tokens.
        pad_to: with "all", rows are as long as a multiple of this; a GPU wants few shapes, such as 128.
        skip_bad: leaves out rows that cannot be used, and counts them; otherwise the first of them ends the run.
        truncation: what becomes of a reply that reaches beyond `max_length`: it is cut, or left out.
        value_weight: weight of argument values in both losses, beside 1 for other tokens.
        prompt_weight: weight of the prompt's own tokens in the causal loss; what a tool has said has none.
        fill_weight: weight of canvas positions behind a reply's end.
        mean_over: a loss is the mean over all tokens of a batch, or over those of each conversation first.
        draws, soft_temperature, noise_power, rollout, rollout_steps: see `Objective`.
        rollout_from: the step that rollouts begin with; before the model knows anything, they teach nothing.
        dropout: see `BranchDropout`.
        grader: what makes a reply to a held-out prompt right, and so which checkpoint is the best: it is "exact" (the
            expected text and calls), has the same "calls", "contains" the text; "none" goes by the held-out loss.
        judge_rows: how many of these prompts are answered at every evaluation.
        judge_tokens: the most tokens of such a reply; None takes twice what the longest expected one has.
        watch: other places for the figures of the log.
        device: "cpu", "cuda", "xpu", "mps", one with an index, or "auto": the accelerator that is there, else the CPU.
        precision: of forward and backward passes. Weights, optimizer and evaluation are float32 in any case; of an
            adapter's base the weights have it too, and evaluation.
        workers: processes that make the batches; 0 makes them between the steps.
        save_every, save_minutes: the state is saved after so many steps or so long, whichever comes first, and with
            every evaluation.
        ema: decay of the averaged weights, which are what is saved; 0 turns it off.
    """

    output: Path
    data: list[Source] = []
    init: str | None = None
    adapter: AdapterRecipe | None = None
    model: ModelShape | None = None
    tokenizer: TokenizerRecipe | None = None
    augment: Augment = Augment()
    steps: int = Field(gt=0)
    batch_size: int = Field(default=32, gt=0)
    vision: Literal["frozen", "train"] = "frozen"
    soft_tokens_gib: float = Field(default=16.0, ge=0)
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = Field(default=2e-3, gt=0)
    final_learning_rate: float = Field(default=0.0, ge=0)
    warmup_steps: int = Field(default=200, ge=0)
    weight_decay: float = Field(default=0.05, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    clip_norm: float = Field(default=1.0, gt=0)
    ema: float = Field(default=0.999, ge=0, lt=1)
    causal_weight: float = Field(default=1.0, ge=0)
    value_weight: float = Field(default=1.0, gt=0)
    prompt_weight: float = Field(default=1.0, ge=0)
    fill_weight: float = Field(default=1.0, ge=0)
    mean_over: Literal["tokens", "conversations"] = "tokens"
    canvases: Literal["one", "all"] = "one"
    packing: bool = False
    pad_to: int = Field(default=1, gt=0)
    skip_bad: bool = False
    truncation: Literal["cut", "drop"] = "cut"
    draws: int = Field(default=1, gt=0)
    self_conditioning: float = Field(default=0.5, ge=0, le=1)
    soft_temperature: tuple[float, float] = (1.0, 1.0)
    noise_power: float = Field(default=1.0, gt=0)
    rollout: float = Field(default=0.0, ge=0, le=1)
    rollout_steps: int = Field(default=1, gt=0)
    rollout_from: int = Field(default=0, ge=0)
    trim_fill: float = Field(default=0.0, ge=0, le=1)
    max_length: int = Field(default=512, gt=1)
    held_out: float = Field(default=0.02, ge=0, lt=1)
    grader: Literal["exact", "calls", "contains", "none"] = "none"
    judge_rows: int = Field(default=200, gt=0)
    judge_tokens: int | None = Field(default=None, gt=0)
    watch: list[Literal["tensorboard", "wandb"]] = []
    eval_every: int = Field(default=250, gt=0)
    save_every: int = Field(default=250, gt=0)
    save_minutes: float = Field(default=10.0, gt=0)
    log_every: int = Field(default=10, gt=0)
    seed: int = 0
    device: str = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"
    workers: int = Field(default=0, ge=0)
    threads: int | None = None
    dropout: float = Field(default=0.0, ge=0, lt=1)
    save_dtype: str = Field(default="float32", pattern="^(float32|bfloat16)$")


def read_recipe(path: Path, overrides: list[str], data: Path | None = None) -> Recipe:
    """A recipe file with `key=value` overrides (dots reach into parts, values are YAML).

    Args:
        path: of the file.
        overrides: applied in their order.
        data: a file in the place of the recipe's data; without it, a recipe may have none.

    Raises:
        RecipeError: one line that names the file or the field.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} cannot be read: {error}") from None
    fields = _read_yaml(text, str(path))
    if not isinstance(fields, dict):
        raise RecipeError(f"{path} must hold a mapping of fields")
    for override in overrides:
        apply_override(fields, override)
    if data is not None:
        fields["data"] = [{"path": str(data.resolve())}]
    elif fields.get("data") is None:
        fields.pop("data", None)
    try:
        recipe = Recipe.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RecipeError(f"{path}: {where}: {_REASONS.get(first['type'], _OTHER).format_map(first)}") from None
    if (recipe.init is None) != (recipe.model is not None and recipe.tokenizer is not None):
        raise RecipeError(f"{path}: give either init, or model and tokenizer")
    if recipe.adapter is not None and recipe.init is None:
        raise RecipeError(f"{path}: adapter: give init, the model that it is for")
    if recipe.vision == "train" and recipe.adapter is not None:
        raise RecipeError(f"{path}: vision: an adapter leaves the tower as it is: take out the one or the other")
    if recipe.vision == "frozen" and recipe.model is not None and recipe.model.vision is not None:
        raise RecipeError(f"{path}: vision: a tower from scratch has nothing to stay as: write `vision: train`")
    return _resolved(recipe, path.resolve().parent)


def apply_override(fields: dict[str, Any], override: str) -> None:
    """Puts `key=value` into the fields of a recipe, with dots into parts.

    Raises:
        RecipeError: it cannot be read, or a part has no fields.
    """
    key, separator, value = override.partition("=")
    if not separator:
        raise RecipeError(f"--set {override!r}: write key=value")
    *parents, last = key.split(".")
    for parent in parents:
        inner = fields.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"--set {override!r}: {parent} has no fields")
        fields = inner
    fields[last] = _read_yaml(value, f"--set {override!r}")


def _read_yaml(text: str, source: str) -> Any:
    try:
        return yaml.safe_load(text)
    # The second: a date that no calendar has.
    except (yaml.YAMLError, ValueError) as error:
        raise RecipeError(f"{source} is not valid YAML: {' '.join(str(error).split())}") from None


def _resolved(recipe: Recipe, base: Path) -> Recipe:
    changes: dict[str, Any] = {
        "output": base / recipe.output,
        "data": [
            source.model_copy(
                update={"path": base / source.path, "images": None if source.images is None else base / source.images}
            )
            for source in recipe.data
        ],
    }
    if recipe.tokenizer is not None:
        template = base / recipe.tokenizer.chat_template
        changes["tokenizer"] = recipe.tokenizer.model_copy(update={"chat_template": template})
    if recipe.init is not None and (base / recipe.init).is_dir():
        changes["init"] = str(base / recipe.init)
    return recipe.model_copy(update=changes)
