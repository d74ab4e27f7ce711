"""Identifiers: how a job and a worker are named. Knows the shapes, not who asks."""

import os
import re
import secrets
import socket

from ulid import ULID

_JOB_ID = re.compile(r"job_[0-7][0-9a-hjkmnp-tv-z]{25}")  # a ULID has 128 bits: its first digit is at most 7


def new_job_id() -> str:
    """`job_<ulid>`, lower case: sorts by time of birth."""
    return f"job_{str(ULID()).lower()}"


def is_job_id(text: str) -> bool:
    """Whether a text from outside may be put into a key."""
    return _JOB_ID.fullmatch(text) is not None


def born_ms(job_id: str) -> int:
    """When a job's id was made, in milliseconds of the clock of the process that made it."""
    return int(ULID.from_str(job_id.removeprefix("job_").upper()).milliseconds)


def worker_id(tag: str = "", pid: int | None = None) -> str:
    """`w_<host>_<pid>_<tag>`; a supervisor that gives the tag can name the worker by its pid."""
    return f"{worker_prefix()}{os.getpid() if pid is None else pid}_{tag or secrets.token_hex(4)}"


def worker_prefix() -> str:
    """What the ids of all workers on this host begin with."""
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:40]
    return f"w_{host}_"
