"""The same weights as a transformers folder (config, tokenizer, safetensors), for engines that do not read the GGUF.

Written once, as float32, by our own loader: what it dequantises is what our engine computes with.
"""

import json
from pathlib import Path
from typing import Any, Final

from benchmarks.peers.environments import FOLDER
from benchmarks.peers.peer import Say
from benchmarks.peers.process import PeerError

_MODEL_NAMES: Final = {"embedding": "model.embed_tokens", "final_norm": "model.norm"}
_LAYER_NAMES: Final = {
    "attention_norm": "input_layernorm",
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "mlp_norm": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}


def checkpoint(gguf: Path, say: Say) -> Path:
    """The folder, written on first use. Raises PeerError for another architecture than Llama's."""
    folder = FOLDER / "files" / f"{gguf.stem}-float32"
    if not (folder / "config.json").exists():  # written last
        say(f"writing {gguf.name} as safetensors")
        _write(gguf, folder)
    return folder


def _write(gguf: Path, folder: Path) -> None:
    # Here, because the peers' environments import this module too and have neither.
    from safetensors.numpy import save_file

    from engine.loaders import open_model

    with open_model(gguf) as opened:
        description, source = opened.describe(), opened.weights
        if description.architecture != "llama":
            raise PeerError(f"{gguf.name} is a {description.architecture!r} model; only 'llama' is written here")
        tensors = {
            f"{name}.weight": source.take(role, shape, layer) for role, layer, name, shape in _tensors(description)
        }
        has_output = source.has("output")
        if has_output:
            tensors["lm_head.weight"] = source.take("output", (description.vocab_size, description.shape.hidden_size))
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "tokenizer.json").write_text(description.tokenizer_json, encoding="utf-8")
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(description))
    _write_json(folder / "config.json", _config(description, tied=not has_output))


def _tensors(description: Any) -> list[tuple[str, int | None, str, tuple[int, ...]]]:
    """Role, layer, published name and shape of everything but the output layer, which may be the embedding."""
    shape = description.shape
    hidden, ffn, vector = shape.hidden_size, shape.ffn_size, (shape.hidden_size,)
    shapes = {
        "attention_norm": vector,
        "q": (shape.query_size, hidden),
        "k": (shape.kv_size, hidden),
        "v": (shape.kv_size, hidden),
        "o": (hidden, shape.query_size),
        "mlp_norm": vector,
        "gate": (ffn, hidden),
        "up": (ffn, hidden),
        "down": (hidden, ffn),
    }
    return [
        ("embedding", None, _MODEL_NAMES["embedding"], (shape.vocab_size, hidden)),
        ("final_norm", None, _MODEL_NAMES["final_norm"], vector),
        *(
            (role, layer, f"model.layers.{layer}.{name}", shapes[role])
            for layer in range(shape.num_layers)
            for role, name in _LAYER_NAMES.items()
        ),
    ]


def _config(description: Any, *, tied: bool) -> dict[str, Any]:
    shape = description.shape
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.ffn_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": shape.context_length,
        "rms_norm_eps": shape.rms_eps,
        "rope_theta": shape.rotaries[0].theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rotaries[0].theta},
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
        "bos_token_id": description.bos_id,
        "eos_token_id": description.eos_ids[0],
        "torch_dtype": "float32",
    }


def _tokenizer_config(description: Any) -> dict[str, Any]:
    tokens = {index: token for token, index in json.loads(description.tokenizer_json)["model"]["vocab"].items()}
    end = tokens[description.eos_ids[0]]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None if description.bos_id is None else tokens[description.bos_id],
        "eos_token": end,
        "pad_token": end,
        "chat_template": description.chat_template,
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
