"""Blobs in a folder that all processes of a fleet see. Knows files; a blob's first line holds its size and checksum.

    headrace-blob 1 <sha256> <bytes, 20 digits>\\n<the bytes>

The line has one length, so it can be written last, when the bytes are known, and `tail -n +2` shows what is inside.
"""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from headrace.contract.errors import BlobDamaged, BlobNotFound, BlobsUnavailable
from headrace.store.blobs import Blob, Source, check_key, check_prefix, chunks_of, verified

_CHUNK = 1 << 20
_MAGIC = b"headrace-blob 1 "
_HEAD = len(_MAGIC) + 64 + 1 + 20 + 1
_PARTS = ".parts"  # no key begins with a dot
_LEFT_OVER_S = 24 * 3600.0


class FolderBlobs:
    """A `BlobStore` on a file system with atomic renames and links. The folder is made by the first put."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._clear_parts()

    def put(self, key: str, source: Source) -> None:
        path = self.path_of(key)
        with self._explained(), self._part(path, source) as part:
            os.replace(part, path)
            _sync_folder(path.parent)

    def put_if_absent(self, key: str, source: Source) -> bool:
        path = self.path_of(key)
        with self._explained():
            if path.exists():
                return False
            with self._part(path, source) as part:
                try:
                    os.link(part, path)
                except FileExistsError:
                    return False
                _sync_folder(path.parent)
        return True

    def read(self, key: str) -> Iterator[bytes]:
        with self._explained(), self._opened(key) as file:
            size, sha256 = _head(key, file)
            yield from verified(key, iter(lambda: file.read(_CHUNK), b""), size, sha256)

    def find(self, key: str) -> Blob | None:
        with self._explained():
            try:
                return self._blob(check_key(key))
            except FileNotFoundError:
                return None

    def delete(self, key: str) -> None:
        path = self.path_of(key)
        with self._explained():
            path.unlink(missing_ok=True)

    def listing(self, prefix: str = "") -> Iterator[Blob]:
        """Each folder is read once."""
        with self._explained():
            for key in self._keys(check_prefix(prefix).rpartition("/")[0], prefix):
                with suppress(FileNotFoundError):  # deleted since
                    yield self._blob(key)

    def path_of(self, key: str) -> Path:
        """Where a blob lies."""
        return self._root / check_key(key)

    def _blob(self, key: str) -> Blob:
        stat = (self._root / key).stat()
        return Blob(key, max(0, stat.st_size - _HEAD), stat.st_mtime_ns // 1_000_000)

    def _keys(self, folder: str, prefix: str) -> Iterator[str]:
        """Of one folder and those below it, by key: a folder sorts with the slash that its keys have there."""
        inside = f"{folder}/" if folder else ""
        try:
            with os.scandir(self._root / folder) as entries:
                names = sorted(f"{inside}{each.name}{'/' if each.is_dir() else ''}" for each in entries)
        except FileNotFoundError:
            return
        for name in names:
            if name[len(inside)] == ".":
                continue
            if not name.endswith("/"):
                if name.startswith(prefix):
                    yield name
            elif name.startswith(prefix) or prefix.startswith(name):
                yield from self._keys(name[:-1], prefix)

    @contextmanager
    def _opened(self, key: str) -> Iterator[BinaryIO]:
        try:
            file = self.path_of(key).open("rb")
        except FileNotFoundError:
            if not self._root.is_dir():  # a volume that is not mounted is no loss of what is on it
                raise
            raise BlobNotFound(f"There is no blob {key} in {self._root}.") from None
        with file:
            yield file

    @contextmanager
    def _part(self, path: Path, source: Source) -> Iterator[Path]:
        """The whole blob on the disk under a name of its own, on the same file system; gone afterwards."""
        _make_folder(path.parent)
        parts = self._root / _PARTS
        parts.mkdir(exist_ok=True)
        part = parts / secrets.token_hex(8)
        try:
            with part.open("xb") as file:
                _write(file, source)
                file.flush()
                os.fsync(file.fileno())
            yield part
        finally:
            part.unlink(missing_ok=True)

    def _clear_parts(self) -> None:
        """What writers left that were killed a day before the last put: told by the clock that dates both, since a host
        with another would take away what others are just writing."""
        with suppress(OSError):
            last_put = (self._root / _PARTS).stat().st_mtime
            for part in (self._root / _PARTS).iterdir():
                if last_put - part.stat().st_mtime > _LEFT_OVER_S:
                    part.unlink(missing_ok=True)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BlobsUnavailable(
                f"The blob folder {self._root} cannot be used: {error.strerror or error}.",
                next_step="Free space, give rights or mount it there.",
            ) from error


def _write(file: BinaryIO, source: Source) -> None:
    digest, size = hashlib.sha256(), 0
    file.write(bytes(_HEAD))
    for chunk in chunks_of(source):
        digest.update(chunk)
        size += len(chunk)
        file.write(chunk)
    file.seek(0)
    file.write(b"%s%s %020d\n" % (_MAGIC, digest.hexdigest().encode(), size))


def _head(key: str, file: BinaryIO) -> tuple[int, str]:
    """Size and checksum as they were put."""
    head = file.read(_HEAD)
    sha256, _, size = head.removeprefix(_MAGIC).rstrip(b"\n").partition(b" ")
    if len(head) != _HEAD or not head.startswith(_MAGIC) or not size.isdigit():
        raise BlobDamaged(f"The blob {key} is damaged: it does not begin as one.", next_step="What it held is lost.")
    return int(size), sha256.decode("ascii", "replace")


def _make_folder(folder: Path) -> None:
    """With its entry in the folder above on the disk too, else a rename into it would not be."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
