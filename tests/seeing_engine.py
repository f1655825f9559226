"""A random checkpoint that sees, whole: with a tokenizer of letters and a chat template, as an engine loads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from checkpoints import BOS, EOS, PAD
from seeing import BOI, EOI, IMAGE, noise_pixels, write_seeing

TURN_OPEN, TURN_CLOSE, RESPONSE_OPEN, RESPONSE_CLOSE = 190, 191, 192, 193
SPECIAL = {
    "<pad>": PAD, "<eos>": EOS, "<bos>": BOS, "<|turn>": TURN_OPEN, "<turn|>": TURN_CLOSE,
    "<|tool_response>": RESPONSE_OPEN, "<tool_response|>": RESPONSE_CLOSE,
    "<image|>": EOI, "<|image>": BOI, "<|image|>": IMAGE,
}  # fmt: skip
TEMPLATE = """{{ '<bos>' }}
{%- for message in messages -%}
{{ '<|turn>' ~ ('model' if message.role == 'assistant' else message.role) ~ '\\n' }}
{%- if message.content is string -%}{{ message.content | trim }}
{%- elif message.content -%}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}{{ '<|image|>' }}{%- else -%}{{ part.text | trim }}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{ '<turn|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|turn>model\\n' }}{%- endif -%}
"""


def write_seeing_engine(directory: Path, **changes: Any) -> Path:
    """Writes the checkpoint; `changes` go to `write_seeing`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models

    write_seeing(directory, **{"max_position_embeddings": 4096, **changes})
    letters = [*map(chr, range(32, 127)), "\n"]
    vocabulary = {letter: place for place, letter in enumerate(letters, start=3)}
    backend = Tokenizer(models.BPE(vocab=vocabulary | SPECIAL, merges=[]))
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    backend.save(str(directory / "tokenizer.json"))
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    (directory / "processor_config.json").write_text(json.dumps({"image_processor": {"max_soft_tokens": 70}}))
    return directory


def picture(height: int = 37, width: int = 91, seed: int = 0) -> np.ndarray:
    """[height, width, 3] of uint8."""
    return noise_pixels(height, width, seed)


def png(pixels: np.ndarray) -> bytes:
    """Its file."""
    import io

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def shows(*parts: str | np.ndarray | bytes, role: str = "user") -> dict[str, Any]:
    """A message of texts and pictures."""
    found = [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image", "image": p} for p in parts]
    return {"role": role, "content": found}
