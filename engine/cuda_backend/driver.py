"""Whether an NVIDIA driver is installed, asked without torch, whose import takes two seconds of a start."""

import ctypes
from typing import Final

_LIBRARIES: Final = ("libcuda.so.1", "nvcuda.dll")


def has_driver() -> bool:
    """True where a driver can be loaded; whether it has a device is torch's to say."""
    return any(_loads(name) for name in _LIBRARIES)


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True
