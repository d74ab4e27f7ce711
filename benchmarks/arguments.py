"""What the benchmarks' command lines have in common. Knows argparse."""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path


def common(module: str, description: str | None, *, rounds: int, output: Path | None) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=(description or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=2, help="of every engine")
    parser.add_argument("--model", type=Path, help="a GGUF; default: the default model of `headrace models`")
    parser.add_argument("--output", type=Path, default=output, help="the result, as JSON")
    return parser


def names(known: Iterable[str]) -> Callable[[str], list[str]]:
    """Splits "a,b" and refuses what is not known."""
    listed = list(known)

    def split(text: str) -> list[str]:
        asked = [name for name in text.split(",") if name]
        unknown = [name for name in asked if name not in listed]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: unknown; known are {', '.join(listed)}")
        return asked

    return split
