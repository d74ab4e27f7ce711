"""How functions are compiled that belong together but stand in several files, where numba keeps what it compiled, and
what it compiles for.

By itself numba compiles a function anew when its own file has changed, but not for a file that it calls into. So it
keeps everything in a folder that is named after all files of this package.
"""

import atexit
import contextlib
import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

import llvmlite
import numba
from llvmlite import binding
from numba import cfunc, njit, types
from numba.core import config

_ROOM: Final = 8 << 20  # bytes: twice what is kept of all functions
_MEMORY: Final = "/dev/shm"
_SETTINGS: Any = config  # which its own types know little of
inlined: Any = njit(error_model="numpy", forceinline=True)
"""Too small to be called."""
_BARE: Any = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}  # which numba's own types know nothing of
compiled: Any = njit(error_model="numpy", **_BARE)
"""Called by compiled code alone: wrappers for anybody else take a quarter of the time."""
merged: Any = njit(error_model="numpy", inline="always")
"""Becomes a part of its one caller, or of its few: numba would optimise it by itself, and again within each function
above it, which made the first start a third longer."""
entry: Any = njit(error_model="numpy", nogil=True, cache=True)
"""Called from Python, and kept together with all that it calls."""


def addressed(parameters: int) -> Any:
    """Called by its address, with so many whole numbers: compiled when its file is imported, and kept. A CPU without
    its instructions has it as it stands, because LLVM would end the process."""
    signature = types.void(*(types.int64,) * parameters)
    return cfunc(signature, cache=True) if has_vnni() else lambda function: function


def has_vnni() -> bool:
    """Whether this CPU has the instructions that the fused step is made of."""
    return bool(binding.get_host_cpu_features().get("avx512vnni", False))


def name_of(sources: Path) -> str:
    """Names what is in the Python files of a folder."""
    contents = hashlib.sha256()
    for file in sorted(sources.glob("*.py")):
        contents.update(file.read_bytes())
    return contents.hexdigest()[:16]


SOURCES: Final = name_of(Path(__file__).parent)


def versions() -> dict[str, str]:
    """Of all that turns these sources into instructions."""
    return {"numba": numba.__version__, "llvmlite": llvmlite.__version__}


def keep_by_default() -> None:
    """Where numba was told to keep compiled code, else beside what was compiled."""
    keep_in(Path(_SETTINGS.CACHE_DIR or Path(__file__).with_name("__pycache__")))


def keep_in(folder: Path) -> None:
    """Where to keep functions whose files are imported from now on: in there, or, where nobody may write or nothing
    more fits, in a folder of this process, because numba refuses to compile what it is told to keep and cannot."""
    kept = folder / f"compiled-{SOURCES}"
    if not _has_room(kept):
        own = tempfile.mkdtemp(prefix="headrace-compiled-", dir=_elsewhere())
        atexit.register(shutil.rmtree, own, ignore_errors=True)
        kept = Path(own) / kept.name
    _SETTINGS.CACHE_DIR = str(kept)


def _elsewhere() -> str:
    """Where temporary files lie, or memory, if that is full, too."""
    with contextlib.suppress(OSError):  # where nothing takes a single byte, there is no such place
        if _has_room(Path(tempfile.gettempdir())):
            return tempfile.gettempdir()
    return _MEMORY


def kept_in() -> Path:
    """The folder named after the sources, which need not be there yet."""
    return Path(_SETTINGS.CACHE_DIR)


def _has_room(folder: Path) -> bool:
    """Whether the folder is there, or can be made, and what is compiled fits in."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_ROOM))
            file.flush()
    except OSError:
        return False
    return True
