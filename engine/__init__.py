"""Continuous batching over a paged KV cache, exact under any schedule. Token ids in, token ids out."""

from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import EngineConfigError, EngineError, EngineRequestError, EngineStepError, ModelFileError
from engine.outputs import Budget, Completion, Health, RequestFailure, RequestOutput, StepOutput, StepStats
from engine.request import Resume, Snapshot
from engine.sampling_params import SamplingParams

__all__ = [
    "Budget",
    "Completion",
    "Engine",
    "EngineConfig",
    "EngineConfigError",
    "EngineError",
    "EngineRequestError",
    "EngineStepError",
    "Health",
    "ModelFileError",
    "RequestFailure",
    "RequestOutput",
    "Resume",
    "SamplingParams",
    "Snapshot",
    "StepOutput",
    "StepStats",
]
