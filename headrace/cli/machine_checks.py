"""Checks of this machine: Python, packages, CPU, folders, the Redis binary. Asks no server, imports no torch."""

import platform
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from headrace import models
from headrace.cli.findings import Finding, State, failed
from headrace.contract.errors import SetupError
from headrace.supervisor.redis_server import find_binary

_LEAST_FREE = 64 << 20
_LITTLE_FREE = 1 << 30
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)[^;]*(?:;(.*))?")
_EXTRA = re.compile(r"""extra == ['"]([a-z0-9-]+)['"]""")
_CLONE = "Servers come with a clone of the repository: run `make install` there."


def python(version: tuple[int, int]) -> Finding:
    shown = ".".join(map(str, version))
    if version < (3, 11):
        return Finding("python", State.FAIL, f"Python {shown} is too old.", "Use Python 3.11 or 3.12.")
    if version > (3, 12):
        step = "Have redis-server or valkey-server on the PATH, or use Python 3.12."
        return Finding("python", State.WARN, f"For Python {shown} no package carries an embedded Redis.", step)
    return Finding("python", State.OK, f"Python {shown}.")


def installed_versions() -> dict[str, str]:
    """Every distribution here by its normalized name."""
    return {_normalized(one.name): one.version for one in metadata.distributions()}


def extras(requirements: Sequence[str], installed: Mapping[str, str]) -> Finding:
    """`requirements` as the distribution's metadata has them. Those for other machines (a marker more) do not count."""
    needed: dict[str, list[str]] = {}
    for requirement in requirements:
        match = _REQUIREMENT.match(requirement)
        extra = match and _EXTRA.fullmatch((match[2] or "").strip())
        if match and extra:
            needed.setdefault(extra[1], []).append(_normalized(match[1]))
    missing = {extra: [name for name in names if name not in installed] for extra, names in needed.items()}
    here = [extra for extra, names in missing.items() if not names]
    message = f"Installed: {', '.join(here) or 'client and command line only'}."
    servers = [extra for extra in ("gateway", "worker") if missing.get(extra)]
    if servers:
        lacking = ", ".join(name for extra in servers for name in missing[extra])
        return Finding(
            "extras", State.WARN, f"{message} Not here: {', '.join(servers)} (for want of {lacking}).", _CLONE
        )
    return Finding("extras", State.OK, message)


def torch(version: str | None, version_file: str) -> Finding:
    """`version_file` is the text of torch's version.py, which says what it was built for: importing takes seconds."""
    if version is None:
        return Finding("torch", State.WARN, "There is no torch: this machine cannot run a worker.", _CLONE)
    cuda = re.search(r"^cuda\b[^=]*= ['\"]([\d.]+)['\"]", version_file, re.MULTILINE)
    return Finding("torch", State.OK, f"torch {version}, built for {f'CUDA {cuda[1]}' if cuda else 'CPU'}.")


def installed_torch(installed: Mapping[str, str]) -> Finding:
    if "torch" not in installed:
        return torch(None, "")
    try:
        text = Path(str(metadata.distribution("torch").locate_file("torch/version.py"))).read_text("utf-8")
    except OSError:
        text = ""
    return torch(installed["torch"], text)


def cpu(cpuinfo: str, machine: str) -> Finding:
    """`cpuinfo` is /proc/cpuinfo, empty where there is none."""
    flags = set(re.findall(r"\S+", next((line for line in cpuinfo.splitlines() if line.startswith("flags")), "")))
    known = [name for name in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8") if name in flags]
    if not flags:
        return Finding("cpu", State.OK, f"{machine}; what it can do is not told here.")
    if not flags & {"avx512_vnni", "avx_vnni"}:
        return Finding(
            "cpu",
            State.WARN,
            f"{machine} with {', '.join(known) or 'no vector extension we use'}, no VNNI: exact products are slow.",
            "Use a CPU with AVX512-VNNI or AVX-VNNI where speed matters.",
        )
    return Finding("cpu", State.OK, f"{machine} with {', '.join(known)}.")


def this_cpu() -> Finding:
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", errors="replace")
    except OSError:
        text = ""
    return cpu(text, platform.machine())


def models_folder(folder: Path, model: str) -> Finding:
    """Whether the model that a worker here would serve can be found."""
    try:
        if models.fake(model):
            return Finding("models", State.OK, "The fake engine needs no model.")
        here = [row.id for row in models.listing(folder) if row.pulled]
        models.resolve(model, folder)
    except SetupError as error:
        return failed("models", error, State.WARN)
    return Finding("models", State.OK, f"{model} is here. In {folder}: {', '.join(here) or 'nothing'}.")


def data_folder(folder: Path) -> Finding:
    """Rights and space for the queue of an embedded Redis, results and logs."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    step = "Give rights there, or choose another folder with HEADRACE_PATHS__DATA_DIR."
    if not nearest.is_dir():
        return Finding("data", State.FAIL, f"{nearest} is not a folder.", step)
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
        free = shutil.disk_usage(nearest).free
    except OSError as error:
        return Finding("data", State.FAIL, f"{folder} cannot be written: {error.strerror}.", step)
    if free < _LITTLE_FREE:
        state = State.FAIL if free < _LEAST_FREE else State.WARN
        return Finding(
            "data", state, f"{folder} has {free >> 20} MB free.", "Free some space, or choose another folder."
        )
    return Finding("data", State.OK, f"{folder} can be written, {free >> 30} GB free.")


def redis_binary(url: str) -> Finding:
    """Needed only where no Redis is given."""
    try:
        return Finding("redis-server", State.OK, f"{find_binary()}.")
    except SetupError as error:
        if url:
            return Finding("redis-server", State.OK, "None here, and none is needed: a Redis is given.")
        return failed("redis-server", error)


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
