"""How many cores there are for this process; knows nothing of who uses them."""

import os


def available_cores() -> int:
    """Those that it may run on, where the system says, else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
