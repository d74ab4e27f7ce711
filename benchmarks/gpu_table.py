"""The bars that a GPU has to reach beside what was found there, as a table. Pure values: knows no device."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

Found = Mapping[str, Any]

_NOT_RUN: Final = "not run"
WIDE_ATTENTION: Final = tuple(f"{name}, {size}" for name in ("exact", "bf16") for size in ("64 x 2048", "256 x 1024"))


@dataclass(frozen=True, slots=True)
class Bar:
    """`value` of what was found, None where it was not; `reached` of that value."""

    claim: str
    bar: str
    value: Callable[[Found], float | None]
    shown: Callable[[float], str]
    reached: Callable[[float], bool]


def _entry(found: Found, part: str, name: str, key: str) -> float | None:
    value = found.get("parts", {}).get(part, {}).get(name, {}).get(key)
    return None if value is None else float(value)


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None


def _against_peer(subject: str) -> Callable[[Found], float | None]:
    def ratio(found: Found) -> float | None:
        ours = _entry(found, "throughput", f"{subject} exact", "tokens_per_second")
        return _ratio(ours, _entry(found, "peer", subject, "tokens_per_second"))

    return ratio


def _exact_against_bf16(found: Found) -> float | None:
    """The worst of what both were measured at."""
    ratios = []
    for subject in ("Qwen3-0.6B", "Llama-3.1-8B"):
        speeds = [_entry(found, "throughput", f"{subject} {name}", "tokens_per_second") for name in ("exact", "bf16")]
        steps = [_entry(found, "single", f"{subject} {name}", "seconds") for name in ("exact", "bf16")]
        ratios += [_ratio(*speeds), _ratio(*reversed(steps))]
    known = [ratio for ratio in ratios if ratio is not None]
    return min(known) if known else None


def _of_copy(part: str, name: str) -> Callable[[Found], float | None]:
    def share(found: Found) -> float | None:
        return _ratio(_entry(found, part, name, "bytes_per_second"), _entry(found, "copy", "copy", "bytes_per_second"))

    return share


def _attention(found: Found) -> float | None:
    """The worst of the steps that fill a device."""
    known = [share for name in WIDE_ATTENTION if (share := _of_copy("attention", name)(found)) is not None]
    return min(known) if known else None


def _differing(found: Found) -> float | None:
    entries = found.get("parts", {}).get("identity", {})
    counts = [entry["differing"] for name, entry in entries.items() if name != "bf16" and "differing" in entry]
    return float(sum(counts)) if counts else None


def _failed_cases(found: Found) -> float | None:
    entries = found.get("parts", {}).get("kernels", {})
    return float(sum(len(entry.get("failed", (1,))) for entry in entries.values())) if entries else None


def _times(value: float) -> str:
    return f"{value:.2f}x"


def _share(value: float) -> str:
    return f"{value * 100:.0f} %"


def _count(value: float) -> str:
    return f"{value:.0f}"


BARS: Final = (
    Bar("kernels against their references", "0 cases differ", _failed_cases, _count, lambda v: v == 0),
    Bar("any-schedule identity", "0 tokens differ", _differing, _count, lambda v: v == 0),
    Bar("0.6B against transformers' continuous batching", ">= 3x", _against_peer("Qwen3-0.6B"), _times,
        lambda v: v >= 3),
    Bar("8B against the same", ">= 2x", _against_peer("Llama-3.1-8B"), _times, lambda v: v >= 2),
    Bar("batch-1 8B bf16, of copy bandwidth", ">= 80 %", _of_copy("single", "Llama-3.1-8B bf16"), _share,
        lambda v: v >= 0.8),
    Bar("exact int8 against bf16, the worst", ">= 1x", _exact_against_bf16, _times, lambda v: v >= 1),
    Bar("decode attention, 64 rows of 2,048 and 256 of 1,024, of copy bandwidth", ">= 80 %", _attention, _share,
        lambda v: v >= 0.8),
)  # fmt: skip


def bars_table(found: Found) -> str:
    """A Markdown table: claim, bar, what was found, whether that is enough."""
    lines = [f"On {found.get('device', 'an unknown device')}, {found.get('date', 'undated')}:", ""]
    lines += ["| claim | bar | found | |", "|---|---|---|---|"]
    for bar in BARS:
        value = bar.value(found)
        shown, verdict = (_NOT_RUN, "") if value is None else (bar.shown(value), "yes" if bar.reached(value) else "no")
        lines.append(f"| {bar.claim} | {bar.bar} | {shown} | {verdict} |")
    return "\n".join(lines)
