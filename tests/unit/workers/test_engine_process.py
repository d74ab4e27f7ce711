"""How fast an engine process is started again."""

import pytest

from workers.inference.engine_process import restart_pause


@pytest.mark.parametrize(("quick_deaths", "seconds"), [(0, 0), (1, 0), (2, 0.25), (3, 0.5), (5, 2), (9, 30), (99, 30)])
def test_restart_pause(quick_deaths: int, seconds: float) -> None:
    assert restart_pause(quick_deaths) == seconds
