"""Any schedule, same tokens, while steps run ahead over the GPU's runner; the long form is the module's own command."""

from pathlib import Path

from tests.unit.engine.any_schedule import wide_model
from tests.unit.engine.cuda_backend.run_ahead import schedules


def test_every_request_has_the_tokens_of_its_solo_run_in_step(tmp_path: Path) -> None:
    total = schedules(wide_model(tmp_path), (3, 4, 5))
    assert total.differing == 0, total
    assert total.tokens > 100, total
    assert total.hits, total
    assert total.resumes, total
