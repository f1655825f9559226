"""A GGUF file as a checkpoint: config, tokenizer and tensors under Hugging Face's names."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from redraft.checkpoint.formats.experts import stack_experts
from redraft.checkpoint.formats.gguf_file import Blocks, read_gguf
from redraft.checkpoint.formats.gguf_names import DERIVED, decoder_twin, encoder_scalar, hugging_face_name
from redraft.checkpoint.formats.gguf_tokenizer import write_tokenizer
from redraft.checkpoint.stored import StoredTensor
from redraft.core.errors import CheckpointError
from redraft.model.scratch import generation_config, scratch_config

ARCHITECTURE = "diffusion-gemma"
_SLIDING, _FULL = "sliding_attention", "full_attention"
# Converters write one id that ends a reply; the model also ends its turn and waits for a tool.
_ENDS = ("<turn|>", "<|tool_response>")
# What the model was released with, for files that do not say.
_CANVAS_LENGTH, _PARTIAL_ROTARY = 256, 0.25
_SAMPLER = {
    "max_denoising_steps": "diffusion.eb_max_steps",
    "t_min": "diffusion.eb_t_min",
    "t_max": "diffusion.eb_t_max",
    "stability_threshold": "diffusion.eb_stability_threshold",
    "confidence_threshold": "diffusion.eb_confidence_threshold",
}


@dataclass(frozen=True, kw_only=True)
class Gguf:
    """An open file.

    Attributes:
        path: the file.
        metadata: its keys and values.
        blocks: its tensors by their name in the file.
    """

    path: Path
    metadata: dict[str, Any]
    blocks: dict[str, Blocks]

    def config(self) -> dict[str, Any]:
        """What `config.json` would hold.

        Raises:
            CheckpointError: a key that is missing or cannot be used.
        """
        layers = self._count("block_count", most=1000)
        sliding = self._per_layer("attention.sliding_window_pattern", layers)
        heads = self._per_layer("attention.head_count_kv", layers)
        full = {
            str(i): {"head_dim": self._of("attention.key_length"), "num_key_value_heads": heads[i]}
            for i in range(layers)
            if not sliding[i]
        }
        text = {
            "vocab_size": self._vocab_size(),
            "hidden_size": self._of("embedding_length"),
            "intermediate_size": self._of("feed_forward_length"),
            "num_hidden_layers": layers,
            "layer_types": [_SLIDING if slides else _FULL for slides in sliding],
            "num_attention_heads": self._of("attention.head_count"),
            "num_key_value_heads": next((heads[i] for i in range(layers) if sliding[i]), heads[0]),
            "head_dim": self._of("attention.key_length_swa"),
            "per_layer_config": full,
            "num_experts": self._of("expert_count"),
            "top_k_experts": self._of("expert_used_count"),
            "moe_intermediate_size": self._of("expert_feed_forward_length"),
            "sliding_window": self._of("attention.sliding_window"),
            "max_position_embeddings": self._of("context_length"),
            "rms_norm_eps": _decimal(self._of("attention.layer_norm_rms_epsilon")),
            "final_logit_softcapping": self._of("final_logit_softcapping"),
            "rope_parameters": {
                _SLIDING: {"rope_type": "default", "rope_theta": self._of("rope.freq_base_swa")},
                _FULL: {
                    "rope_type": "proportional",
                    "partial_rotary_factor": self._partial_rotary(),
                    "rope_theta": self._of("rope.freq_base"),
                },
            },
            "bos_token_id": self._token("bos"),
            "pad_token_id": self._token("padding"),
            "eos_token_id": self._ends(_ENDS[:1]),
        }
        shape = next(iter(full.values()), None)
        if shape is not None and all(layer == shape for layer in full.values()):
            text |= {"global_head_dim": shape["head_dim"], "num_global_key_value_heads": shape["num_key_value_heads"]}
        try:
            return scratch_config(text, self.metadata.get("diffusion.canvas_length", _CANVAS_LENGTH)).raw
        except CheckpointError as error:
            raise CheckpointError(f"{self.path}: {error}") from None

    def generation_config(self) -> dict[str, Any]:
        """What `generation_config.json` would hold; the released values for what the file does not say."""
        config = generation_config(self._token("padding"), self._token("bos"), self._ends(_ENDS))
        config |= {name: _decimal(self.metadata[key]) for name, key in _SAMPLER.items() if key in self.metadata}
        if "diffusion.eb_entropy_bound" in self.metadata:
            config["sampler_config"]["entropy_bound"] = _decimal(self.metadata["diffusion.eb_entropy_bound"])
        return config

    def tensors(self) -> dict[str, StoredTensor]:
        """The tensors by the names that transformers gives them, all read as float32.

        Raises:
            CheckpointError: a tensor that the model has no place for, or two for one place.
        """
        found: dict[str, StoredTensor] = {}
        for blocks in self.blocks.values():
            if blocks.name in DERIVED:
                continue
            name = hugging_face_name(blocks.name)
            if name is None:
                raise CheckpointError(f"{self.path}: tensor {blocks.name!r} has no place in {ARCHITECTURE}")
            if name in found:
                raise CheckpointError(f"{self.path}: {blocks.name!r} and {found[name].files[0]!r} are both {name!r}")
            found[name] = _stored(name, blocks)
        tensors = {tensor.name: tensor for tensor in stack_experts(found.values())}
        return tensors | self._missing_encoder_scalars(tensors)

    def write_tokenizer(self, directory: Path) -> None:
        """Writes tokenizer.json and tokenizer_config.json, the latter with the chat template if there is one.

        Raises:
            CheckpointError: the file holds no tokenizer that can be rebuilt.
        """
        write_tokenizer(self.metadata, Path(directory), str(self.path))

    def _missing_encoder_scalars(self, tensors: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
        """The decoder's where the first converters left out the encoder's; they are equal as released."""
        added = {}
        for layer in range(self._count("block_count", most=1000)):
            name = encoder_scalar(layer)
            twin = tensors.get(decoder_twin(name))
            if name not in tensors and twin is not None:
                added[name] = replace(twin, name=name, nbytes=0)
        if added:
            warnings.warn(
                f"{self.path} holds no scalars of the encoder's layers: the decoder's are used in their place",
                stacklevel=3,
            )
        return added

    def _count(self, key: str, most: int) -> int:
        value = self._of(key)
        if type(value) is not int or not 0 < value <= most:
            raise CheckpointError(
                f"{self.path}: key '{ARCHITECTURE}.{key}' must be a number from 1 to {most}, got {value!r:.60}"
            )
        return value

    def _of(self, key: str) -> Any:
        full = f"{ARCHITECTURE}.{key}"
        if full not in self.metadata:
            raise CheckpointError(f"{self.path}: key {full!r} is missing")
        return self.metadata[full]

    def _per_layer(self, key: str, layers: int) -> Sequence[Any]:
        value = self._of(key)
        if not isinstance(value, list):
            return [value] * layers
        if len(value) != layers:
            raise CheckpointError(f"{self.path}: {ARCHITECTURE}.{key} has {len(value)} values for {layers} layers")
        return value

    def _vocab_size(self) -> int:
        embedding = self.blocks.get("token_embd.weight")
        if embedding is None:
            raise CheckpointError(f"{self.path}: tensor 'token_embd.weight' is missing")
        return embedding.shape[0]

    def _partial_rotary(self) -> float:
        """The turning share of a head: the frequencies that are divided by one and not by almost infinity."""
        frequencies = self.blocks.get("rope_freqs.weight")
        return _PARTIAL_ROTARY if frequencies is None else (frequencies.read() == 1).float().mean().item()

    def _token(self, kind: str) -> int | None:
        return self.metadata.get(f"tokenizer.ggml.{kind}_token_id")

    def _ends(self, texts: Sequence[str]) -> list[int]:
        tokens = self.metadata.get("tokenizer.ggml.tokens", [])
        if not isinstance(tokens, list):
            raise CheckpointError(f"{self.path}: key 'tokenizer.ggml.tokens' must be a list, got {tokens!r:.60}")
        eos = self._token("eos")
        ends = [] if eos is None else [eos]
        return ends + [tokens.index(text) for text in texts if text in tokens and tokens.index(text) not in ends]


def open_gguf(path: Path) -> Gguf:
    """Opens a file; tensors are read when they are asked for.

    Raises:
        CheckpointError: it does not exist, is no GGUF file, is cut short, is one part of several, or holds another
            model.
    """
    metadata, blocks = read_gguf(Path(path))
    parts, part = metadata.get("split.count", 1), metadata.get("split.no", 0)
    if parts != 1:
        raise CheckpointError(
            f"{path} is part {part + 1 if isinstance(part, int) else part!r:.20} of {parts!r:.20} of a split file: "
            "join them with `llama-gguf-split --merge FIRST_PART WHOLE.gguf`, and give the whole one"
        )
    architecture = metadata.get("general.architecture")
    if architecture != ARCHITECTURE:
        raise CheckpointError(f"{path}: general.architecture is {architecture!r}, redraft reads {ARCHITECTURE!r}")
    return Gguf(path=Path(path), metadata=metadata, blocks=blocks)


def _stored(name: str, blocks: Blocks) -> StoredTensor:
    return StoredTensor(
        name=name,
        shape=blocks.shape,
        form={"F32": "float32", "F16": "float16", "BF16": "bfloat16"}.get(blocks.type_name, blocks.type_name),
        nbytes=blocks.data.nbytes,
        files=(blocks.name,),
        load=blocks.read,
    )


def _decimal(value: float) -> float:
    """The number as it was before float32 took it: 0.1 rather than 0.10000000149."""
    return float(f"{value:.7g}") if isinstance(value, float) else value
