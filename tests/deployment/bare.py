"""An environment with nothing in it but a wheel (or an editable install) and what it declares that it needs.

The declared dependencies are linked from the environment of the tests, which was installed with the same constraints,
and each must be of a version that is declared. So a second does for what pip takes ten for.
"""

import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement


@dataclass(frozen=True, slots=True)
class Bare:
    """A fresh virtual environment in a folder."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def run(self, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """A command of this environment (`python` or one it installed), run in its folder unless told otherwise."""
        path = [str(self.folder / "bin" / command[0]), *command[1:]]
        options = {"cwd": self.folder, "env": {"PATH": "/usr/bin:/bin", "HOME": str(self.folder)}, **options}
        return subprocess.run(path, capture_output=True, text=True, timeout=60, check=False, **options)

    def lacks(self, *modules: str) -> list[str]:
        """Those of the modules that cannot be imported there."""
        ask = "import sys; from importlib.util import find_spec; print(*(m for m in sys.argv[1:] if not find_spec(m)))"
        return self.run("python", "-c", ask, *modules).stdout.split()


def install(folder: Path, *what: str, extras: Sequence[str] = ()) -> Bare:
    """A new environment with one install of `pip install --no-deps <what>` and all that it declares with `extras`."""
    venv.EnvBuilder(symlinks=True, with_pip=False).create(folder)
    bare = Bare(folder)
    pip("--python", str(bare.python), "install", "--quiet", "--no-deps", *what)
    (site,) = folder.glob("lib/python*/site-packages")
    (installed,) = site.glob("headrace-*.dist-info")
    for needed in _needed(PathDistribution(installed), extras, set()):
        _link(needed, site)
    return bare


def pip(*arguments: str) -> None:
    """The pip of the tests' environment. Raises AssertionError with what it says."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def _needed(dist: Distribution, extras: Sequence[str], seen: set[str]) -> Iterator[Distribution]:
    """Every distribution that `dist` declares with these extras, and those that they do, once each."""
    for text in dist.requires or ():
        requirement = Requirement(text)
        marked = requirement.marker
        if marked and not any(marked.evaluate({"extra": extra}) for extra in (*extras, "")):
            continue
        name = f"{requirement.name.lower()}{sorted(requirement.extras)}"
        if name in seen:
            continue
        seen.add(name)
        found = distribution(requirement.name)
        assert requirement.specifier.contains(found.version, prereleases=True), f"{text}: {found.version} is here"
        yield found
        yield from _needed(found, sorted(requirement.extras), seen)


def _link(dist: Distribution, site: Path) -> None:
    assert dist.files, f"{dist.name} lists no files"
    for file in dist.files:
        target = site / file
        if file.parts[0] == ".." or target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(Path(str(dist.locate_file(file))))
