"""Generation defaults and special ids of a checkpoint directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redraft.core.errors import CheckpointError, OptionError
from redraft.core.fields import Reader
from redraft.core.files import read_json
from redraft.core.options import GenerationOptions
from redraft.model.config import ModelConfig
from redraft.text.tokenizer import Tokenizer

_NAMES = (
    "max_new_tokens",
    "max_denoising_steps",
    "t_max",
    "t_min",
    "stability_threshold",
    "confidence_threshold",
)
# What the reference does not know, and refuses to find in its own file.
OWN_FILE = "redraft.json"
_OWN = ("settled_nats", "settled_steps", "handover_steps", "freeze_nats")


OTHERWISE = "I can only answer this with a call, and none of mine may be made here."


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What applies when the caller sets nothing.

    Attributes:
        options: from `generation_config.json` and, what is redraft's alone, `redraft.json`; what they leave unset or
            null has redraft's own default. `tools` are those of a `tools.json`: calls that the model knows by heart, to
            which its replies are held.
        otherwise: what a model that knows calls by heart says where it may make none: from that file, or `OTHERWISE`.
        end_ids: ids that end a reply; what follows them in a canvas is padding.
    """

    options: GenerationOptions
    end_ids: frozenset[int]
    otherwise: str | None = None

    @classmethod
    def of(
        cls, directory: Path, config: ModelConfig, tokenizer: Tokenizer | None, adapter: Path | None = None
    ) -> Defaults:
        """Reads a directory. Beside an adapter, what is known by heart is what the adapter's own says.

        Raises:
            CheckpointError: a default that cannot work.
        """
        path = Path(directory) / "generation_config.json"
        raw = read_json(path) if path.exists() else {}
        said = Reader(raw, str(path), prefix="")
        known: dict[str, Any] = {name: raw[name] for name in _NAMES if raw.get(name) is not None}
        sampler = said.mapping("sampler_config", {})
        if sampler.get("entropy_bound") is not None:
            known["entropy_bound"] = sampler["entropy_bound"]
        for name, value in known.items():
            if isinstance(value, int) and value >= 2**31:
                raise said.wrong(name, f"below {2**31}", value)
        known |= _own(Path(directory) / OWN_FILE)
        if not config.has_canvas:
            known |= _causal(said if path.exists() else Reader({"do_sample": True}, str(path), prefix=""))
        otherwise = None
        if (own := Path(adapter or directory) / "tools.json").exists():
            by_heart = read_json(own)
            known["tools"], otherwise = by_heart.get("tools"), by_heart.get("otherwise")
            if not isinstance(known["tools"], list):
                raise CheckpointError(f"{own}: 'tools' must be a list of declarations")
            otherwise = OTHERWISE if otherwise is None else otherwise
            if not (isinstance(otherwise, str) and otherwise.strip()):
                raise CheckpointError(f"{own}: 'otherwise' must be a sentence")
        try:
            options = GenerationOptions(**known)
        except (OptionError, TypeError) as error:
            raise CheckpointError(f"{path}: {error}") from None
        for name in ("bos_token_id", "pad_token_id"):
            said.token_ids(name, config.vocab_size)
        ends = said.token_ids("eos_token_id", config.vocab_size)
        end_ids = set(config.eos_token_ids if raw.get("eos_token_id") is None else ends)
        if tokenizer is not None:
            _check_tokenizer(directory, config, tokenizer)
            # Some re-saved configs keep one of the three.
            end_ids |= set(tokenizer.end_of_turn_ids())
        return cls(options=options, end_ids=frozenset(end_ids), otherwise=otherwise)


def _own(path: Path) -> dict[str, Any]:
    """What a model's directory says of the options that only redraft has."""
    said = read_json(path) if path.exists() else {}
    for name in said:
        if name not in _OWN:
            raise CheckpointError(f"{path}: {name!r} is no default that it may set; there is {', '.join(_OWN)}")
    found = {name: value for name, value in said.items() if value is not None}
    for name, value in found.items():
        try:
            GenerationOptions(**{name: value})
        except (OptionError, TypeError) as error:
            raise CheckpointError(f"{path}: {error}") from None
    return found


def _check_tokenizer(directory: Path, config: ModelConfig, tokenizer: Tokenizer) -> None:
    """Refuses tokens that the embedding has no row for: their ids would be read from beyond it."""
    if tokenizer.num_ids > config.vocab_size:
        raise CheckpointError(
            f"{Path(directory) / 'tokenizer.json'} has {tokenizer.num_ids} tokens, the model's embedding has "
            f"{config.vocab_size} rows: remove the tokens that were added, or resize the embedding"
        )


def _causal(said: Reader) -> dict[str, Any]:
    """Those of a checkpoint without the canvas mode. A `top_k` in its file is ignored: there is no such option.

    Source: transformers' `generate`, which is greedy unless `do_sample` is true.
    """
    sampling = {name: said.fields[name] for name in ("temperature", "top_p") if said.fields.get(name) is not None}
    sampled = said.boolean("do_sample", False)
    return {"mode": "autoregressive", **(sampling if sampled else {"temperature": 0.0})}
