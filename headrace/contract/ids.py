"""Identifiers: how a job and a worker are named. Knows the shapes, not who asks."""

import os
import re
import secrets
import socket

from ulid import ULID

_JOB_ID = re.compile(r"job_[0-9a-hjkmnp-tv-z]{26}")


def new_job_id() -> str:
    """`job_<ulid>`, lower case: sorts by time of birth."""
    return f"job_{str(ULID()).lower()}"


def is_job_id(text: str) -> bool:
    """Whether a text from outside may be put into a key."""
    return _JOB_ID.fullmatch(text) is not None


def worker_id(tag: str = "", pid: int | None = None) -> str:
    """`w_<host>_<pid>_<tag>`; a supervisor that gives the tag can name the worker by its pid."""
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:40]
    return f"w_{host}_{os.getpid() if pid is None else pid}_{tag or secrets.token_hex(4)}"
