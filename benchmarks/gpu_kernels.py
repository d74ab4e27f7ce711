"""Every GPU kernel against its plain torch reference, on this device: what differs, and by how much. Knows no models.

The reference runs on the CPU with the same arguments, and afterwards every tensor of both must agree: what was given
back, what was written into, and what was not to be touched. A bound of 0 asks for the same bits.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor

from kernels.dispatch import REFERENCE, kernel
from kernels.reference.paged_attention import attention_workspace
from tests.unit.kernels.gpu.sampling_rows import ROWS, VOCAB, Row, buffers, table_of

_EPS: Final = 1e-5
_BF16: Final = 2.0**-7  # one unit of its 8 bits: some roundings of the interpreter are not the device's


@dataclass(frozen=True, slots=True)
class Case:
    """One call. `bound`: of the distance of results, relative to their size. `scratch`: floats of a workspace behind
    the arguments, whose contents nobody compares."""

    label: str
    args: tuple[Any, ...]
    bound: float = 0.0
    scratch: int | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """`error` is the largest relative distance of any tensor; `broke` says why there is none."""

    case: str
    error: float
    bound: float
    broke: str = ""

    @property
    def sound(self) -> bool:
        return not self.broke and self.error <= self.bound


def check(operation: str, device: torch.device, *, tiny: bool) -> Iterator[Finding]:
    """Every case of one operation."""
    for case in CASES[operation](tiny):
        try:
            error = _distance(operation, case, device)
        except Exception as failure:  # noqa: BLE001 - a kernel that breaks is a finding, and the next one is tried
            yield Finding(case.label, math.inf, case.bound, f"{type(failure).__name__}: {failure}"[:500])
        else:
            yield Finding(case.label, error, case.bound)


def _distance(operation: str, case: Case, device: torch.device) -> float:
    ours, theirs = ([_copied(arg, where) for arg in case.args] for where in (device, torch.device("cpu")))
    scratch = [] if case.scratch is None else [torch.full((case.scratch,), math.nan, device=device)]
    given = kernel(operation, "cuda")(*ours, *scratch)
    wanted = REFERENCE[operation](*theirs)
    found = [*_tensors(ours), *_tensors([given])], [*_tensors(theirs), *_tensors([wanted])]
    return max(_apart(mine.cpu(), other) for mine, other in zip(*found, strict=True))


def _copied(arg: Any, device: torch.device) -> Any:
    if isinstance(arg, Tensor):
        return arg.clone().to(device)
    if is_dataclass(arg) and not isinstance(arg, type):
        return replace(arg, **{field.name: _copied(getattr(arg, field.name), device) for field in fields(arg)})
    return arg


def _tensors(args: Sequence[Any]) -> Iterator[Tensor]:
    for arg in args:
        if isinstance(arg, Tensor):
            yield arg
        elif is_dataclass(arg) and not isinstance(arg, type):
            yield from _tensors([getattr(arg, field.name) for field in fields(arg)])


def _apart(mine: Tensor, other: Tensor) -> float:
    """0 for the same bits (NaN where there is NaN), else the distance relative to the size."""
    if torch.equal(mine.nan_to_num(12345.0), other.nan_to_num(12345.0)):
        return 0.0
    distance = float((mine.double() - other.double()).norm() / other.double().norm().clamp(min=1e-30))
    return distance if distance > 0 else math.inf  # NaN is never near


def _draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3).to(dtype)


def _whole(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(-127, 128, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.int8)


def _poisoned(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.full(shape, 99 if dtype == torch.int8 else math.nan, dtype=dtype)


def _widths(tiny: bool) -> tuple[int, ...]:
    return (1, 200) if tiny else (1, 200, 4096)


def _norms(tiny: bool) -> Iterator[Case]:
    for width, dtype in itertools.product(_widths(tiny), (torch.float32, torch.bfloat16)):
        x, residual, weight = _draw(3, width), _draw(3, width, seed=1), _draw(width, seed=2)
        bound = 0.0 if dtype == torch.float32 else _BF16
        for beside in (None, residual):
            label = f"width {width}, {dtype}, residual {beside is not None}"
            yield Case(label, (x, beside, weight, _EPS, _poisoned(3, width, dtype=dtype)), bound)


def _quantised_norms(tiny: bool) -> Iterator[Case]:
    for width, group in itertools.product(_widths(tiny), (64, 1 << 30)):
        out, scale = _quantised(3, width, group)
        args = (_draw(3, width), _draw(3, width, seed=1), _draw(width, seed=2), _EPS, group, out, scale)
        yield Case(f"width {width}, groups of {group}", args)


def _quantised(rows: int, width: int, group: int) -> tuple[Tensor, Tensor]:
    return _poisoned(rows, width, dtype=torch.int8), _poisoned(rows, -(-width // group))


def _groups(tiny: bool) -> Iterator[Case]:
    for width, group in itertools.product(_widths(tiny), (64, 1 << 30)):
        yield Case(f"width {width}, groups of {group}", (_draw(3, width), group, *_quantised(3, width, group)))


def _gates(tiny: bool) -> Iterator[Case]:
    for width, kind in itertools.product(_widths(tiny), ("silu", "gelu_tanh")):
        for dtype, bound in ((torch.float32, 0.0), (torch.bfloat16, _BF16)):
            args = (_draw(3, 2 * width), kind, _poisoned(3, width, dtype=dtype))
            yield Case(f"width {width}, {kind}, {dtype}", args, bound)


def _quantised_gates(tiny: bool) -> Iterator[Case]:
    for width, kind in itertools.product(_widths(tiny), ("silu", "gelu_tanh")):
        yield Case(f"width {width}, {kind}", (_draw(3, 2 * width), kind, 64, *_quantised(3, width, 64)))


def _int8_products(tiny: bool) -> Iterator[Case]:
    shapes = [(200, 70)] if tiny else [(200, 70), (4096, 1000)]
    rows = (1, 3, 5, 17) if tiny else (1, 2, 3, 4, 5, 17, 33, 130)
    for (width, outputs), count, group in itertools.product(shapes, rows, (64, 1 << 30)):
        scales = torch.rand(count, -(-width // group)), torch.rand(outputs) / 1000
        bias, residual = _draw(outputs), _draw(count, outputs)
        x, weight = _whole(count, width), _whole(outputs, width, seed=1)
        args = (x, scales[0], weight, scales[1], group, _poisoned(count, outputs), bias, residual)
        yield Case(f"{count} x {width} x {outputs}, groups of {group}", args)


def _float_products(tiny: bool) -> Iterator[Case]:
    rows = (1, 5) if tiny else (1, 2, 17, 64, 65, 300)
    for count, dtype in itertools.product(rows, (torch.bfloat16, torch.float16, torch.float32)):
        x, weight = _draw(count, 200, dtype=dtype), _draw(70, 200, dtype=dtype, seed=1)
        args = (x, weight, _poisoned(count, 70), _draw(70), _draw(count, 70, seed=2))
        yield Case(f"{count} rows, {dtype}", args, 1e-5)


def _embeddings(tiny: bool) -> Iterator[Case]:
    ids = torch.tensor([4, 0, 4])
    for width in _widths(tiny):
        yield Case(f"int8, width {width}", (ids, _whole(5, width), torch.rand(5), 1.5, _poisoned(3, width)))
        weight = _draw(5, width, dtype=torch.bfloat16)
        yield Case(f"bfloat16, width {width}", (ids, weight, None, 1.0, _poisoned(3, width)))


@dataclass(frozen=True, slots=True)
class Heads:
    queries: int
    kv: int
    dim: int


def _heads(tiny: bool) -> tuple[Heads, ...]:
    return (Heads(3, 1, 80),) if tiny else (Heads(3, 1, 80), Heads(32, 8, 128), Heads(4, 1, 256))


def _pages(count: int, heads: Heads, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    if dtype == torch.int8:
        where = (count, 2, heads.kv, 16)
        return _whole(*where, heads.dim), torch.rand(where, generator=torch.Generator().manual_seed(3)) / 40
    return _draw(count, 2, heads.kv, 16, heads.dim, dtype=dtype) / 3, None


def _attention(tiny: bool) -> Iterator[Case]:
    rows, contexts = ([1, 0, 6], [70, 0, 6]) if tiny else ([1, 0, 6, 3, 1, 40], [257, 0, 6, 66, 1500, 340])
    table = -(-max(contexts) // 16)
    for heads, dtype, window in itertools.product(_heads(tiny), (torch.int8, torch.bfloat16), (0, 50)):
        pages, scales = _pages(table * len(rows), heads, dtype)
        tables = torch.arange(table * len(rows), dtype=torch.int32).flip(0).view(len(rows), table)
        query = _draw(sum(rows), heads.queries, heads.dim, dtype=torch.float32 if scales is not None else dtype)
        for splits in (False, True):
            floats = attention_workspace(len(query), heads.queries, heads.dim, table * 16) if splits else 0
            args = (query, pages, scales, torch.tensor([0, *itertools.accumulate(rows)], dtype=torch.int32),
                    torch.tensor(contexts, dtype=torch.int32), tables, heads.dim**-0.5, window, None)  # fmt: skip
            label = f"{heads}, {dtype}, window {window}, split {splits}"
            yield Case(label, args, 0.0 if scales is not None else 1e-2, floats)


def _rotations(tiny: bool) -> Iterator[Case]:
    for heads, dtype, norms in itertools.product(_heads(tiny), (torch.int8, torch.bfloat16), (True, False)):
        pages, scales = _pages(3, heads, dtype)
        angles = torch.rand(40, heads.dim // 2, generator=torch.Generator().manual_seed(5)) * 6
        weights = (_draw(heads.dim), _draw(heads.dim, seed=1)) if norms else (None, None)
        qkv = _draw(4, heads.queries + 2 * heads.kv, heads.dim)
        slots = torch.tensor([17, 20, 40, 3])
        out = torch.zeros(4, heads.queries, heads.dim)
        args = (qkv, torch.tensor([0, 3, 39, 7]), angles.cos(), angles.sin(), *weights, _EPS, pages, scales, slots, out)
        yield Case(f"{heads}, {dtype}, norms {norms}", args, 0.0 if scales is not None else _BF16)


def _kv_writes(tiny: bool) -> Iterator[Case]:
    for heads, dtype in itertools.product(_heads(tiny), (torch.int8, torch.bfloat16)):
        pages, scales = _pages(3, heads, dtype)
        key, value = _draw(4, heads.kv, heads.dim), _draw(4, heads.kv, heads.dim, seed=1)
        key[2, 0, 1] = math.inf
        args = (key, value, pages, scales, torch.tensor([17, -1, 40, 3]))
        yield Case(f"{heads}, {dtype}", args, 0.0 if scales is not None else _BF16)


def _samples(tiny: bool) -> Iterator[Case]:
    for vocab in (VOCAB,) if tiny else (VOCAB, 5000, 151_936):
        for rows in (ROWS[:2] if tiny else ROWS, [Row(temperature=0.9, top_k=40, top_p=0.9, seed=7, alternatives=5)]):
            scores, sampled = buffers(len(rows), vocab)
            args = (_draw(len(rows), vocab), table_of(list(rows), vocab), scores, sampled)
            yield Case(f"{len(rows)} rows of {vocab}", args)


CASES: Final[Mapping[str, Callable[[bool], Iterator[Case]]]] = MappingProxyType(
    {
        "quantize_by_group": _groups,
        "add_rms_norm": _norms,
        "add_rms_norm_quantize": _quantised_norms,
        "gated": _gates,
        "gated_quantize": _quantised_gates,
        "embed": _embeddings,
        "scaled_int8_matmul": _int8_products,
        "float_matmul": _float_products,
        "write_kv": _kv_writes,
        "qk_norm_rope_write_kv": _rotations,
        "paged_attention": _attention,
        "sample": _samples,
    }
)
