"""A GGUF of a repository on a hub → the models folder, by huggingface_hub. Knows its cache and its errors.

huggingface_hub is an extra and is imported when used. It reads HF_ENDPOINT, HF_TOKEN and the proxies by itself.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from headrace.contract.errors import SetupError
from headrace.models.folder import Pin, Progress, need_gguf, need_space, sha256_of, size_of
from headrace.models.names import OnHub

CACHE = "hub"
_ANSWER_S = 15.0
_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A GGUF of a repository; `sha256` is empty where the hub does not say."""

    name: str
    size: int
    sha256: str


def fetch(source: OnHub, models_dir: Path, progress: Progress, *, force: bool = False, endpoint: str = "") -> Pin:
    """Resolve the revision to a commit, choose the file, download and check it. `endpoint` is another hub's URL.

    A download that is cut goes on where it was. Raises SetupError: no such repository, revision or file, gated, several
    files that could be meant, no network, no space, other content than the hub says.
    """
    hub = _library()
    api = hub.HfApi(endpoint=endpoint or None)
    with _explained(hub, source):
        info = api.model_info(source.repo, revision=source.revision, files_metadata=True, timeout=_ANSWER_S)
    chosen = choose([_remote(item) for item in info.siblings or ()], source)
    models_dir.mkdir(parents=True, exist_ok=True)
    _clear_leftovers(models_dir / CACHE, source)
    need_space(models_dir, chosen.size)
    with _explained(hub, source):
        pointer = hub.hf_hub_download(
            source.repo,
            chosen.name,
            revision=info.sha,
            cache_dir=models_dir / CACHE,
            force_download=force,
            endpoint=api.endpoint,
            tqdm_class=_bar(progress, chosen.size),
        )
    path = Path(pointer)
    progress("checking", 0, chosen.size)
    found = sha256_of(path)
    if chosen.sha256 and found != chosen.sha256:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise SetupError(
            f"{chosen.name} of {source.repo} arrived damaged: sha256 {found[:12]}…, and the hub says"
            f" {chosen.sha256[:12]}….",
            next_step="Nothing was installed; pull again.",
        )
    need_gguf(path, f"{chosen.name} of {source.repo}")
    file = path.relative_to(models_dir).as_posix()
    return Pin(source.name, source.id, file, size_of(path) or 0, found, info.sha, _licence(info))


def choose(files: Sequence[RemoteFile], source: OnHub) -> RemoteFile:
    """The one GGUF that is meant: by file name or quantisation, or the only one there is. Raises SetupError."""
    ggufs = [file for file in files if file.name.lower().endswith(".gguf") and "mmproj" not in file.name.lower()]
    if not ggufs:
        raise SetupError(
            f"{source.repo} has no GGUF file.",
            next_step="This version loads GGUF only; look for a repository whose name ends in -GGUF.",
        )
    found = [file for file in ggufs if _is_meant(file.name, source.wanted)]
    if len(found) != 1:
        shown = ", ".join(file.name for file in (found or ggufs)[:12])
        said = f"{source.wanted!r} names {len(found)}" if source.wanted else "No one is named"
        raise SetupError(
            f"{said} of the GGUF files of {source.repo}: {shown}.",
            next_step=f"Say which, by its name or quantisation: hf:{source.repo}:Q8_0, for instance.",
        )
    if _PART.search(found[0].name):
        raise SetupError(
            f"{found[0].name} of {source.repo} is a part of a model.", next_step="This version loads single files only."
        )
    return found[0]


def _is_meant(name: str, wanted: str) -> bool:
    """By the whole path, the last part of it, or a quantisation between separators: Q4_K is not Q4_K_M."""
    if not wanted or wanted in (name, name.rpartition("/")[2]):
        return True
    return re.search(rf"(?:^|[-./]){re.escape(wanted)}(?=[-./])", name, re.IGNORECASE) is not None


def _library() -> Any:
    try:
        hub = import_module("huggingface_hub")
    except ImportError as error:
        raise SetupError(
            "Models of a hub need huggingface_hub.", next_step="Run: pip install 'headrace[hf]'"
        ) from error
    hub.logging.set_verbosity_error()  # it warns of each connection that it mends
    return hub


def _remote(item: Any) -> RemoteFile:
    return RemoteFile(item.rfilename, item.size or 0, item.lfs.sha256 if item.lfs else "")


def _licence(info: Any) -> str:
    tags = (tag.partition(":")[2] for tag in info.tags or () if tag.startswith("license:"))
    return next(tags, "")


def _clear_leftovers(cache: Path, source: OnHub) -> None:
    """What pulls of this repository left that were killed; under its lock nobody else writes there."""
    for part in (cache / f"models--{source.repo.replace('/', '--')}" / "blobs").glob("*.incomplete"):
        part.unlink(missing_ok=True)


def _bar(progress: Progress, size: int) -> type:
    """What huggingface_hub reports to, as a class that it makes its bars of."""
    tqdm: Any = import_module("tqdm").tqdm

    class Bar(tqdm):  # type: ignore[misc]  # a class that is only known when the extra is there
        monitor_interval = 0  # no thread of its own

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "file": io.StringIO()})

        def update(self, n: float | None = 1) -> bool | None:
            drawn: bool | None = super().update(n)
            progress("fetching", int(self.n), size)
            return drawn

    return Bar


@contextmanager
def _explained(hub: Any, source: OnHub) -> Iterator[None]:
    """What the library says, as one line with a next step."""
    errors, what = hub.errors, source.repo
    try:
        yield
    except errors.GatedRepoError as error:
        raise SetupError(
            f"{what} is gated.", next_step="Accept its terms on the hub, and set HF_TOKEN to a token of yours."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise SetupError(f"{what} has no revision {source.revision!r}.", next_step="Check it on the hub.") from error
    except errors.RepositoryNotFoundError as error:
        raise SetupError(
            f"There is no repository {what} on the hub, or it is private.",
            next_step="Check the name; for a private one set HF_TOKEN.",
        ) from error
    except errors.HFValidationError as error:
        raise SetupError(f"{what} cannot be a repository: {error}", next_step="Write hf:org/name.") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no answer"
        raise SetupError(f"The hub refused {what}: {status}.", next_step="Pull again later.") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the file system
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise SetupError(
            f"{what} could not be fetched from the hub: {reason[:300]}.",
            next_step="Check the network, the proxy and HF_ENDPOINT, then pull again; or use file:<path>.",
        ) from error
