"""Writes a tiny random Llama as GGUF, with a byte tokenizer and a chat template; knows the format, not the engine.

    from tests.tiny_model import write_tiny_model
    path = write_tiny_model(tmp_path / "tiny.gguf", seed=0, context_length=512)

Token ids 0-255 are the bytes of the same number; then <|endoftext|> 256, <|im_start|> 257, <|im_end|> 258 (the end of
a turn). The file is about 0.4 MB and is a function of the arguments alone: same seed, same bytes, same revision.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

ENDOFTEXT, IM_START, IM_END = 256, 257, 258
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VOCAB_SIZE = 256 + len(SPECIAL_TOKENS)

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

_ALIGNMENT = 32
_UINT32, _FLOAT32, _BOOL, _STRING, _ARRAY, _INT32 = 4, 6, 7, 8, 9, 5


def write_tiny_model(
    path: str | Path,
    *,
    seed: int = 0,
    context_length: int = 512,
    hidden_size: int = 64,
    ffn_size: int = 128,
    num_layers: int = 2,
    num_heads: int = 4,
    num_kv_heads: int = 2,
    name: str = "tiny",
) -> Path:
    """Writes the model and returns its path."""
    tensors = random_llama_tensors(seed, hidden_size, ffn_size, num_layers, num_heads, num_kv_heads)
    metadata = llama_metadata(
        name=name,
        context_length=context_length,
        hidden_size=hidden_size,
        ffn_size=ffn_size,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
    )
    return write_gguf(path, metadata, tensors)


def random_llama_tensors(
    seed: int, hidden_size: int, ffn_size: int, num_layers: int, num_heads: int, num_kv_heads: int
) -> dict[str, Floats]:
    """Random weights under GGUF's names, scaled so that logits spread over several units and texts vary."""
    random = np.random.default_rng(seed)
    kv_size = hidden_size // num_heads * num_kv_heads

    def matrix(rows: int, columns: int, gain: float = 1.0) -> Floats:
        values: Floats = (random.standard_normal((rows, columns)) * gain / np.sqrt(columns)).astype(np.float32)
        return values

    def norm() -> Floats:
        return (1.0 + 0.1 * random.standard_normal(hidden_size)).astype(np.float32)

    tensors = {"token_embd.weight": random.standard_normal((VOCAB_SIZE, hidden_size)).astype(np.float32)}
    for layer in range(num_layers):
        prefix = f"blk.{layer}"
        tensors |= {
            f"{prefix}.attn_norm.weight": norm(),
            f"{prefix}.attn_q.weight": matrix(hidden_size, hidden_size),
            f"{prefix}.attn_k.weight": matrix(kv_size, hidden_size),
            f"{prefix}.attn_v.weight": matrix(kv_size, hidden_size),
            f"{prefix}.attn_output.weight": matrix(hidden_size, hidden_size),
            f"{prefix}.ffn_norm.weight": norm(),
            f"{prefix}.ffn_gate.weight": matrix(ffn_size, hidden_size),
            f"{prefix}.ffn_up.weight": matrix(ffn_size, hidden_size),
            f"{prefix}.ffn_down.weight": matrix(hidden_size, ffn_size),
        }
    # Its own output matrix: tied to the random embedding, the model would mostly repeat its last token.
    return tensors | {"output_norm.weight": norm(), "output.weight": matrix(VOCAB_SIZE, hidden_size, gain=2.5)}


def llama_metadata(
    *,
    name: str,
    context_length: int,
    hidden_size: int,
    ffn_size: int,
    num_layers: int,
    num_heads: int,
    num_kv_heads: int,
    rope_theta: float = 10_000.0,
    rms_eps: float = 1e-5,
) -> dict[str, object]:
    """Metadata of a Llama with the byte tokenizer. Strings, ints, floats, bools, lists of strings or of ints."""
    return {
        "general.architecture": "llama",
        "general.name": name,
        "llama.context_length": context_length,
        "llama.embedding_length": hidden_size,
        "llama.feed_forward_length": ffn_size,
        "llama.block_count": num_layers,
        "llama.attention.head_count": num_heads,
        "llama.attention.head_count_kv": num_kv_heads,
        "llama.attention.layer_norm_rms_epsilon": rms_eps,
        "llama.rope.freq_base": rope_theta,
        "llama.rope.dimension_count": hidden_size // num_heads,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [*byte_tokens(), *SPECIAL_TOKENS],
        "tokenizer.ggml.token_type": [1] * 256 + [3] * len(SPECIAL_TOKENS),
        "tokenizer.ggml.merges": [],
        "tokenizer.ggml.bos_token_id": IM_START,
        "tokenizer.ggml.eos_token_id": IM_END,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }


def byte_tokens() -> list[str]:
    """GPT-2's visible character for each byte: printable ones stand for themselves, the rest start at U+0100."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    tokens, shifted = [], 256
    for byte in range(256):
        if byte in printable:
            tokens.append(chr(byte))
        else:
            tokens.append(chr(shifted))
            shifted += 1
    return tokens


def write_byte_tokenizer(folder: Path) -> None:
    """The same tokenizer and template as a Hugging Face folder keeps them, beside its config and weights."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": 256 + place, "content": token, **flags} for place, token in enumerate(SPECIAL_TOKENS)]
    bytewise = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    vocabulary = {token: index for index, token in enumerate(byte_tokens())}
    document = {
        "version": "1.0",
        "added_tokens": added,
        "pre_tokenizer": bytewise,
        "decoder": bytewise,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    }
    (folder / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False), "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, "utf-8")


def write_gguf(path: str | Path, metadata: Mapping[str, object], tensors: Mapping[str, Floats]) -> Path:
    """Writes float32 tensors and metadata as GGUF version 3."""
    blobs = {name: np.ascontiguousarray(tensor, dtype="<f4").tobytes() for name, tensor in tensors.items()}
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    parts += [_string(key) + _value(value) for key, value in metadata.items()]
    offset = 0
    for name, tensor in tensors.items():
        extents = struct.pack(f"<{tensor.ndim}Q", *reversed(tensor.shape))
        parts.append(_string(name) + struct.pack("<I", tensor.ndim) + extents + struct.pack("<IQ", 0, offset))
        offset += _padded(len(blobs[name]))
    header = b"".join(parts)
    body = b"".join(blob.ljust(_padded(len(blob)), b"\0") for blob in blobs.values())
    target = Path(path)
    target.write_bytes(header.ljust(_padded(len(header)), b"\0") + body)
    return target


def _padded(nbytes: int) -> int:
    return -(-nbytes // _ALIGNMENT) * _ALIGNMENT


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: object) -> bytes:
    match value:
        case bool():
            return struct.pack("<I?", _BOOL, value)
        case int():
            return struct.pack("<II", _UINT32, value)
        case float():
            return struct.pack("<If", _FLOAT32, value)
        case str():
            return struct.pack("<I", _STRING) + _string(value)
        case list():
            return struct.pack("<I", _ARRAY) + _array(value)
    raise TypeError(f"no GGUF type for {type(value).__name__}")


def _array(values: Sequence[object]) -> bytes:
    if all(isinstance(value, int) for value in values) and values:
        return struct.pack(f"<IQ{len(values)}i", _INT32, len(values), *values)
    return struct.pack("<IQ", _STRING, len(values)) + b"".join(_string(str(value)) for value in values)
