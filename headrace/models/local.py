"""Which models are on this machine: a name → its file, without a network. Knows the folder and the pinned checksums."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from headrace.contract.errors import SetupError
from headrace.models.catalogue import CATALOGUE, Entry
from headrace.models.folder import Pin, explained, pins, read_pin, sha256_of, size_of
from headrace.models.names import InBucket, LocalFile, OnHub, Packaged, parse


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model that is on this machine: `id` is what clients call it."""

    id: str
    path: Path


@dataclass(frozen=True, slots=True)
class Listing:
    """One row of `headrace models list`. `revision` is the commit or ETag of what was pulled by its own name."""

    name: str
    id: str
    path: Path
    pulled: bool
    size: int
    sha256: str
    licence: str
    revision: str = ""


def resolve(name: str, models_dir: Path, catalogue: Mapping[str, Entry] = CATALOGUE) -> ModelFile:
    """The file of a model, as `names` reads it.

    Raises SetupError with the next step: unknown name, not pulled yet, no such file, damaged.
    """
    source = parse(name, catalogue)
    if isinstance(source, LocalFile):
        if not source.path.exists():
            raise SetupError(
                f"There is no file or folder {source.path}.",
                next_step="Give the path of a GGUF file or of a folder with safetensors after file:",
            )
        return ModelFile(source.id, source.path.resolve())
    path, size, _ = _pulled(name, source, models_dir)
    found = size_of(path)
    if found is None:
        raise _not_here(name)
    if found != size:
        raise SetupError(
            f"{path} has {found} bytes, and {name} has {size}: it is damaged.",
            next_step=f"Run: headrace models pull {name}",
        )
    return ModelFile(source.id, path)


def is_here(name: str, models_dir: Path, catalogue: Mapping[str, Entry] = CATALOGUE) -> bool:
    """Whether `resolve` would find it. Raises SetupError for what is no name."""
    source = parse(name, catalogue)
    if isinstance(source, LocalFile):
        return source.path.exists()
    if isinstance(source, Packaged):
        return size_of(path_of(source.entry, models_dir)) == source.entry.size
    pin = read_pin(models_dir, source.name)
    return pin is not None and size_of(models_dir / pin.file) == pin.size


def listing(models_dir: Path, catalogue: Mapping[str, Entry] = CATALOGUE) -> list[Listing]:
    """Every model of the catalogue, and whatever else was pulled."""
    rows = [_catalogue_row(entry, path_of(entry, models_dir)) for entry in catalogue.values()]
    return rows + [_pinned_row(pin, models_dir / pin.file) for pin in pins(models_dir)]


def path_of(entry: Entry, models_dir: Path) -> Path:
    """Where the file of a catalogue entry lies once it is pulled."""
    return models_dir / f"{entry.id}.gguf"


def verify(name: str, models_dir: Path, catalogue: Mapping[str, Entry] = CATALOGUE) -> ModelFile:
    """Read the whole file and compare its checksum. Raises SetupError when it is not the pinned one."""
    model, source = resolve(name, models_dir, catalogue), parse(name, catalogue)
    if isinstance(source, LocalFile):
        raise SetupError(f"{name} is a file of your own, so no checksum is pinned for it.")
    _, _, sha256 = _pulled(name, source, models_dir)
    with explained(models_dir):
        found = sha256_of(model.path)
    if found != sha256:
        raise SetupError(
            f"{model.path} is damaged: its sha256 is {found[:12]}…, the pinned one {sha256[:12]}….",
            next_step=f"Run: headrace models pull --force {name}",
        )
    return model


def _pulled(name: str, source: Packaged | OnHub | InBucket, models_dir: Path) -> tuple[Path, int, str]:
    """Path, size and checksum of what was pulled, or would be."""
    if isinstance(source, Packaged):
        return path_of(source.entry, models_dir), source.entry.size, source.entry.sha256
    pin = read_pin(models_dir, source.name)
    if pin is None:
        raise _not_here(name)
    return models_dir / pin.file, pin.size, pin.sha256


def _not_here(name: str) -> SetupError:
    return SetupError(f"The model {name} is not on this machine yet.", next_step=f"Run: headrace models pull {name}")


def _catalogue_row(entry: Entry, path: Path) -> Listing:
    return Listing(entry.id, entry.id, path, size_of(path) == entry.size, entry.size, entry.sha256, entry.licence)


def _pinned_row(pin: Pin, path: Path) -> Listing:
    here = size_of(path) == pin.size
    return Listing(pin.name, pin.id, path, here, pin.size, pin.sha256, pin.licence, pin.revision)
