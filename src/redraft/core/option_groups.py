"""Generation options by the question that they answer: in the help of a command, and in the documentation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class OptionGroup:
    """Options that answer one question.

    Attributes:
        title: of the group.
        question: what somebody asks who needs them.
        example: flags that show it.
        names: of the fields of `GenerationOptions`.
    """

    title: str
    question: str
    example: str
    names: tuple[str, ...]


GROUPS = (
    OptionGroup(
        title="Length",
        question="How long may the reply be, and where does it end?",
        example='--max-new-tokens 64 --stop "."',
        names=("max_new_tokens", "canvas_length", "stop", "retry_empty", "skip_special_tokens"),
    ),
    OptionGroup(
        title="Speed and stopping",
        question="How many steps may a canvas take, and when is it done?",
        example="--max-denoising-steps 16 --entropy-bound 0.3",
        names=(
            *("preset", "max_denoising_steps", "sampler", "entropy_bound", "threshold", "floor", "settled_nats"),
            *("settled_steps", "handover_steps", "confidence_threshold", "stability_threshold", "plateau_steps"),
            *("adaptive_canvas", "freeze_nats"),
        ),
    ),
    OptionGroup(
        title="Temperature",
        question="How much is left to chance?",
        example="--temperature 0.5",
        names=("temperature", "t_max", "t_min", "top_p"),
    ),
    OptionGroup(
        title="Mode",
        question="Which of the model's two modes writes?",
        example="--mode autoregressive --temperature 0",
        names=("mode", "enable_thinking"),
    ),
    OptionGroup(
        title="Steering",
        question="What form must the reply have, and what of it is known already?",
        example="""--response-format '{"type": "object", "properties": {"age": {"type": "integer"}}}'""",
        names=("response_format", "probabilities", "initial_canvas", "pinned"),
    ),
    OptionGroup(
        title="Tools",
        question="Which calls may the model make?",
        example="--tool-choice none",
        names=("tools", "tool_choice", "parallel_tool_calls"),
    ),
    OptionGroup(
        title="The judge",
        question="What would the causal mode have written?",
        example="--redraft 1",
        names=("logprobs", "redraft"),
    ),
    OptionGroup(
        title="Pictures",
        question="How closely does it look at a picture?",
        example="--image-tokens 1120",
        names=("image_tokens", "image_attention"),
    ),
    OptionGroup(
        title="Reproducibility",
        question="How do I get the same text again?",
        example="--seed 7",
        names=("seed",),
    ),
)
