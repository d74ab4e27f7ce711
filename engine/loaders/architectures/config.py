"""Reads what the configs of all Hugging Face decoders have in common; what one of them adds stands in its own file."""

from engine.loaders.architectures.limits import MAX_CONTEXT, MAX_HEAD_DIM, MAX_LAYERS, MAX_VOCABULARY, MAX_WIDTH
from engine.loaders.architectures.rotary import rotary_of
from engine.loaders.metadata import Metadata
from engine.models.shape import ModelShape

FULL, SLIDING = "full_attention", "sliding_attention"
TENSOR_NAMES = {
    "embedding": "model.embed_tokens.weight",
    "final_norm": "model.norm.weight",
    "output": "lm_head.weight",
    "attention_norm": "model.layers.{layer}.input_layernorm.weight",
    "q": "model.layers.{layer}.self_attn.q_proj.weight",
    "k": "model.layers.{layer}.self_attn.k_proj.weight",
    "v": "model.layers.{layer}.self_attn.v_proj.weight",
    "o": "model.layers.{layer}.self_attn.o_proj.weight",
    "mlp_norm": "model.layers.{layer}.post_attention_layernorm.weight",
    "gate": "model.layers.{layer}.mlp.gate_proj.weight",
    "up": "model.layers.{layer}.mlp.up_proj.weight",
    "down": "model.layers.{layer}.mlp.down_proj.weight",
}


def decoder_of(config: Metadata, *, head_dim: int | None = None, kv_heads: int | None = None) -> ModelShape:
    """The sizes of a decoder with one rotation, windows on no layer, and no options. Raises ModelFileError.

    `head_dim` and `kv_heads` are what the architecture has where its config leaves them out.
    """
    hidden = config.size("hidden_size", MAX_WIDTH)
    heads = config.size("num_attention_heads", MAX_WIDTH)
    kv_heads = config.size("num_key_value_heads", heads, default=min(heads, kv_heads or heads))
    head_dim = config.size("head_dim", MAX_HEAD_DIM, default=head_dim or max(1, hidden // heads))
    if heads % kv_heads or head_dim % 2 or heads * head_dim > MAX_WIDTH:
        raise config.fail(f"{heads} query heads of {head_dim} do not divide among {kv_heads} key/value heads")
    layers = config.size("num_hidden_layers", MAX_LAYERS)
    context = config.size("max_position_embeddings", MAX_CONTEXT)
    _refuse_what_changes_the_result(config)
    return ModelShape(
        vocab_size=config.size("vocab_size", MAX_VOCABULARY),
        context_length=context,
        hidden_size=hidden,
        ffn_size=config.size("intermediate_size", MAX_WIDTH),
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        rms_eps=config.real("rms_norm_eps", 1e-12, 1.0, default=1e-6),
        rotaries=(rotary_of(config, head_dim, context, layer_type=FULL),),
        layer_rotary=(0,) * layers,
        layer_windows=(None,) * layers,
    )


def need_activation(config: Metadata, key: str, name: str) -> None:
    """Raises ModelFileError unless the MLP's gate goes through the function that the architecture is known for."""
    found = config.text(key, name)
    if found != name:
        raise config.fail(
            f"its activation is {found[:40]!r}; this architecture is computed with {name!r}", unsupported=True
        )


def layer_types_of(config: Metadata, layers: int) -> list[str] | None:
    """Which layers see everything before them and which a window of it; None where the config does not say."""
    if not config.has("layer_types"):
        return None
    types = config.texts("layer_types")
    if len(types) != layers:
        raise config.fail(f"it gives types for {len(types)} of {layers} layers")
    unknown = set(types) - {FULL, SLIDING}
    if unknown:
        raise config.fail(f"it has layers of the type {min(unknown)[:40]!r}", unsupported=True)
    return types


def windows_of(config: Metadata, types: list[str]) -> tuple[int | None, ...]:
    """How many positions each layer sees, for layers of these types."""
    if SLIDING not in types:
        return (None,) * len(types)
    window = config.size("sliding_window", MAX_CONTEXT)
    return tuple(window if kind == SLIDING else None for kind in types)


def _refuse_what_changes_the_result(config: Metadata) -> None:
    if config.has("quantization_config"):
        raise config.fail("its weights are quantised in a way of their own ('quantization_config')", unsupported=True)
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        if config.has(key):
            raise config.fail(f"it caps its logits ({key!r})", unsupported=True)
    for key in ("attention_bias", "mlp_bias", "use_bidirectional_attention"):
        if config.flag(key, False):
            raise config.fail(f"{key!r} is on", unsupported=True)
