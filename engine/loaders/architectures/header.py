"""Reads what the GGUF headers of all decoders have in common; what an architecture adds stands in its own file."""

from dataclasses import dataclass

from engine.loaders.architectures.limits import (
    MAX_CONTEXT,
    MAX_FACTOR,
    MAX_HEAD_DIM,
    MAX_LAYERS,
    MAX_THETA,
    MAX_WIDTH,
)
from engine.loaders.architectures.rotary import DEFAULT_THETA, linear_factors
from engine.loaders.metadata import Metadata
from engine.models.shape import ModelShape, RotaryShape

TENSOR_NAMES = {
    "embedding": "token_embd.weight",
    "final_norm": "output_norm.weight",
    "output": "output.weight",
    "attention_norm": "blk.{layer}.attn_norm.weight",
    "q": "blk.{layer}.attn_q.weight",
    "k": "blk.{layer}.attn_k.weight",
    "v": "blk.{layer}.attn_v.weight",
    "q_bias": "blk.{layer}.attn_q.bias",
    "k_bias": "blk.{layer}.attn_k.bias",
    "v_bias": "blk.{layer}.attn_v.bias",
    "q_norm": "blk.{layer}.attn_q_norm.weight",
    "k_norm": "blk.{layer}.attn_k_norm.weight",
    "o": "blk.{layer}.attn_output.weight",
    "attention_post_norm": "blk.{layer}.post_attention_norm.weight",
    "mlp_norm": "blk.{layer}.ffn_norm.weight",
    "gate": "blk.{layer}.ffn_gate.weight",
    "up": "blk.{layer}.ffn_up.weight",
    "down": "blk.{layer}.ffn_down.weight",
    "mlp_post_norm": "blk.{layer}.post_ffw_norm.weight",
}


@dataclass(frozen=True, slots=True)
class Header:
    """A GGUF's metadata, and what its tensors say: rows and width of the embedding, divisors of the angles."""

    metadata: Metadata
    embedding: tuple[int, int]
    rope_factors: tuple[float, ...] | None


def decoder_in(header: Header, prefix: str) -> ModelShape:
    """The sizes of a decoder whose keys begin with `prefix`: one rotation, no options. Raises ModelFileError."""
    metadata = header.metadata
    vocab_size, width = header.embedding
    hidden = metadata.size(f"{prefix}.embedding_length", MAX_WIDTH)
    if width != hidden:
        raise metadata.fail(f"its embedding is {width} wide and its metadata says {hidden}")
    heads = metadata.size(f"{prefix}.attention.head_count", MAX_WIDTH)
    kv_heads = metadata.size(f"{prefix}.attention.head_count_kv", heads, default=heads)
    head_dim = metadata.size(f"{prefix}.attention.key_length", MAX_HEAD_DIM, default=max(1, hidden // heads))
    if heads % kv_heads or head_dim % 2 or heads * head_dim > MAX_WIDTH:
        raise metadata.fail(f"{heads} query heads of {head_dim} do not divide among {kv_heads} key/value heads")
    if metadata.size(f"{prefix}.attention.value_length", MAX_HEAD_DIM, default=head_dim) != head_dim:
        raise metadata.fail("its keys and values are not of one width", unsupported=True)
    _refuse_what_changes_the_result(metadata, prefix)
    layers = metadata.size(f"{prefix}.block_count", MAX_LAYERS)
    windowed = metadata.has(f"{prefix}.attention.sliding_window")
    window = metadata.size(f"{prefix}.attention.sliding_window", MAX_CONTEXT) if windowed else None
    return ModelShape(
        vocab_size=vocab_size,
        context_length=metadata.size(f"{prefix}.context_length", MAX_CONTEXT),
        hidden_size=hidden,
        ffn_size=metadata.size(f"{prefix}.feed_forward_length", MAX_WIDTH),
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        rms_eps=metadata.real(f"{prefix}.attention.layer_norm_rms_epsilon", 1e-12, 1.0),
        rotaries=(_rotary(header, prefix, head_dim),),
        layer_rotary=(0,) * layers,
        layer_windows=(window,) * layers,
    )


def _rotary(header: Header, prefix: str, head_dim: int) -> RotaryShape:
    metadata = header.metadata
    if metadata.size(f"{prefix}.rope.dimension_count", head_dim, default=head_dim) != head_dim:
        raise metadata.fail("it rotates only a part of each head", unsupported=True)
    theta = metadata.real(f"{prefix}.rope.freq_base", 1.0, MAX_THETA, default=DEFAULT_THETA)
    kind = metadata.text(f"{prefix}.rope.scaling.type", "none")
    if kind not in ("none", "linear"):
        raise metadata.fail(f"its positions are scaled in the way {kind[:40]!r}; known is linear", unsupported=True)
    if header.rope_factors is None:
        factor = metadata.real(f"{prefix}.rope.scale_linear", 1 / MAX_FACTOR, MAX_FACTOR, default=1.0)
        if kind == "linear":
            factor = metadata.real(f"{prefix}.rope.scaling.factor", 1 / MAX_FACTOR, MAX_FACTOR, default=factor)
        return RotaryShape(theta, linear_factors(factor, head_dim))
    if kind != "none" or len(header.rope_factors) != head_dim // 2:
        raise metadata.fail(f"it has {len(header.rope_factors)} divisors of angles for heads of {head_dim}")
    return RotaryShape(theta, header.rope_factors)


def _refuse_what_changes_the_result(metadata: Metadata, prefix: str) -> None:
    if metadata.size(f"{prefix}.expert_count", MAX_WIDTH, default=0, least=0):
        raise metadata.fail("it is a mixture of experts", unsupported=True)
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        if metadata.has(f"{prefix}.{key}"):
            raise metadata.fail(f"it caps its logits ({key!r})", unsupported=True)
