"""What people call a model → what it is and where it comes from. Knows the grammar of names; looks at no disk.

smollm2-135m-instruct                          a name of the catalogue
file:<path>                                    a GGUF file of one's own, or a folder with safetensors
hf:<org>/<repo>[@revision][:file or quant]     one GGUF of a repository on a hub
s3://<bucket>/<key>.gguf                       an object
<id>=<any of the last three>                   the same, called <id> by clients
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from headrace.contract.errors import SetupError
from headrace.models.catalogue import CATALOGUE, Entry

FILE, HUB, BUCKET, FAKE = "file:", "hf:", "s3://", "fake:"
_SCHEMES = (FILE, HUB, BUCKET, FAKE)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")  # an id becomes part of Redis keys and of lanes
_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?(?::(?P<wanted>[^:]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SUFFIX = re.compile(r"[-._]gguf$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Packaged:
    """A model of the catalogue."""

    id: str
    entry: Entry


@dataclass(frozen=True, slots=True)
class LocalFile:
    id: str
    path: Path


@dataclass(frozen=True, slots=True)
class OnHub:
    """`revision` is a branch, tag or commit; `wanted` a file of the repository, a quantisation, or '' for the one."""

    id: str
    repo: str
    revision: str = "main"
    wanted: str = ""

    @property
    def name(self) -> str:
        """Without the id: two ids of one thing share its file."""
        return f"{HUB}{self.repo}@{self.revision}" + (f":{self.wanted}" if self.wanted else "")

    @property
    def pinned(self) -> bool:
        """Whether the name itself says which commit."""
        return _COMMIT.fullmatch(self.revision) is not None


@dataclass(frozen=True, slots=True)
class InBucket:
    id: str
    bucket: str
    key: str

    @property
    def name(self) -> str:
        return f"{BUCKET}{self.bucket}/{self.key}"


Source = Packaged | LocalFile | OnHub | InBucket


def parse(name: str, catalogue: Mapping[str, Entry] = CATALOGUE) -> Source:
    """Raises SetupError: unknown name, malformed, an id that cannot be a key."""
    given_id, scheme, rest = _split(name)
    if scheme == FILE:
        path = Path(rest).expanduser()
        return LocalFile(_checked(given_id or path.stem, name), path)
    if scheme == HUB:
        found = _HUB.fullmatch(rest)
        if found is None or not all(part.strip(".") for part in found["repo"].split("/")):
            raise SetupError(
                f"{name!r} names no repository.", next_step="Write hf:org/name[@revision][:file or quant]."
            )
        last = found["repo"].rpartition("/")[2]
        model_id = given_id or _SUFFIX.sub("", last).lower()
        return OnHub(_checked(model_id, name), found["repo"], found["revision"] or "main", found["wanted"] or "")
    if scheme == BUCKET:
        bucket, _, key = rest.partition("/")
        if not bucket or not key.lower().endswith(".gguf"):
            raise SetupError(f"{name!r} names no GGUF in a bucket.", next_step="Write s3://bucket/path/model.gguf.")
        return InBucket(_checked(given_id or PurePosixPath(key).stem.lower(), name), bucket, key)
    if name not in catalogue:
        raise SetupError(
            f"There is no model called {name!r}.",
            next_step=f"Known are: {', '.join(catalogue)}; others are file:<path>, hf:<org>/<repo>[:quant],"
            " s3://<bucket>/<key>, or <id>= and one of these.",
        )
    return Packaged(name, catalogue[name])


def fake(name: str) -> tuple[str, str] | None:
    """Id and engine of `fake:<knobs>` and `<id>=fake:<knobs>`, the workers' engine without a model; None for any other
    name. Raises SetupError for an id that cannot be a key."""
    given_id, scheme, knobs = _split(name)
    if scheme != FAKE:
        return None
    return _checked(given_id or "fake", name), scheme + knobs


def is_file(name: str) -> bool:
    """Whether a name is `file:<path>` or `<id>=file:<path>`."""
    return _split(name)[1] == FILE


def _split(name: str) -> tuple[str, str, str]:
    """Given id, scheme and the rest; without a scheme ('', '', name). A path may hold an equals sign."""
    given_id, equals, rest = name.partition("=")
    for candidate, model_id in ((name, ""), (rest if equals and given_id else "", given_id)):
        for scheme in _SCHEMES:
            if candidate.startswith(scheme):
                return model_id, scheme, candidate.removeprefix(scheme)
    return "", "", name


def _checked(model_id: str, name: str) -> str:
    if not _ID.fullmatch(model_id):
        raise SetupError(
            f"{model_id!r} cannot be a model's id: letters, digits and . _ / - only.",
            next_step=f"Name it yourself: my-model={_split(name)[1]}{_split(name)[2]}",
        )
    return model_id
