"""transformers' continuous batching with the same random weights, in a process of its own. Prints one JSON line.

python -m benchmarks.gpu_transformers --subject Qwen3-0.6B --count 256 --shortest 100 --longest 1024
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_measures import requests
from benchmarks.workloads import Ask
from tests.unit.engine.cuda_backend.random_models import SUBJECTS, RandomWeights, Subject


def parameters(subject: Subject, device: torch.device) -> Iterator[tuple[str, Tensor]]:
    """By the names that transformers gives them, in bfloat16."""
    shape, weights = subject.shape, RandomWeights(subject, device)
    hidden, ffn, vocab = shape.hidden_size, shape.ffn_size, shape.vocab_size
    yield "model.embed_tokens.weight", weights.bf16("embedding", vocab, hidden)
    yield "model.norm.weight", weights.norm("final_norm", hidden)
    if not subject.tied:
        yield "lm_head.weight", weights.bf16("output", vocab, hidden)
    for index in range(shape.num_layers):
        ours, theirs = f"{index}.", f"model.layers.{index}."
        qkv = weights.bf16(f"{ours}qkv", shape.query_size + 2 * shape.kv_size, hidden)
        for role, part in zip("qkv", torch.split(qkv, [shape.query_size, shape.kv_size, shape.kv_size]), strict=True):
            yield f"{theirs}self_attn.{role}_proj.weight", part
        yield f"{theirs}self_attn.o_proj.weight", weights.bf16(f"{ours}o", hidden, shape.query_size)
        for role, part in zip(("gate", "up"), weights.bf16(f"{ours}gate_up", 2 * ffn, hidden).chunk(2), strict=True):
            yield f"{theirs}mlp.{role}_proj.weight", part
        yield f"{theirs}mlp.down_proj.weight", weights.bf16(f"{ours}down", hidden, ffn)
        yield f"{theirs}input_layernorm.weight", weights.norm(f"{ours}attention_norm", hidden)
        yield f"{theirs}post_attention_layernorm.weight", weights.norm(f"{ours}mlp_norm", hidden)
        if shape.qk_norm:
            for role in "qk":
                yield f"{theirs}self_attn.{role}_norm.weight", weights.norm(f"{ours}{role}_norm", shape.head_dim)


def build(subject: Subject, device: torch.device) -> Any:
    """Its own class for the architecture, filled parameter by parameter."""
    transformers = import_module("transformers")
    shape = subject.shape
    config = transformers.AutoConfig.for_model(
        subject.architecture,
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.ffn_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=shape.context_length,
        rms_norm_eps=shape.rms_eps,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rotaries[0].theta},
        tie_word_embeddings=subject.tied,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, values in parameters(subject, device):
            own.pop(name).copy_(values)
    if own:
        raise RuntimeError(f"parameters that nobody filled: {', '.join(own)}")
    return model.eval()


def measure(model: Any, asks: Sequence[Ask], device: torch.device) -> dict[str, Any]:
    """All requests at once, once it has warmed itself up; its own choice of pages, batch and graphs."""
    transformers = import_module("transformers")
    greedy = transformers.GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0, max_new_tokens=1)
    # On a CPU it would take nine tenths of the machine's memory.
    own = {} if device.type == "cuda" else {"num_blocks": 16, "max_batch_tokens": 64}
    config = transformers.ContinuousBatchingConfig(**own)
    with model.continuous_batching_context_manager(
        generation_config=greedy, continuous_batching_config=config
    ) as manager:
        _finish(manager, [Ask(ask.prompt[:64], 4) for ask in asks])
        began = time.perf_counter()
        tokens = _finish(manager, asks)
        seconds = time.perf_counter() - began
    about = {"torch": version("torch"), "transformers": version("transformers")}
    return {"seconds": seconds, "tokens": tokens, "attention": model.config._attn_implementation, **about}


def _finish(manager: Any, asks: Sequence[Ask]) -> int:
    """How many tokens came."""
    names = {manager.add_request(list(ask.prompt), max_new_tokens=ask.new_tokens) for ask in asks}
    tokens = 0
    while names:
        result = manager.get_result(timeout=1)
        if result is not None and result.is_finished():
            if result.error is not None:
                raise RuntimeError(f"a request failed: {result.error}")
            names.discard(result.request_id)
            tokens += len(result.generated_tokens)
        elif result is None and not manager.is_running():
            raise RuntimeError("its continuous batching ended by itself")
    return tokens


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_transformers")
    parser.add_argument("--subject", choices=SUBJECTS, required=True)
    for name in ("count", "shortest", "longest"):
        parser.add_argument(f"--{name}", type=int, required=True)
    given = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    subject = SUBJECTS[given.subject]
    asks = requests(given.count, given.shortest, given.longest, subject.shape.vocab_size)
    print(json.dumps(measure(build(subject, device), asks, device)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
