"""Packed weights in a file: made once, mapped afterwards, made anew when not whole."""

import os
from pathlib import Path

import numpy as np
import pytest

from engine.cpu_backend.packing import ArrayLayout, Arrays
from engine.cpu_backend.weight_file import mapped_weights, own_weights

LAYOUT = {
    "a": ArrayLayout((3, 5), np.float32),
    "none": ArrayLayout((2, 0), np.float32),
    "b": ArrayLayout((7,), np.uint8),
}
NAME = {"revision": "r", "layout": 1}


class Filler:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, into: Arrays) -> None:
        assert {name: array.shape for name, array in into.items()} == {n: each.shape for n, each in LAYOUT.items()}
        assert all(not array.any() for array in into.values())
        self.calls += 1
        into["a"][:] = np.arange(15).reshape(3, 5)
        into["b"][:] = 200


def check(arrays: Arrays) -> None:
    assert arrays["a"].tolist() == np.arange(15).reshape(3, 5).tolist()
    assert arrays["b"].tolist() == [200] * 7
    assert all(array.ctypes.data % 64 == 0 for array in arrays.values() if array.size)


def test_a_file_is_filled_once(tmp_path: Path) -> None:
    fill = Filler()
    for _ in range(3):
        check(mapped_weights(tmp_path / "new" / "w", NAME, LAYOUT, fill))
    assert fill.calls == 1
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["w"]


def test_writing_to_mapped_arrays_changes_no_file(tmp_path: Path) -> None:
    fill = Filler()
    mapped_weights(tmp_path / "w", NAME, LAYOUT, fill)["a"][:] = 0
    check(mapped_weights(tmp_path / "w", NAME, LAYOUT, fill))
    assert fill.calls == 1


def test_a_copy_is_that_of_the_file(tmp_path: Path) -> None:
    fill = Filler()
    for _ in range(2):
        check(mapped_weights(tmp_path / "w", NAME, LAYOUT, fill, copied=True))
    assert fill.calls == 1


def test_a_file_of_another_name_is_made_anew(tmp_path: Path) -> None:
    fill = Filler()
    mapped_weights(tmp_path / "w", NAME, LAYOUT, fill)
    check(mapped_weights(tmp_path / "w", NAME | {"layout": 2}, LAYOUT, fill))
    assert fill.calls == 2


def test_a_file_cut_short_is_made_anew(tmp_path: Path) -> None:
    fill, path = Filler(), tmp_path / "w"
    mapped_weights(path, NAME, LAYOUT, fill)
    path.write_bytes(path.read_bytes()[:-1])
    check(mapped_weights(path, NAME, LAYOUT, fill))
    assert fill.calls == 2


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("place", [-1, 4096, 4096 + 33])
def test_a_damaged_file_is_made_anew(
    tmp_path: Path, place: int, copied: bool, caplog: pytest.LogCaptureFixture
) -> None:
    fill, path = Filler(), tmp_path / "w"
    mapped_weights(path, NAME, LAYOUT, fill)
    damaged = bytearray(path.read_bytes())
    damaged[place] ^= 4
    path.write_bytes(damaged)
    check(mapped_weights(path, NAME, LAYOUT, fill, copied=copied))
    assert "damaged" in caplog.text
    check(mapped_weights(path, NAME, LAYOUT, fill, copied=copied))
    assert fill.calls == 2


def test_without_a_place_for_files_memory_will_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    fill = Filler()
    check(mapped_weights(tmp_path / "file" / "w", NAME, LAYOUT, fill))
    check(own_weights(LAYOUT, fill))
    assert fill.calls == 2


def test_a_filler_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(into: Arrays) -> None:
        raise KeyError("no such tensor")

    with pytest.raises(KeyError):
        mapped_weights(tmp_path / "w", NAME, LAYOUT, fail)
    assert not list(tmp_path.iterdir())


def test_what_killed_writers_left_goes_and_what_others_write_stays(tmp_path: Path) -> None:
    old, young, other = tmp_path / "w3k2x", tmp_path / "wa81z", tmp_path / "v"
    for file in (old, young, other):
        file.write_bytes(b"half")
    for file in (old, other):
        os.utime(file, (0, 0))
    check(mapped_weights(tmp_path / "w", NAME, LAYOUT, Filler()))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["v", "w", "wa81z"]
    os.utime(young, (0, 0))
    check(mapped_weights(tmp_path / "w", NAME, LAYOUT, Filler()))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["v", "w"]


def test_a_pipe_of_that_name_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w")
    check(mapped_weights(tmp_path / "w", NAME, LAYOUT, Filler()))
    assert (tmp_path / "w").is_file()
