"""How long this process has been there, by the machine's word. Knows no worker."""

import os
import time
from pathlib import Path

import psutil


def process_age_s() -> float:
    """Seconds since this process was started, interpreter and imports included."""
    stat = Path("/proc/self/stat")
    if stat.exists():  # psutil adds whole seconds of boot time, and would be up to a second off
        started_ticks = int(stat.read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started_ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - float(psutil.Process().create_time())
