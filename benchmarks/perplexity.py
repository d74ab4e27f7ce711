"""What exactness costs in quality: perplexity of the exact numerics against the reference, on real texts.

    python -m benchmarks.perplexity [--model PATH] [--backend torch|cpu] [--texts code,fiction] [--tokens 20000]

Windows of 512 tokens; each begins 128 before the last one's end, and only tokens with at least 127 before them count
(all of the first window's). Both numerics see the same windows; the reference is always plain torch. Writes a JSON
after each text and prints a table. Perplexity is exp(mean of -log p) over all tokens that count.
"""

import argparse
import hashlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from benchmarks.arguments import names
from benchmarks.results import FOLDER, header, model_path, say
from benchmarks.table import perplexity_table
from benchmarks.texts import SOURCES, Source, read
from engine import EngineConfig, SamplingParams
from engine.batch import build_batch
from engine.loading import LoadedModel, load_model
from engine.models.causal_lm import CausalLM
from engine.request import Request
from engine.step_plan import ScheduledChunk

WINDOW, OVERLAP, CHUNK = 512, 128, 256
_PAGE: Final = 16
_LOGIT_ROWS: Final = 64


@dataclass(frozen=True, slots=True)
class Figure:
    """One text. `increase` is how much higher the exact numerics' perplexity is, as a fraction."""

    text: str
    kind: str
    origin: str
    licence: str
    sha256: str
    tokens: int
    reference: float
    exact: float
    increase: float


def windows(ids: Sequence[int], tokens: int) -> Iterator[tuple[list[int], int]]:
    """(token ids, the first place whose token counts) until `tokens` count, or the text is at its end."""
    start = counted = 0
    while counted < tokens and start + WINDOW <= len(ids):
        first = 1 if start == 0 else OVERLAP
        yield list(ids[start : start + WINDOW]), first
        counted += WINDOW - first
        start += WINDOW - OVERLAP


def negative_log_likelihoods(model: CausalLM, ids: Sequence[int], first: int) -> NDArray[np.float64]:
    """-log p of the tokens from place `first` on, each given those before it.  # [len(ids) - first]"""
    pages = list(range(1, 1 + len(ids) // _PAGE))
    request = Request("text", SamplingParams(max_tokens=1), list(ids), len(ids), 0, 0, frozenset(), pages=pages)
    chunks = [ScheduledChunk(request, start, min(start + CHUNK, len(ids)), True) for start in range(0, len(ids), CHUNK)]
    # Copied: a backend may hand out a buffer that its next step overwrites.
    hidden = np.concatenate([model.forward(build_batch([chunk], _PAGE)).copy() for chunk in chunks])
    found = []
    for start in range(first - 1, len(ids) - 1, _LOGIT_ROWS):
        stop = min(start + _LOGIT_ROWS, len(ids) - 1)
        logits = model.logits(hidden[start:stop]).astype(np.float64)  # [rows, vocab]
        logits -= logits.max(axis=1, keepdims=True)
        named = logits[np.arange(stop - start), ids[start + 1 : stop + 1]]
        found.append(np.log(np.exp(logits).sum(axis=1)) - named)
    return np.concatenate(found)


def measure(source: Source, text: str, reference: LoadedModel, exact: LoadedModel, tokens: int) -> Figure:
    tokenizer = Tokenizer.from_str(reference.description.tokenizer_json)
    description, sums, counted = reference.description, np.zeros(2), 0
    ids = tokenizer.encode(text, add_special_tokens=description.add_bos).ids
    for window, first in windows(ids, tokens):
        for at, loaded in enumerate((reference, exact)):
            sums[at] += negative_log_likelihoods(loaded.model, window, first).sum()
        counted += len(window) - first
    plain, whole = (sums / counted).tolist()
    return Figure(
        text=source.name,
        kind=source.kind,
        origin=source.origin,
        licence=source.licence,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        tokens=counted,
        reference=math.exp(plain),
        exact=math.exp(whole),
        increase=math.exp(whole - plain) - 1.0,
    )


def load(path: Path, numerics: str, backend: str, threads: int) -> LoadedModel:
    pages = WINDOW // _PAGE
    return load_model(
        EngineConfig(
            path, device="cpu", numerics=numerics, backend=backend, page_size=_PAGE, num_pages=pages, threads=threads
        )
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Perplexity of exact against reference numerics.")
    parser.add_argument("--model", type=Path, help="default: the default model of `headrace models`")
    parser.add_argument("--backend", choices=("torch", "cpu"), default="torch", help="of the exact numerics")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=20_000, help="of each text, at least")
    parser.add_argument("--texts", type=names(source.name for source in SOURCES), help="default: all")
    parser.add_argument("--output", type=Path, default=FOLDER / "perplexity.json")
    options = parser.parse_args()
    path = model_path(options.model)
    reference = load(path, "reference", "torch", options.threads)
    exact = load(path, "exact", options.backend, options.threads)
    figures: list[Figure] = []
    for source in SOURCES:
        if options.texts and source.name not in options.texts:
            continue
        text = read(source)
        if text is None:
            say(f"{source.name}: its package cannot be had here ({source.origin}); left out")
            continue
        began = time.perf_counter()
        figures.append(measure(source, text, reference, exact, options.tokens))
        say(f"{source.name}: {figures[-1].increase:+.2%} in {time.perf_counter() - began:.0f} s")
        result = header(path) | {
            "backend": options.backend,
            "identity": dict(exact.model.identity),
            "window": WINDOW,
            "overlap": OVERLAP,
            "texts": [asdict(figure) for figure in figures],
        }
        options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if not figures:
        return 1
    print(perplexity_table(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
