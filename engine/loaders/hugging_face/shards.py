"""The safetensors files of one folder as one: which there are, and which tensor lies in which."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.loaders.files import corrupt, is_there, missing, read_json
from engine.loaders.hugging_face.safetensors_file import SafetensorsFile
from engine.loaders.tensors import TensorInfo

SINGLE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
_MAX_INDEX_BYTES: Final = 8 << 20
_MAX_SHARDS: Final = 1024
_MAX_TENSORS: Final = 1 << 16


class Shards:
    """All files of one model, open; `names` in order. Raises ModelFileError for one that is missing or not as indexed.

    `named` is the file that a path pointed to, if any: a shard of the index stands for all, another for itself.
    """

    def __init__(self, folder: Path, named: str | None) -> None:
        index = _index(folder) if is_there(folder / INDEX) else {}
        self.names = _chosen(folder, named, tuple(sorted(set(index.values()))))
        self._files: list[SafetensorsFile] = []
        self._home: dict[str, SafetensorsFile] = {}
        self._tensors: dict[str, TensorInfo] = {}
        try:
            for name in self.names:
                self._add(SafetensorsFile(folder / name))
            if named is None or named in index.values():
                self._check(index, folder)
        except BaseException:
            self.close()
            raise

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        return self._tensors

    def raw(self, name: str) -> NDArray[np.uint8]:
        """The bytes of one tensor, a read-only view.  # [nbytes]"""
        return self._home[name].raw(name)

    def close(self) -> None:
        for file in self._files:
            file.close()

    def _add(self, file: SafetensorsFile) -> None:
        self._files.append(file)
        for name, info in file.tensors.items():
            if name in self._home:
                raise corrupt(file.path, f"tensor {name[:120]!r} lies in {self._home[name].path.name} too")
            self._home[name] = file
            self._tensors[name] = info
        if len(self._tensors) > _MAX_TENSORS:
            raise corrupt(file.path, f"with it the model has more than {_MAX_TENSORS} tensors")

    def _check(self, index: Mapping[str, str], folder: Path) -> None:
        for name, shard in index.items():
            if name not in self._home or self._home[name].path.name != shard:
                raise corrupt(folder / INDEX, f"it says that tensor {name[:120]!r} lies in {shard}, and it does not")


def _chosen(folder: Path, named: str | None, indexed: tuple[str, ...]) -> tuple[str, ...]:
    if named is not None and named not in indexed:
        return (named,)
    if indexed:
        return indexed
    if not is_there(folder / SINGLE):
        raise missing(folder, f"it holds neither {SINGLE} nor {INDEX}")
    return (SINGLE,)


def _index(folder: Path) -> dict[str, str]:
    """Tensor -> file name. A name that leads out of the folder is refused, whatever lies there."""
    path = folder / INDEX
    weight_map = read_json(path, _MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise corrupt(path, "it has no 'weight_map'")
    shards: dict[str, str] = {}
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or not shard.endswith(".safetensors") or not _is_plain(shard):
            raise corrupt(path, f"tensor {name[:120]!r} lies in {str(shard)[:120]!r}, which is no name of a shard")
        shards[name] = shard
    if len(set(shards.values())) > _MAX_SHARDS:
        raise corrupt(path, f"it names more than {_MAX_SHARDS} files")
    return shards


def _is_plain(name: str) -> bool:
    return name.isprintable() and not any(mark in name for mark in "/\\:")
