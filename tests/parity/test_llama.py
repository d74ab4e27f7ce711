"""Llama against transformers on a tiny random checkpoint: same logits in float32, near ones in whole numbers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from engine import Engine, EngineConfig, SamplingParams
from engine.batch import build_batch
from engine.loading import load_model
from engine.request import Request
from engine.step_plan import ScheduledChunk
from tests.tiny_model import VOCAB_SIZE, Floats, llama_metadata, write_gguf

HEADS, KV_HEADS, HIDDEN, FFN, LAYERS, CONTEXT = 4, 2, 64, 160, 3, 256
THETA, EPS = 50_000.0, 1e-5

HF_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def theirs() -> LlamaForCausalLM:
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=HIDDEN,
        intermediate_size=FFN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=CONTEXT,
        rms_norm_eps=EPS,
        rope_parameters={"rope_type": "default", "rope_theta": THETA},
        tie_word_embeddings=False,
        initializer_range=0.15,
    )
    return LlamaForCausalLM(config)


@pytest.fixture(scope="module")
def path(theirs: LlamaForCausalLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their weights as a converter would write them."""
    weights = {name: value.detach().numpy() for name, value in theirs.state_dict().items()}
    tensors: dict[str, Floats] = {
        "token_embd.weight": weights["model.embed_tokens.weight"],
        "output_norm.weight": weights["model.norm.weight"],
        "output.weight": weights["lm_head.weight"],
    }
    for layer in range(LAYERS):
        for ours, hf_name in HF_NAMES.items():
            values = weights[f"model.layers.{layer}.{hf_name}.weight"]
            heads = {"attn_q": HEADS, "attn_k": KV_HEADS}.get(ours)
            tensors[f"blk.{layer}.{ours}.weight"] = interleaved(values, heads) if heads else values
    metadata = llama_metadata(
        name="parity",
        context_length=CONTEXT,
        hidden_size=HIDDEN,
        ffn_size=FFN,
        num_layers=LAYERS,
        num_heads=HEADS,
        num_kv_heads=KV_HEADS,
        rope_theta=THETA,
        rms_eps=EPS,
    )
    return write_gguf(tmp_path_factory.mktemp("parity") / "model.gguf", metadata, tensors)


def interleaved(values: Floats, heads: int) -> Floats:
    """Rows (i, i + half) of each head side by side: GGUF's order of query and key rows."""
    rows, columns = values.shape
    return values.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def tokens(count: int) -> list[int]:
    return torch.randint(0, VOCAB_SIZE, (count,), generator=torch.Generator().manual_seed(count)).tolist()


def our_logits(path: Path, numerics: str, ids: list[int]) -> Tensor:
    """[positions, vocab]"""
    loaded = load_model(EngineConfig(str(path), device="cpu", backend="torch", numerics=numerics, num_pages=32))
    request = Request("one", SamplingParams(max_tokens=1), ids, len(ids), 0, 0, frozenset(), pages=list(range(1, 33)))
    with torch.inference_mode():
        batch = build_batch([ScheduledChunk(request, 0, len(ids), samples=True)], 16)
        return torch.from_numpy(loaded.model.logits(loaded.model.forward(batch)).copy())


def their_logits(theirs: LlamaForCausalLM, ids: list[int]) -> Tensor:
    """[positions, vocab]"""
    with torch.inference_mode():
        logits: Tensor = theirs(torch.tensor([ids])).logits[0]
    return logits


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 200])
def test_reference_numerics_give_the_same_logits(theirs: LlamaForCausalLM, path: Path, length: int) -> None:
    ids = tokens(length)
    torch.testing.assert_close(our_logits(path, "reference", ids), their_logits(theirs, ids), rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("length", [1, 65, 200])
def test_exact_numerics_stay_near(theirs: LlamaForCausalLM, path: Path, length: int) -> None:
    ids = tokens(length)
    ours, wanted = our_logits(path, "exact", ids), their_logits(theirs, ids)
    assert ((ours - wanted).norm() / wanted.norm()).item() < 0.08


def test_greedy_answers_are_the_same(theirs: LlamaForCausalLM, path: Path) -> None:
    prompts = [tokens(length) for length in (3, 20, 70)]
    engine = Engine(EngineConfig(str(path), device="cpu", numerics="reference", num_pages=64, max_batched_tokens=24))
    ours = engine.generate(prompts, SamplingParams(max_tokens=24, temperature=0.0, ignore_eos=True))
    for prompt, completion in zip(prompts, ours, strict=True):
        known = list(prompt)
        for _ in range(24):
            known.append(int(their_logits(theirs, known)[-1].argmax()))
        assert list(completion.token_ids) == known[len(prompt) :]


def test_log_probabilities_are_theirs(theirs: LlamaForCausalLM, path: Path) -> None:
    """Of a prompt prefilled in chunks and of what follows it, with the likeliest tokens of each place."""
    prompt, count = tokens(70), 12
    engine = Engine(EngineConfig(str(path), device="cpu", numerics="reference", num_pages=64, max_batched_tokens=24))
    params = SamplingParams(max_tokens=count, temperature=1.1, seed=3, ignore_eos=True, logprobs=5, prompt_logprobs=5)
    ours = engine.generate([prompt], params)[0]
    known = [*prompt, *ours.token_ids]
    wanted = their_logits(theirs, known).double().log_softmax(-1)  # [positions, vocab]
    entries = (*ours.prompt_logprobs[1:], *ours.logprobs)
    assert len(entries) == len(known) - 1
    for entry, row, token_id in zip(entries, wanted, known[1:], strict=False):
        assert entry is not None
        assert entry.logprob == pytest.approx(row[token_id].item(), abs=5e-4)
        assert [value for _, value in entry.top] == pytest.approx(row.topk(5).values.tolist(), abs=5e-4)
        for each, value in entry.top:
            assert value == pytest.approx(row[each].item(), abs=5e-4)
