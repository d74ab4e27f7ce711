"""Reads a Dockerfile and the .dockerignore as far as ours use them: stages, instructions, which files a COPY takes."""

import json
import re
import shlex
import shutil
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Stage:
    """One FROM and what follows: (instruction, its text) in order."""

    name: str
    base: str
    lines: tuple[tuple[str, str], ...]

    def all(self, instruction: str) -> list[str]:
        return [text for name, text in self.lines if name == instruction]

    def last(self, instruction: str) -> str:
        return self.all(instruction)[-1]

    def command(self, instruction: str) -> list[str]:
        """The exec form of an instruction. Raises ValueError for a shell's."""
        words: list[str] = json.loads(self.last(instruction)[self.last(instruction).index("[") :])
        return words

    def variables(self) -> dict[str, str]:
        return dict(word.split("=", 1) for text in self.all("ENV") for word in shlex.split(text))

    def copied(self) -> list[str]:
        """Sources that come from the build context, not from another stage."""
        lists = [shlex.split(text) for text in self.all("COPY") if "--from=" not in text]
        return [source for words in lists for source in words[:-1]]


def stages(path: Path) -> dict[str, Stage]:
    """The stages by name (a nameless one by its number); one built on another has that one's lines first."""
    found: dict[str, Stage] = {}
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(None, map(str.strip, text.splitlines())):
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            name = name or str(len(found))
            below = found[base].lines if base in found else ()
            found[name] = Stage(name, found[base].base if base in found else base, below)
        else:
            stage = found[name]
            found[name] = Stage(stage.name, stage.base, (*stage.lines, (instruction, rest.strip())))
    return found


def copy(sources: list[str], target: Path) -> list[Path]:
    """Put what COPY would take from the context into a folder, and answer it."""
    taken = []
    for source in sources:
        path = ROOT / source
        for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
            inside = file.relative_to(ROOT)
            if sent(PurePosixPath(inside)):
                (target / inside).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target / inside)
                taken.append(inside)
    return taken


def sent(path: PurePosixPath) -> bool:
    """Whether the context has a file: the last pattern that fits it or a folder above it decides."""
    answer = True
    for pattern in (ROOT / ".dockerignore").read_text().splitlines():
        glob = pattern.removeprefix("!")
        if glob and glob[0] != "#" and any(_fits(part, glob) for part in (path, *path.parents[:-1])):
            answer = pattern.startswith("!")
    return answer


def _fits(path: PurePosixPath, glob: str) -> bool:
    return fnmatch(path.name, glob[3:]) if glob.startswith("**/") else fnmatch(str(path), glob)
