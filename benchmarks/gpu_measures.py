"""What this device does in a second: copies, products, attention, decode steps, whole workloads. Knows no bars.

A measure of bytes is said beside the measured copy, since that is what the device can do. Inputs are random, larger
than the cache together, and taken in turn; launches are replayed as one graph, so that gaps between them do not count.
"""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from benchmarks.workloads import Ask
from engine import SamplingParams
from engine.cuda_backend.operations import operations
from kernels.ops import GROUP, attention_workspace
from tests.unit.engine.cuda_backend.random_models import Knobs, Subject, engine, model, pages_for

Work = Callable[[], object]

_REPLAYS: Final = 12
_CACHES: Final = 256 << 20  # bytes of inputs at least: several times the largest L2


@dataclass(frozen=True, slots=True)
class Speed:
    """`seconds` of one launch or step, in which so many bytes had to move."""

    name: str
    seconds: float
    nbytes: int

    @property
    def bytes_per_second(self) -> float:
        return self.nbytes / self.seconds


@dataclass(frozen=True, slots=True)
class Throughput:
    seconds: float
    tokens: int

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds


def seconds_each(works: Sequence[Work], device: torch.device) -> float:
    """Of one of `works`, run in turn: the median over replays."""
    for work in works:
        work()
    if device.type != "cuda":
        began = time.perf_counter()
        for work in works:
            work()
        return (time.perf_counter() - began) / len(works)
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize(device)
    with torch.cuda.graph(graph):
        for work in works:
            work()
    graph.replay()
    times = []
    for _ in range(_REPLAYS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1000)
    return float(statistics.median(times)) / len(works)


def copying(device: torch.device, *, tiny: bool) -> Speed:
    """A large device-to-device copy: bytes read and bytes written."""
    source = torch.randn((1 << 12) if tiny else (1 << 29), device=device)
    target = torch.empty_like(source)
    return Speed("copy", seconds_each([lambda: target.copy_(source)], device), 2 * source.nbytes)


def product(kind: str, rows: int, outputs: int, inputs: int, device: torch.device) -> Speed:
    """One product with the weights of a layer. `kind` is "int8", "bf16" (ours) or "torch", the library's bfloat16."""
    table, size = operations("cuda"), outputs * inputs * (1 if kind == "int8" else 2)
    copies = max(1, -(-_CACHES // size)) if device.type == "cuda" else 1
    whole = torch.randint(-127, 128, (rows, inputs), device=device, dtype=torch.int8)
    x = whole.to(torch.bfloat16)
    x_scale, scale = torch.rand(rows, -(-inputs // GROUP), device=device), torch.rand(outputs, device=device)
    out = torch.empty(rows, outputs, device=device, dtype=torch.float32 if kind == "int8" else torch.bfloat16)

    def of(weight: torch.Tensor) -> Work:
        if kind == "int8":
            return lambda: table.scaled_int8_matmul(whole, x_scale, weight, scale, GROUP, out)
        if kind == "bf16":
            return lambda: table.float_matmul(x, weight, out)
        return lambda: torch.mm(x, weight.t(), out=out)

    works = []
    for _ in range(copies):
        weight = torch.randint(-127, 128, (outputs, inputs), device=device, dtype=torch.int8)
        works.append(of(weight if kind == "int8" else weight.to(torch.bfloat16)))
    return Speed(f"{kind} {rows} x {inputs} x {outputs}", seconds_each(works, device), size + x.nbytes + out.nbytes)


def decode_attention(subject: Subject, numerics: str, sequences: int, context: int, device: torch.device) -> Speed:
    """One layer's attention of a step that decodes, over pages in no order."""
    shape, table = subject.shape, operations("cuda")
    pages_each = -(-context // 16)
    where = (sequences * pages_each, 2, shape.num_kv_heads, 16)
    scales = torch.rand(where, device=device) / 100 if numerics == "exact" else None
    dtype = torch.float32 if numerics == "exact" else torch.bfloat16
    query = torch.randn(sequences, shape.num_heads, shape.head_dim, device=device).to(dtype)
    out = torch.empty_like(query)
    tables = torch.randperm(where[0], device=device).to(torch.int32).view(sequences, pages_each)
    starts = torch.arange(sequences + 1, device=device, dtype=torch.int32)
    contexts = torch.full((sequences,), context, device=device, dtype=torch.int32)
    floats = attention_workspace(sequences, shape.num_heads, shape.head_dim, pages_each * 16)
    workspace = torch.empty(min(floats, 1 << 26), device=device)

    def of() -> tuple[Work, int]:
        whole = torch.randint(-127, 128, (*where, shape.head_dim), device=device, dtype=torch.int8)
        pages = whole if scales is not None else whole.to(torch.bfloat16)
        work = lambda: table.paged_attention(  # noqa: E731 - a launch, to be captured
            query, pages, scales, starts, contexts, tables, shape.score_scale, 0, out=out, workspace=workspace
        )
        return work, pages.nbytes + (0 if scales is None else scales.nbytes)

    first, size = of()
    copies = max(1, -(-_CACHES // size)) if device.type == "cuda" else 1
    works = [first, *(of()[0] for _ in range(copies - 1))]
    name = f"attention {numerics}, {sequences} sequences of {context}"
    return Speed(name, seconds_each(works, device), size + query.nbytes + out.nbytes)


def decoding_alone(subject: Subject, numerics: str, device: torch.device, *, prompt: int, tokens: int) -> Speed:
    """Steps of one request through the engine: the median step, and the weights and keys that it has to read."""
    shape, context = subject.shape, prompt + tokens + 16
    knobs = Knobs(1, 512, -(-context // 16) + 2, context)
    loaded = model(subject, numerics, knobs, device)
    some = engine(loaded, knobs)
    some.add_request("one", [7] * prompt, SamplingParams(max_tokens=tokens, temperature=0.0, ignore_eos=True))
    steps = []
    while some.has_unfinished:
        stats = some.step().stats
        if stats.decode_rows == 1:
            steps.append(stats.seconds)
    weights = _read_each_step(subject) * (1 if numerics == "exact" else 2)
    each = (
        shape.kv_bytes_per_token("exact", padded=False) if numerics == "exact" else 4 * shape.num_layers * shape.kv_size
    )
    return Speed(
        f"{subject.name} {numerics}, batch 1", statistics.median(steps), weights + each * (prompt + tokens // 2)
    )


def _read_each_step(subject: Subject) -> int:
    """How many weights a step of one row multiplies by; of a second table for the embedding it reads one row."""
    shape = subject.shape
    hidden, ffn = shape.hidden_size, shape.ffn_size
    layer = hidden * (2 * shape.query_size + 2 * shape.kv_size + 3 * ffn)
    return shape.num_layers * layer + shape.vocab_size * hidden


def requests(count: int, shortest: int, longest: int, vocab: int) -> tuple[Ask, ...]:
    """Lengths in and out drawn evenly between two bounds, always the same ones."""
    source = random.Random(256)
    asks = []
    for _ in range(count):
        prompt, tokens = source.randint(shortest, longest), source.randint(shortest, longest)
        asks.append(Ask(tuple(source.randrange(vocab) for _ in range(prompt)), tokens))
    return tuple(asks)


def throughput(subject: Subject, numerics: str, asks: Sequence[Ask], device: torch.device) -> Throughput:
    """All requests at once, greedy, through the engine; loading and warming do not count."""
    knobs = knobs_for(subject, numerics, asks, device)
    some = engine(model(subject, numerics, knobs, device), knobs)
    params = [SamplingParams(max_tokens=ask.new_tokens, temperature=0.0, ignore_eos=True) for ask in asks]
    began = time.perf_counter()
    found = some.generate([ask.prompt for ask in asks], params)
    return Throughput(time.perf_counter() - began, sum(len(each.token_ids) for each in found))


def knobs_for(subject: Subject, numerics: str, asks: Sequence[Ask], device: torch.device) -> Knobs:
    """Of an engine that runs all of `asks` together, as far as memory allows."""
    context = max(len(ask.prompt) + ask.new_tokens for ask in asks) + 16
    total = sum(len(ask.prompt) + ask.new_tokens + 16 for ask in asks)
    rows = 64 if device.type != "cuda" else 2048
    return Knobs(len(asks), rows, pages_for(total, subject.shape, numerics, device) - 1, context)


def layer_products(subject: Subject) -> tuple[tuple[int, int], ...]:
    """(outputs, inputs) of the four products of a layer."""
    shape = subject.shape
    return (
        (shape.query_size + 2 * shape.kv_size, shape.hidden_size),
        (shape.hidden_size, shape.query_size),
        (2 * shape.ffn_size, shape.hidden_size),
        (shape.hidden_size, shape.ffn_size),
    )
