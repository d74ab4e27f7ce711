"""What a product adds at its end before it is rounded to its output's type: bias and residual, in this order."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
import triton
import triton.language as tl


@triton.jit
def finish(
    total, bias, residual, out, line, column, rows, outputs: tl.constexpr, biased: tl.constexpr, adds: tl.constexpr
):
    """Stores total float32 [lines, columns] at out[line, column]. `out` may be `residual`: it is read first."""
    inside = (line[:, None] < rows) & (column[None, :] < outputs)
    at = line.to(tl.int64)[:, None] * outputs + column[None, :]
    if biased:
        total = total + tl.load(bias + column, mask=column < outputs, other=0.0).to(tl.float32)[None, :]
    if adds:
        total = total + tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, total.to(out.dtype.element_ty), mask=inside)
