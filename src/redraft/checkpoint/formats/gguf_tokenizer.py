"""The tokenizer that a GGUF file describes, written as Hugging Face files.

`gemma4` is byte-pair encoding by merge rank, on text whose spaces are U+2581, with bytes for what the vocabulary lacks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from redraft.core.errors import CheckpointError

_MODEL = "gemma4"
_CONTROL, _USER_DEFINED = 3, 4
# Channels and tools are typed as the user's own, like runs of blanks, but they are marks and no text.
_MARK = re.compile(r"<\|.+>|<.+\|>")
_SPACE = "\u2581"
_ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding", "mask": "mask"}


def write_tokenizer(metadata: Mapping[str, Any], directory: Path, source: str) -> None:
    """Writes tokenizer.json and tokenizer_config.json.

    No token is put in front of a text: the chat template spells the first one, whatever `add_bos_token` says.

    Args:
        metadata: of the file.
        directory: made if missing.
        source: the file's name, for errors.

    Raises:
        CheckpointError: no tokens or merges, another kind of tokenizer, or merges of tokens that do not exist.
    """
    kind = metadata.get("tokenizer.ggml.model")
    tokens, merges = metadata.get("tokenizer.ggml.tokens"), metadata.get("tokenizer.ggml.merges")
    if kind != _MODEL or not tokens or merges is None:
        listed = (("tokens", tokens), ("merges", merges))
        held = " and ".join(f"{len(part) if isinstance(part, list) else 0} {name}" for name, part in listed)
        raise CheckpointError(
            f"{source}: tokenizer.ggml.model is {kind!r:.60}, with {held}; redraft rebuilds {_MODEL!r} with both"
        )
    types = metadata.get("tokenizer.ggml.token_type") or [0] * len(tokens)
    for key, listed, kind in (("tokens", tokens, str), ("merges", merges, str), ("token_type", types, int)):
        if not isinstance(listed, list) or not all(isinstance(entry, kind) for entry in listed):
            raise CheckpointError(f"{source}: key 'tokenizer.ggml.{key}' is no list of what belongs there")
    if len(types) != len(tokens):
        raise CheckpointError(f"{source}: tokenizer.ggml.token_type has {len(types)} entries for {len(tokens)} tokens")
    special = _special(metadata, tokens)
    directory.mkdir(parents=True, exist_ok=True)
    try:
        model = BPE(
            vocab={token: index for index, token in enumerate(tokens)},
            merges=[_pair(merge) for merge in merges],
            fuse_unk=True,
            unk_token=special.get("unk_token"),
            byte_fallback=True,
        )
    except Exception as error:  # The library has no class of its own for what it refuses.
        raise CheckpointError(f"{source}: its merges and tokens do not go together ({error})") from None
    tokenizer = Tokenizer(model)
    # A pair never joins a line's end with something else, and short pieces keep long texts fast.
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("\n+"), "isolated")  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.normalizer = normalizers.Replace(" ", _SPACE)  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = decoders.Sequence(  # pyright: ignore[reportAttributeAccessIssue]
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_tokens(
        [
            AddedToken(token, special=kind == _CONTROL or _MARK.fullmatch(token) is not None, normalized=False)
            for token, kind in zip(tokens, types, strict=True)
            if kind in (_CONTROL, _USER_DEFINED)
        ]
    )
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **special}
    if isinstance(template := metadata.get("tokenizer.chat_template"), str):
        config["chat_template"] = template
    (directory / "tokenizer_config.json").write_text(
        json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def _special(metadata: Mapping[str, Any], tokens: list[str]) -> dict[str, str]:
    """The texts of the tokens that have a role."""
    found = {}
    for role, key in _ROLES.items():
        index = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if isinstance(index, int) and 0 <= index < len(tokens):
            found[f"{role}_token"] = tokens[index]
    return found


def _pair(merge: str) -> tuple[str, str]:
    """Both sides of a merge; the first is never empty, so a blank in front belongs to it."""
    middle = merge.find(" ", 1)
    return merge[:middle], merge[middle + 1 :]
