"""GGUF files: tensors, config and tokenizer, compared with the gguf package and the checkpoint they were made from."""

from __future__ import annotations

import json
import re
import sys

import pytest
import torch
from gguf import GGUFReader, GGUFWriter
from safetensors.torch import load_file
from tokenizers import Tokenizer

from quantised import write_in_format, write_source
from quantised_gguf import CHAT_TEMPLATE, GGUF_FORMATS, add_tokenizer, gguf_name, vocabulary, write_gguf
from redraft.checkpoint.formats.gguf import Gguf, open_gguf
from redraft.checkpoint.formats.gguf_tokenizer import write_tokenizer
from redraft.core.errors import CheckpointError
from redraft.model.config import ModelConfig

# Relative root mean square of what is lost, largest over the matrices; the naive quantisers are worse than llama.cpp's.
LOSS = {"gguf-bf16": 0.003, "gguf-q8_0": 0.008, "gguf-q6_k": 0.03, "gguf-q5_k_m": 0.06, "gguf-q4_k_m": 0.11}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_source(tmp_path_factory.mktemp("source"))


@pytest.fixture
def write(source, tmp_path):
    """Writes the source's tensors with changes, and opens the file."""

    def written(**changes) -> Gguf:
        config = json.loads((source / "config.json").read_text())
        # A file of its own each: those before are still mapped.
        path = tmp_path / f"model-{len(list(tmp_path.iterdir()))}.gguf"
        write_gguf(path, load_file(source / "model.safetensors"), config, "gguf-q8_0", **changes)
        return open_gguf(path)

    return written


@pytest.mark.parametrize("fmt", GGUF_FORMATS)
def test_every_tensor_is_what_the_package_reads(source, tmp_path, fmt):
    expected = write_in_format(source, tmp_path, fmt)
    original = load_file(source / "model.safetensors")
    stored = open_gguf(tmp_path / f"model-{fmt}.gguf").tensors()
    assert set(stored) == set(expected)
    losses = []
    for name, values in expected.items():
        decoded = stored[name].read()
        assert torch.equal(decoded, values), name
        assert decoded.dtype == torch.float32
        assert stored[name].shape == values.shape
        if values.ndim > 1:
            losses.append(((decoded - original[name]).norm() / original[name].norm()).item())
    assert 0.3 * LOSS[fmt] < max(losses) < LOSS[fmt]


def test_types_fall_back_where_rows_are_short(source, tmp_path):
    write_in_format(source, tmp_path, "gguf-q4_k_m")
    stored = open_gguf(tmp_path / "model-gguf-q4_k_m.gguf").tensors()
    forms = {name.removeprefix("model.decoder.layers.0."): tensor.form for name, tensor in stored.items()}
    assert forms["experts.gate_up_proj"] == "Q4_K"
    assert forms["experts.down_proj"] == "Q5_0"
    assert forms["self_attn.v_proj.weight"] == "Q6_K"
    assert forms["router.scale"] == "float32"


def test_the_container_is_read_as_the_package_reads_it(write):
    file = write()
    reader = GGUFReader(file.path)
    fields = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert file.metadata == fields
    for tensor in reader.tensors:
        blocks = file.blocks[tensor.name]
        assert blocks.shape == tuple(int(size) for size in tensor.shape)[::-1]
        assert blocks.data.tobytes() == tensor.data.tobytes()


@pytest.mark.parametrize("fmt", ["gguf-q8_0", "gguf-q5_k_m"])
def test_one_expert_is_read_alone(source, tmp_path, fmt):
    write_in_format(source, tmp_path, fmt)
    stored = open_gguf(tmp_path / f"model-{fmt}.gguf").tensors()
    for name in ("experts.gate_up_proj", "experts.down_proj"):
        tensor = stored[f"model.decoder.layers.1.{name}"]
        assert torch.equal(tensor.read(2), tensor.read()[2])


def test_the_config_is_the_one_it_was_made_from(source, write):
    ours = ModelConfig.from_dict(write().config())
    assert ours.eos_token_ids == (1, 5)
    theirs = ModelConfig.from_directory(source)
    for name in ModelConfig.__dataclass_fields__:
        if name not in ("raw", "eos_token_ids"):
            assert getattr(ours, name) == getattr(theirs, name), name


def test_generation_ends_at_every_token_that_ends_a_reply(write):
    config = write().generation_config()
    assert config["eos_token_id"] == [1, 5, 6]
    assert (config["bos_token_id"], config["pad_token_id"]) == (2, 0)
    assert config["sampler_config"]["entropy_bound"] == 0.1


def test_the_sampler_of_the_file_is_kept(write):
    file = write()
    file.metadata.update({"diffusion.eb_max_steps": 24, "diffusion.eb_entropy_bound": 0.20000000298})
    config = file.generation_config()
    assert config["max_denoising_steps"] == 24
    assert config["sampler_config"]["entropy_bound"] == 0.2


def test_gate_and_up_may_be_apart(write):
    together = write().tensors()
    apart = write(split_experts=True).tensors()
    assert set(together) == set(apart)
    name = "model.decoder.layers.1.experts.gate_up_proj"
    assert torch.equal(together[name].read(), apart[name].read())
    assert torch.equal(together[name].read(2), apart[name].read(2))


def test_other_spellings_are_known(write):
    aliases = {
        "self_cond_pre_norm.weight": "self_cond_norm.weight",
        "blk.0.enc_layer_output_scale.weight": "blk.0.enc_layer_out_scale.weight",
    }
    assert set(write(rename=lambda name: aliases.get(name, name)).tensors()) == set(write().tensors())


def test_missing_scalars_of_the_encoder_are_the_decoders(write):
    file = write(rename=lambda name: None if "enc_layer" in name else name)
    with pytest.warns(UserWarning, match="no scalars of the encoder"):
        stored = file.tensors()
    twin = stored["model.decoder.layers.1.layer_scalar"].read()
    assert torch.equal(stored["model.encoder.language_model.layers.1.layer_scalar"].read(), twin)


def test_unknown_tensors_are_refused(write):
    file = write(rename=lambda name: name.replace("blk.1.ffn_up.", "blk.1.ffn_sideways."))
    with pytest.raises(CheckpointError, match=r"'blk\.1\.ffn_sideways\.weight' has no place"):
        file.tensors()


def test_two_spellings_of_one_tensor_are_refused(write):
    file = write(rename=lambda name: name.replace("blk.1.enc_layer_output_scale", "blk.0.enc_layer_out_scale"))
    with pytest.raises(CheckpointError, match="are both 'model.encoder"):
        file.tensors()


def test_a_missing_half_of_the_experts_is_named(write):
    file = write(split_experts=True, rename=lambda name: None if name == "blk.1.ffn_up_exps.weight" else name)
    with pytest.raises(CheckpointError, match=r"layers\.1\.experts\.up_proj' is missing"):
        file.tensors()


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.01, 0.5, 0.999])
def test_a_file_that_is_cut_short_is_refused(write, share):
    path = write().path
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        open_gguf(path)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        open_gguf(tmp_path / "none.gguf")
    (tmp_path / "text.gguf").write_text("a text, and no model")
    with pytest.raises(CheckpointError, match="is no GGUF file"):
        open_gguf(tmp_path / "text.gguf")
    writer = GGUFWriter(tmp_path / "other.gguf", "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match="general.architecture is 'llama'"):
        open_gguf(tmp_path / "other.gguf")


def test_without_the_package_the_way_out_is_named(write, monkeypatch):
    path = write().path
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(CheckpointError, match=re.escape("pip install 'redraft[formats]'")):
        open_gguf(path)


def test_a_missing_key_is_named(write):
    file = write()
    del file.metadata["diffusion-gemma.rope.freq_base"]
    with pytest.raises(CheckpointError, match=r"diffusion-gemma\.rope\.freq_base' is missing"):
        file.config()


def test_the_tokenizer(write, tmp_path):
    write().write_tokenizer(tmp_path / "tokenizer")
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer" / "tokenizer.json"))
    text = "<bos>hello world\n\nhello<turn|>é"
    encoded = tokenizer.encode(text)
    assert encoded.tokens == ["<bos>", "hello", "▁world", "\n\n", "hello", "<turn|>", "<0xC3>", "<0xA9>"]
    assert tokenizer.decode(encoded.ids, skip_special_tokens=False) == text
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    assert {"<bos>", "<turn|>", "<|tool_response>", '<|"|>'} <= special
    assert "\n\n" not in special
    config = json.loads((tmp_path / "tokenizer" / "tokenizer_config.json").read_text())
    assert config["chat_template"] == CHAT_TEMPLATE
    assert (config["bos_token"], config["pad_token"]) == ("<bos>", "<pad>")


def test_the_tokenizer_agrees_with_transformers(tmp_path):
    from transformers import GemmaTokenizer

    tokens, types, merges = vocabulary(60)
    path = tmp_path / "vocabulary.gguf"
    writer = GGUFWriter(path, "diffusion-gemma")
    add_tokenizer(writer, tokens, types, merges)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    open_gguf(path).write_tokenizer(tmp_path)
    ours = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    pairs = [tuple(merge.split(" ")) for merge in merges]
    theirs = GemmaTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=pairs)
    for text in ("hello world", "  hell\nold  world\n", "heée low", "<bos>hello<eos>\nworld"):
        assert ours.encode(text).ids == theirs.encode(text, add_special_tokens=False)


@pytest.mark.parametrize("change", [{"tokenizer.ggml.model": "llama"}, {"tokenizer.ggml.merges": ["h zz"]}])
def test_tokenizers_that_cannot_be_rebuilt_are_refused(write, tmp_path, change):
    with pytest.raises(CheckpointError, match=r"model\.gguf"):
        write_tokenizer(write().metadata | change, tmp_path, "model.gguf")


def test_every_name_leads_back(source, write):
    stored = write().tensors()
    for name in load_file(source / "model.safetensors"):
        if (file_name := gguf_name(name)) is not None:
            assert stored[name].files == (file_name,)
