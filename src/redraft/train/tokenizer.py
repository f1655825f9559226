"""Trains a small tokenizer for a model made from scratch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SPECIAL_TOKENS = (
    "<pad>", "<eos>", "<bos>", "<unk>", "<|turn>", "<turn|>", "<|tool_call>", "<tool_call|>", "<|tool_response>",
    "<tool_response|>", "<|channel>", "<channel|>", '<|"|>', "<|think|>", "<|tool>", "<tool|>",
)  # fmt: skip
_BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))

# Pieces that may become one token: a turn's header, a call's opening, an argument's name before its value, a word
# with its space, a short number, one sign.
_PIECES = "|".join(
    (
        r"\A▁(?:user|model|system)\n",
        r"\A▁call:\w+\{(?:\w+:\z)?",
        r"▁?,?\w+:\z",
        r"▁?\p{L}+",
        r"▁?\p{N}{1,4}",
        r"▁?[^\s\p{L}\p{N}▁]",
        r"▁?\n",
        r"▁",
    )
)


def _untrained(model: models.BPE, special: tuple[str, ...] = SPECIAL_TOKENS) -> Tokenizer:
    tokenizer = Tokenizer(model)
    # A word gets the same tokens wherever it stands: every segment and every line starts with the sign for a space.
    # Copying a value from a request into a call is then copying of ids.
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex(r"\n(?=.)"), "\n "), normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_PIECES), behavior="isolated")
    after_specials = [decoders.Replace(f"{token} ", token) for token in special]
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Replace("\n ", "\n"),
            *after_specials,
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


def train_tokenizer(texts: Iterable[str], vocab_size: int, more: tuple[str, ...] = ()) -> Tokenizer:
    """A byte-fallback BPE tokenizer with DiffusionGemma's markers as special tokens.

    Args:
        texts: rendered conversations; they are cut at special tokens, as at encoding time.
        vocab_size: number of ids in all, special tokens and the 256 bytes included.
        more: special tokens beside DiffusionGemma's own of text: a picture's.
    """
    special = SPECIAL_TOKENS + more
    between = re.compile("|".join(re.escape(token) for token in special))
    segments = (part for text in texts for part in between.split(text) if part)
    learner = _untrained(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(special) - len(_BYTES), limit_alphabet=160, show_progress=False
    )
    learner.train_from_iterator(segments, trainer)
    learned = json.loads(learner.to_str())["model"]
    tokens = (*special, *_BYTES, *sorted(learned["vocab"], key=learned["vocab"].__getitem__))
    model = models.BPE(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=[tuple(pair) for pair in learned["merges"]],
        byte_fallback=True,
        unk_token="<unk>",
        fuse_unk=True,
    )
    tokenizer = _untrained(model, special)
    tokenizer.add_special_tokens(list(special))
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, directory: Path, chat_template: str) -> None:
    """Writes `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja`."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (directory / "chat_template.jinja").write_text(chat_template, encoding="utf-8")
