"""The pairs of all architectures, made once for all files of this folder."""

import pytest
import torch

from tests.parity.pairs import ONE_THREAD, Pair, random_pair
from tests.unit.engine.loaders.checkpoints import ARCHITECTURES


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    torch.set_num_threads(ONE_THREAD)
    return {name: random_pair(name, tmp_path_factory.mktemp("parity") / name) for name in ARCHITECTURES}
