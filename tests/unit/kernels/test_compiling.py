"""Compiled code is kept under a name for all files that it was made of, and somewhere even where nobody may write."""

import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("numba")

from kernels.cpu.compiling import SOURCES, keep_in, kept_in, name_of


@pytest.fixture(autouse=True)
def restored_folder() -> Iterator[None]:
    before = kept_in().parent
    yield
    keep_in(before)


def test_a_change_in_any_file_is_another_name(tmp_path: Path) -> None:
    caller, called = tmp_path / "caller.py", tmp_path / "called.py"
    caller.write_text("from called import f")
    called.write_text("def f(): return 1")
    before = name_of(tmp_path)
    called.write_text("def f(): return 2")
    assert name_of(tmp_path) != before
    called.write_text("def f(): return 1")
    assert name_of(tmp_path) == before


def test_code_is_kept_under_that_name_even_where_nobody_said_where(tmp_path: Path) -> None:
    assert kept_in().name == f"compiled-{SOURCES}", "when the kernels are imported"
    keep_in(tmp_path / "new")
    assert kept_in() == tmp_path / "new" / f"compiled-{SOURCES}"


def test_where_nothing_more_fits_a_folder_of_this_process_will_do(tmp_path: Path) -> None:
    """Of a disk that is full up to the last byte, as a limit on what this process may write has it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handled = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        keep_in(tmp_path / "full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handled)
    assert tmp_path not in kept_in().parents


def test_where_nothing_can_be_kept_a_folder_of_this_process_will_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    keep_in(tmp_path / "file" / "folder")
    assert tmp_path not in kept_in().parents
    assert kept_in().parent.is_dir()
