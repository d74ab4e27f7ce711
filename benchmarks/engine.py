"""How long the engine's steps take, by rows and threads, and how fast it reads prompts. Knows no fleet and no peers.

    python -m benchmarks.engine [--model PATH] [--rounds 3]

Thread counts take turns within each round, so that a noisy minute hits all of them. Writes results/engine-cpu.json
and prints the medians.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from engine import Engine, EngineConfig, SamplingParams

RESULTS = Path(__file__).parent / "results" / "engine-cpu.json"
ROWS = (1, 8, 32)
PROMPT, NEW, LONG_PROMPT = 128, 24, 1000


def machine() -> dict[str, Any]:
    """Where and with what this was measured."""
    model = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "cpu": model[0] if model else platform.processor(),
        "cores": os.cpu_count(),
        "isa": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": commit.stdout.strip(),
    }


def decode_ms(engine: Engine, rows: int) -> float:
    """Median milliseconds of the steps in which all `rows` decode."""
    steps = []
    params = SamplingParams(max_tokens=NEW, temperature=0, ignore_eos=True)
    for row in range(rows):
        engine.add_request(f"{row}", [(row * 131 + i * 17) % 40_000 + 100 for i in range(PROMPT)], params)
    while engine.has_unfinished:
        stats = engine.step().stats
        if stats.decode_rows == rows:
            steps.append(stats.seconds)
    return statistics.median(steps) * 1000


def prefill_tokens_per_second(engine: Engine) -> float:
    prompt = [(i * 17) % 40_000 + 100 for i in range(LONG_PROMPT)]
    began = time.perf_counter()
    engine.generate([prompt], SamplingParams(max_tokens=1, temperature=0, ignore_eos=True))
    return LONG_PROMPT / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path.home() / ".cache/headrace/models/smollm2-135m-instruct.gguf")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="*", default=sorted({1, os.cpu_count() or 1}))
    args = parser.parse_args()
    began = time.perf_counter()
    engine = Engine(EngineConfig(model=args.model))
    found: dict[str, list[float]] = defaultdict(list)
    found["load_s"].append(time.perf_counter() - began)
    for _ in range(args.rounds):
        for threads in args.threads:
            torch.set_num_threads(threads)
            found[f"prefill_tokens_per_s/threads={threads}"].append(prefill_tokens_per_second(engine))
            for rows in ROWS:
                found[f"decode_ms/rows={rows}/threads={threads}"].append(decode_ms(engine, rows))
    figures = {
        name: {"median": round(statistics.median(v), 2), "all": [round(x, 2) for x in v]} for name, v in found.items()
    }
    RESULTS.write_text(
        json.dumps({"model": args.model.name, "machine": machine(), "figures": figures}, indent=1) + "\n"
    )
    for name, figure in figures.items():
        print(f"{name:40} {figure['median']}")


if __name__ == "__main__":
    main()
