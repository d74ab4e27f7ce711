"""Vectors of 16 lanes as values in numba code: loads, stores and arithmetic by address; knows no operation of a model.

Numba would vectorise plain loops too, but it chooses the width, and so the order of a sum, by itself. Here lanes are
explicit: a sum has the one order that is written down, and nothing is contracted (`a * b + c` rounds twice).

`floats` is <16 x float>, `ints` <16 x i32>. An address is a whole number of bytes (`array.ctypes.data`).
"""

import operator
from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Any, Final, TypeAlias

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel.models import PrimitiveModel
from numba.core.extending import intrinsic, lower_builtin, register_model
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature

LANES: Final = 16

I8, I32, I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
F32, F64 = ir.FloatType(), ir.DoubleType()
FLOATS: Final = ir.VectorType(F32, LANES)
INTS: Final = ir.VectorType(I32, LANES)
BYTES: Final = ir.VectorType(I8, LANES)

Emit: TypeAlias = Callable[..., Any]


class Vector(types.Type):
    """A register of 16 lanes of 32 bits."""

    def __init__(self, name: str, lanes: ir.VectorType) -> None:
        self.lanes = lanes
        super().__init__(name=name)


@register_model(Vector)
class _VectorModel(PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, kind.lanes)


floats: Final = Vector("floats16", FLOATS)
ints: Final = Vector("ints16", INTS)


def pointer(builder: Any, address: Any, to: ir.Type) -> Any:
    return builder.inttoptr(address, to.as_pointer())


def call(builder: Any, name: str, result: ir.Type, *arguments: Any) -> Any:
    """A call of one of LLVM's own functions."""
    signature = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), arguments)


def spread(builder: Any, value: Any, kind: ir.VectorType) -> Any:
    """One number in every lane."""
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, I32(0))
    lanes = ir.Constant(ir.VectorType(I32, kind.count), [0] * kind.count)
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), lanes)


def dot(builder: Any, total: Any, unsigned: Any, signed: Any) -> Any:
    """Each lane: total + the sum of four products of an unsigned and a signed byte, without saturation (VNNI)."""
    return call(builder, "llvm.x86.avx512.vpdpbusd.512", INTS, total, unsigned, signed)


def call_address(builder: Any, function: Any, *arguments: Any) -> Any:
    """A call of a function of whole numbers that is known by its address."""
    signature = ir.FunctionType(ir.VoidType(), [I64] * len(arguments))
    return builder.call(builder.inttoptr(function, signature.as_pointer()), arguments)


def operation(result: types.Type, parameters: tuple[types.Type, ...], emit: Emit) -> Any:
    """A function for numba code whose body is the LLVM that `emit(builder, *arguments)` writes."""

    def typed(typing_context: Any, *arguments: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            made = emit(builder, *values)
            return context.get_dummy_value() if result is types.void else made

        return result(*parameters), generate

    # Numba reads the signature to match arguments, and takes `*arguments` for one tuple.
    names = ("typing_context", *(f"argument_{index}" for index in range(len(parameters))))
    typed.__signature__ = Signature([Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in names])  # type: ignore[attr-defined]
    return intrinsic(typed)


def record_at(kind: type[tuple[Any, ...]], number: types.Type) -> Any:
    """A function for numba code: the named tuple `kind` whose numbers lie at an address, one behind the other.

    Handed over by Python, a tuple is taken apart number by number under the interpreter's lock: 80 microseconds for
    fifty of them when caches are cold, while the other threads wait for it.
    """
    made = types.NamedUniTuple(number, len(kind._fields), kind)  # type: ignore[attr-defined]

    def emit(builder: Any, address: Any) -> Any:
        numbers = ir.ArrayType(F64 if number is types.float64 else I64, made.count)
        return builder.load(pointer(builder, address, numbers), align=8)

    return operation(made, (types.int64,), emit)


def _load(kind: ir.Type, align: int) -> Emit:
    return lambda builder, address: builder.load(pointer(builder, address, kind), align=align)


def _store(kind: ir.Type, align: int) -> Emit:
    return lambda builder, address, value: builder.store(value, pointer(builder, address, kind), align=align)


def _store_low_bytes(builder: Any, address: Any, values: Any) -> Any:
    return builder.store(builder.trunc(values, BYTES), pointer(builder, address, BYTES), align=1)


def _both(name: str) -> Emit:
    return lambda builder, a, b: getattr(builder, name)(a, b)


def _larger(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _tree(combine: Emit) -> Emit:
    """Lanes 16 -> 8 -> 4 -> 2 -> 1, the upper half on the lower: the one order that sums over lanes have."""

    def emit(builder: Any, vector: Any) -> Any:
        width = LANES
        while width > 1:
            width //= 2
            undefined = ir.Constant(vector.type, ir.Undefined)
            parts = [
                builder.shuffle_vector(
                    vector, undefined, ir.Constant(ir.VectorType(I32, width), list(range(start, start + width)))
                )
                for start in (0, width)
            ]
            vector = combine(builder, *parts)
        return builder.extract_element(vector, I32(0))

    return emit


def _keep_below(builder: Any, count: Any, values: Any, other: Any) -> Any:
    lanes = ir.Constant(ir.VectorType(I64, LANES), list(range(LANES)))
    inside = builder.icmp_signed("<", lanes, spread(builder, count, ir.VectorType(I64, LANES)))
    return builder.select(inside, values, other)


def _nearest(builder: Any, x: Any) -> Any:
    return call(builder, "llvm.rint.v16f32", FLOATS, x)


def _magnitudes(builder: Any, x: Any) -> Any:
    return builder.and_(builder.bitcast(x, INTS), ir.Constant(INTS, [0x7FFFFFFF] * LANES))


def _larger_int(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_signed(">", a, b), a, b)


def _within(builder: Any, x: Any, low: Any, high: Any) -> Any:
    """x < low is false for NaN, which so passes through."""
    least, most = spread(builder, low, FLOATS), spread(builder, high, FLOATS)
    x = builder.select(builder.fcmp_ordered("<", x, least), least, x)
    return builder.select(builder.fcmp_ordered(">", x, most), most, x)


def emit_prefetch(builder: Any, address: Any) -> Any:
    """Asks for a cache line, to the second cache level, and waits for nothing."""
    where = pointer(builder, address, I8)
    signature = ir.FunctionType(ir.VoidType(), [where.type, I32, I32, I32])
    function = cgutils.get_or_insert_function(builder.module, signature, "llvm.prefetch.p0")
    return builder.call(function, [where, I32(0), I32(2), I32(1)])


def _power_of_two(builder: Any, whole: Any) -> Any:
    biased = builder.add(whole, ir.Constant(INTS, [127] * LANES))
    return builder.bitcast(builder.shl(biased, ir.Constant(INTS, [23] * LANES)), FLOATS)


_at, _f32, _i32 = types.int64, types.float32, types.int32

prefetch = operation(types.void, (_at,), emit_prefetch)
"""Asks for the cache line at an address, which need not be anybody's."""
load_floats = operation(floats, (_at,), _load(FLOATS, 4))
store_floats = operation(types.void, (_at, floats), _store(FLOATS, 4))
load_ints = operation(ints, (_at,), _load(INTS, 4))
store_ints = operation(types.void, (_at, ints), _store(INTS, 4))
store_bytes = operation(types.void, (_at, ints), _store_low_bytes)
load_float = operation(_f32, (_at,), _load(F32, 4))
store_float = operation(types.void, (_at, _f32), _store(F32, 4))
load_int = operation(_i32, (_at,), _load(I32, 1))
store_int = operation(types.void, (_at, _i32), _store(I32, 4))
load_index = operation(types.int64, (_at,), _load(I64, 8))
store_index = operation(types.void, (_at, types.int64), _store(I64, 8))
load_byte = operation(_i32, (_at,), lambda b, at: b.sext(b.load(pointer(b, at, I8)), I32))
store_byte = operation(types.void, (_at, _i32), lambda b, at, x: b.store(b.trunc(x, I8), pointer(b, at, I8)))
splat = operation(floats, (_f32,), lambda b, x: spread(b, x, FLOATS))
splat_int = operation(ints, (_i32,), lambda b, x: spread(b, x, INTS))
larger = operation(floats, (floats, floats), _larger)
magnitudes = operation(ints, (floats,), _magnitudes)
"""The bits of |x|, which are ordered as whole numbers, infinity and then NaN being the largest."""
larger_int = operation(ints, (ints, ints), _larger_int)
max_magnitude = operation(_f32, (ints,), lambda b, x: b.bitcast(_tree(_larger_int)(b, x), F32))
"""The largest of `magnitudes` as a number again. NaN where there was any: a maximum of floats would lose it."""
nearest = operation(floats, (floats,), _nearest)
"""Rounded to whole numbers, halves to even."""
within = operation(floats, (floats, _f32, _f32), _within)
"""No less than a low and no more than a high number. NaN stays NaN."""
to_ints = operation(ints, (floats,), lambda b, x: b.fptosi(x, INTS))
to_floats = operation(floats, (ints,), lambda b, x: b.sitofp(x, FLOATS))
power_of_two = operation(floats, (ints,), _power_of_two)
"""2^n for whole n from -126 to 127."""
keep_below = operation(floats, (types.int64, floats, floats), _keep_below)
"""Lanes below a count from the first vector, the others from the second."""
sum_lanes = operation(_f32, (floats,), _tree(_both("fadd")))
sum_int_lanes = operation(_i32, (ints,), _tree(_both("add")))
max_lanes = operation(_f32, (floats,), _tree(_larger))
dot_bytes = operation(
    ints,
    (ints, _at, _i32),
    lambda b, total, at, quad: dot(b, total, b.load(pointer(b, at, INTS), align=4), spread(b, quad, INTS)),
)
"""total + unsigned bytes at an address . four signed bytes, the same in each lane."""
dot_weights = operation(
    ints,
    (ints, _i32, _at),
    lambda b, total, quad, at: dot(b, total, spread(b, quad, INTS), b.load(pointer(b, at, INTS), align=4)),
)
"""total + four unsigned bytes, the same in each lane . signed bytes at an address."""


def _operator(symbol: Callable[..., Any], kind: Vector, instruction: str) -> None:
    """`a symbol b` on two vectors of a kind, lane by lane."""

    class Template(ConcreteTemplate):
        cases = (signature(kind, kind, kind),)

    infer_global(symbol)(Template)

    @lower_builtin(symbol, kind, kind)
    def lower(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        return getattr(builder, instruction)(*values)


_operator(operator.add, floats, "fadd")
_operator(operator.sub, floats, "fsub")
_operator(operator.mul, floats, "fmul")
_operator(operator.truediv, floats, "fdiv")
_operator(operator.add, ints, "add")
