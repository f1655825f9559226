"""What is told of a model that is loaded."""

from __future__ import annotations

import dataclasses
from typing import Any

from redraft.core.results import ModelInfo
from redraft.engine.admission import Admission
from redraft.model.model import DiffusionGemma


def described(model: DiffusionGemma, admission: Admission, **more: Any) -> ModelInfo:
    """A `ModelInfo`; `more` are the fields that neither knows."""
    pad, defaults = model.config.pad_token_id, admission.defaults
    return ModelInfo(
        parameters=model.num_parameters,
        vocab_size=model.config.vocab_size,
        canvas_length=model.config.canvas_length,
        max_context=admission.max_context,
        device=str(model.device),
        dtype=str(model.dtype).removeprefix("torch."),
        quantization=model.quantization,
        has_tokenizer=admission.tokenizer is not None,
        has_chat_template=admission.template is not None,
        defaults=dataclasses.asdict(defaults.options),
        end_ids=tuple(sorted(defaults.end_ids | (set() if pad is None else {pad}))),
        **more,
    )
