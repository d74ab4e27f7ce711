"""Continuous batching over a paged KV cache, exact under any schedule. Token ids in, token ids out."""

from engine.budget import Budget
from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import EngineConfigError, EngineError, EngineRequestError, EngineStepError, ModelFileError
from engine.health import Health
from engine.logprobs import TokenLogprobs
from engine.outcome import Completion, RequestFailure, RequestOutput, Snapshot
from engine.request import Resume, SamplingParams
from engine.step_output import StepOutput, StepStats

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
    "TokenLogprobs",
]
