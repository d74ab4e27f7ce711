"""The data folder: one owner, and a clear word when it cannot be had."""

import subprocess
import sys
from pathlib import Path

import pytest

from headrace.contract.errors import SetupError
from headrace.supervisor.data_folder import DataFolder

HOLD = "import sys; from pathlib import Path; from headrace.supervisor.data_folder import DataFolder\n"
HOLD += "folder = DataFolder(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"


def test_a_second_owner_is_told_who_holds_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "data")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(SetupError, match=f"process {holder.pid}"):
            DataFolder(tmp_path / "data", wait_s=0.1)
        holder.kill()
        holder.wait()
        DataFolder(tmp_path / "data").close()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where a folder should be")
    with pytest.raises(SetupError) as caught:
        DataFolder(tmp_path / "data")
    assert "--data-dir" in caught.value.explain()


def test_a_full_disk_is_said_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="MB free"):
        DataFolder(tmp_path, least_free=1 << 62)
