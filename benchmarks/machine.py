"""Where and when a figure was measured: processor, cores, kernel, commit, what else was running. Knows no engine."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
_ISA: Final = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16")


def machine() -> dict[str, object]:
    """What identifies this machine, and its load over the last minute."""
    facts = _cpu_facts()
    flags = facts.get("flags", "").split()
    return {
        "cpu": facts.get("model name") or platform.processor() or platform.machine(),
        "cores": cores(),
        "isa": [name for name in _ISA if name in flags],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load_1min": round(os.getloadavg()[0], 2),
    }


def cores() -> int:
    """Those this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def commit() -> str:
    """The checkout's commit, with a + where files differ from it; "unknown" outside a checkout."""
    found = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", "engine", "kernels", "headrace", "workers")
    return f"{found}+" if found and changed else found or "unknown"


def today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:  # no git: a result without a commit is still a result
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _cpu_facts() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return {}
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}
