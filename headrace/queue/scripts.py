"""The Lua scripts as they are sent to the server: each verb with the routines it stands on. Knows no arguments."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

PARTS: Mapping[str, tuple[str, ...]] = {
    "accept": ("base", "events", "queueing", "accept"),
    "claim": ("base", "events", "queueing", "ending", "claim"),
    "renew": ("base", "renew"),
    "append": ("base", "events", "append"),
    "retry": ("base", "events", "queueing", "ending", "history", "fallback", "retry"),
    "finish": ("base", "events", "queueing", "ending", "finish"),
    "release": ("base", "queueing", "release"),
    "cancel": ("base", "events", "queueing", "ending", "cancel"),
    "reap": ("base", "events", "queueing", "ending", "history", "reap"),
}
"""Files of `lua/`, in the order in which they are joined."""


@dataclass(frozen=True, slots=True)
class Script:
    source: str
    sha: str


def _join(parts: tuple[str, ...]) -> Script:
    folder = files(__package__).joinpath("lua")
    source = "\n".join(folder.joinpath(f"{part}.lua").read_text(encoding="utf-8") for part in parts)
    return Script(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


SCRIPTS: Mapping[str, Script] = {verb: _join(parts) for verb, parts in PARTS.items()}
