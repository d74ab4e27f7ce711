"""Which model a worker serves: from its settings to an id and a file. Knows names and files, no engine and no job."""

from dataclasses import dataclass

import structlog

from headrace import models
from headrace.contract.errors import SetupError
from headrace.models.pull import pull
from headrace.settings import Settings
from workers.inference import fake_engine

CANNOT_START = 3
"""Exit code of a worker for what a restart will not mend."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """`id` is what clients call it; `source` what the engine process loads."""

    id: str
    source: str


def find_model(settings: Settings) -> ServedModel:
    """The model of the settings, fetched if it is not on this machine. Raises SetupError when it cannot be had."""
    name = settings.worker.model
    without_model = models.fake(name)
    if without_model is None:
        if not models.is_here(name, settings.paths.models_dir):
            log.info("fetching the model, it is not on this machine yet", model=name)
        found = pull(name, settings.paths.models_dir, endpoint_url=settings.blobs.endpoint_url)
        return ServedModel(found.id, str(found.path))
    model_id, source = without_model
    try:
        fake_engine.parse_knobs(source)
    except ValueError as error:
        raise SetupError(f"{name} is no fake engine: {error}.", next_step="Try fake:speed=50") from error
    return ServedModel(model_id, source)
