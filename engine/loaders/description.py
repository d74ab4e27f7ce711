"""What a model file says of itself: sizes, ids, tokenizer, template, revision. Reads no weights and needs no torch."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engine.errors import ModelFileError
from engine.loaders.gguf import GGUFFile
from engine.loaders.metadata import Metadata
from engine.loaders.tokenizer_json import tokenizer_json
from engine.models.shape import ModelShape, RotaryShape

ARCHITECTURES: Final = ("llama",)

# Limits that no real model comes near; they keep a damaged number from becoming an absurd allocation.
_MAX_WIDTH: Final = 1 << 20
_MAX_LAYERS: Final = 1 << 12
_MAX_CONTEXT: Final = 1 << 27

# A chat model may end its turn with any of these, whichever one the file declares as its end.
_END_OF_TURN: Final = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<|eom_id|>", "</s>", "<|end|>")


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """One model file. `revision` is the SHA-256 of the whole file: weights, tokenizer and template together."""

    architecture: str
    name: str
    revision: str
    shape: ModelShape
    eos_ids: tuple[int, ...]
    bos_id: int | None
    add_bos: bool
    tokenizer_json: str
    chat_template: str | None
    parameter_count: int
    quantization: str  # the format of most of its values
    licence: str
    file_bytes: int

    @property
    def context_length(self) -> int:
        return self.shape.context_length

    @property
    def vocab_size(self) -> int:
        return self.shape.vocab_size

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of KV cache for one token under the exact numerics."""
        return self.shape.kv_bytes_per_token("exact")


def describe(path: str | Path) -> ModelDescription:
    """Describes the model file at `path` (GGUF). About 0.4 s for 100 MB, most of it the hash.

    Raises ModelFileError (`model_file_missing`, `model_file_corrupt`, `model_unsupported`).
    """
    with GGUFFile(path) as file:
        return describe_open(file)


def describe_open(file: GGUFFile) -> ModelDescription:
    """As `describe`, for a file that is open already."""
    metadata = Metadata(file.metadata, file.path)
    architecture = metadata.text("general.architecture")
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise metadata.fail(
            f"its architecture {architecture!r} is not supported (supported: {known})", unsupported=True
        )
    shape = _shape(file, metadata, architecture)
    return ModelDescription(
        architecture=architecture,
        name=metadata.text_or_none("general.name") or file.path.stem,
        revision=_sha256(file.path),
        shape=shape,
        eos_ids=_eos_ids(metadata, shape.vocab_size),
        bos_id=metadata.token_id("tokenizer.ggml.bos_token_id", shape.vocab_size),
        add_bos=metadata.flag("tokenizer.ggml.add_bos_token", False),
        tokenizer_json=tokenizer_json(metadata, shape.vocab_size),
        chat_template=metadata.text_or_none("tokenizer.chat_template"),
        parameter_count=sum(_product(tensor.shape) for tensor in file.tensors.values()),
        quantization=_quantization(file),
        licence=metadata.text_or_none("general.license") or "",
        file_bytes=file.path.stat().st_size,
    )


def _shape(file: GGUFFile, metadata: Metadata, architecture: str) -> ModelShape:
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise metadata.fail("it has no two-dimensional tensor 'token_embd.weight'")
    hidden = metadata.size(f"{architecture}.embedding_length", _MAX_WIDTH)
    if embedding.shape[1] != hidden:
        raise metadata.fail(f"its embedding is {embedding.shape[1]} wide and its metadata says {hidden}")
    heads = metadata.size(f"{architecture}.attention.head_count", hidden)
    kv_heads = metadata.size(f"{architecture}.attention.head_count_kv", heads, default=heads)
    head_dim = metadata.size(f"{architecture}.attention.key_length", hidden, default=max(1, hidden // heads))
    if heads % kv_heads or head_dim % 2:
        raise metadata.fail(f"{heads} query heads of {head_dim} do not divide among {kv_heads} key/value heads")
    rotary = metadata.size(f"{architecture}.rope.dimension_count", head_dim, default=head_dim)
    if rotary != head_dim or metadata.has(f"{architecture}.rope.scaling.type"):
        raise metadata.fail("it rotates only a part of each head, or scales its positions", unsupported=True)
    layers = metadata.size(f"{architecture}.block_count", _MAX_LAYERS)
    theta = metadata.real(f"{architecture}.rope.freq_base", 1.0, 1e12, default=10_000.0)
    return ModelShape(
        vocab_size=embedding.shape[0],
        context_length=metadata.size(f"{architecture}.context_length", _MAX_CONTEXT),
        hidden_size=hidden,
        ffn_size=metadata.size(f"{architecture}.feed_forward_length", _MAX_WIDTH),
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        rms_eps=metadata.real(f"{architecture}.attention.layer_norm_rms_epsilon", 1e-12, 1.0),
        rotaries=(RotaryShape(theta),),
        layer_rotary=(0,) * layers,
        layer_windows=(None,) * layers,
    )


def _eos_ids(metadata: Metadata, vocab_size: int) -> tuple[int, ...]:
    """The declared ends first, then the control tokens that are known to end a turn."""
    declared = [metadata.token_id(f"tokenizer.ggml.{name}_token_id", vocab_size) for name in ("eos", "eot", "eom")]
    found = [token_id for token_id in declared if token_id is not None]
    if metadata.has("tokenizer.ggml.token_type"):
        tokens, kinds = metadata.texts("tokenizer.ggml.tokens"), metadata.whole_numbers("tokenizer.ggml.token_type")
        pairs = enumerate(zip(tokens, kinds, strict=False))
        found += [index for index, (token, kind) in pairs if kind == 3 and token in _END_OF_TURN]
    return tuple(dict.fromkeys(found))


def _quantization(file: GGUFFile) -> str:
    values: Counter[str] = Counter()
    for tensor in file.tensors.values():
        values[tensor.format.name] += _product(tensor.shape)
    return values.most_common(1)[0][0]


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelFileError(
            f"cannot read model file {path}", error.strerror or "unknown", "check the disk", code="model_file_missing"
        ) from error


def _product(shape: tuple[int, ...]) -> int:
    count = 1
    for extent in shape:
        count *= extent
    return count
