"""Real texts to measure quality on: where each comes from and under which licence. Knows pip, apt and files, no model.

Nothing of them is kept in the repository: they are fetched once, into a folder of the user's cache.
"""

import gzip
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CACHE: Final = Path.home() / ".cache" / "headrace" / "texts"
_BROTLI: Final = "Brotli==1.2.1"


@dataclass(frozen=True, slots=True)
class Source:
    """One text; `fetch` gives it, or None where its package cannot be had on this machine."""

    name: str
    kind: str
    origin: str
    licence: str
    fetch: Callable[[], str | None]


def read(source: Source) -> str | None:
    """The text, from the cache when it has been fetched before."""
    path = CACHE / f"{source.name}.txt"
    if not path.exists():
        text = source.fetch()
        if text is None:
            return None
        CACHE.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return path.read_text(encoding="utf-8")


def _from_brotli(member: str) -> Callable[[], str | None]:
    """A file that the Brotli sources carry as test data."""

    def fetch() -> str | None:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:", _BROTLI]
            if not _runs([*command, "--no-build-isolation"], folder):
                return None
            archive = next(Path(folder).glob("*.tar.gz"))
            with tarfile.open(archive) as files:
                name = next(name for name in files.getnames() if name.endswith(f"/testdata/{member}"))
                content = files.extractfile(name)
                assert content is not None
                return _flowing(content.read().decode("latin-1"))

    return fetch


def _from_debian(package: str, member: str) -> Callable[[], str | None]:
    """A compressed text of a Debian package, which is unpacked and not installed."""

    def fetch() -> str | None:
        if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
            return None
        with tempfile.TemporaryDirectory() as folder:
            if not _runs(["apt-get", "download", package], folder):
                return None
            archive = next(Path(folder).glob("*.deb"))
            if not _runs(["dpkg-deb", "--extract", archive.name, "."], folder):
                return None
            return _flowing(gzip.decompress((Path(folder) / member).read_bytes()).decode("utf-8"))

    return fetch


def _standard_library() -> str:
    """Modules of this Python, whole, in order of their names."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    modules = ("argparse", "dataclasses", "functools", "heapq", "ipaddress", "shlex", "statistics", "textwrap")
    return "\n\n".join((folder / f"{name}.py").read_text(encoding="utf-8") for name in modules)


def _flowing(text: str) -> str:
    """Paragraphs on lines of their own: a model should not be asked where a typesetter broke a line."""
    paragraphs = re.split(r"\n\s*\n", text.replace("\r", ""))
    joined = (" ".join(line.strip() for line in paragraph.splitlines()) for paragraph in paragraphs)
    return "\n\n".join(line for line in joined if len(line) > 1)


def _runs(command: list[str], folder: str) -> bool:
    return subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 0


_REFERENCE: Final = "usr/share/debian-reference/debian-reference.{}.txt.gz"
_GPL: Final = "GPL-2.0-or-later"

SOURCES: Final = (
    Source(
        "fiction",
        "English fiction",
        f"Alice's Adventures in Wonderland, test data of {_BROTLI} (alice29.txt)",
        "public domain",
        _from_brotli("alice29.txt"),
    ),
    Source(
        "proceedings",
        "English prose",
        f"Workshop on Electronic Texts, Library of Congress, test data of {_BROTLI} (lcet10.txt)",
        "public domain",
        _from_brotli("lcet10.txt"),
    ),
    Source(
        "documentation",
        "technical documentation",
        "Debian Reference (package debian-reference-en)",
        _GPL,
        _from_debian("debian-reference-en", _REFERENCE.format("en")),
    ),
    Source(
        "code", "Python source", f"standard library of Python {sys.version.split()[0]}", "PSF-2.0", _standard_library
    ),
    Source(
        "french",
        "French documentation",
        "Debian Reference (package debian-reference-fr)",
        _GPL,
        _from_debian("debian-reference-fr", _REFERENCE.format("fr")),
    ),
)
