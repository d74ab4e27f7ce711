"""Opens whatever model a path leads to; knows which format it is by the look of the path, and nothing of formats."""

from pathlib import Path
from typing import TypeAlias

from engine.loaders.description import ModelDescription
from engine.loaders.files import is_there
from engine.loaders.gguf.model import GGUFModel
from engine.loaders.hugging_face import ModelFolder

OpenModel: TypeAlias = GGUFModel | ModelFolder


def open_model(path: str | Path) -> OpenModel:
    """A GGUF file, or a Hugging Face folder (or a .safetensors file in one), to be used as a context manager.

    It has `describe()`, and `weights`, which is a Checkpoint. Raises ModelFileError (`model_file_missing`,
    `model_file_corrupt`, `model_unsupported`).
    """
    path = Path(path)
    is_folder = (is_there(path) and path.is_dir()) or path.suffix == ".safetensors"
    return ModelFolder(path) if is_folder else GGUFModel(path)


def describe(path: str | Path) -> ModelDescription:
    """What the model at `path` says of itself; reads no weights but for their hash, and needs no torch.

    About 0.4 s for 100 MB. Raises ModelFileError as `open_model`.
    """
    with open_model(path) as opened:
        return opened.describe()
