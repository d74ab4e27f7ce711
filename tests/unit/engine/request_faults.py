"""What can go wrong with one request: each fault brings it about and says how the request ends. Knows no neighbours."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from engine import Resume
from engine.batch import Batch
from tests.unit.engine.fault_stage import BAD, GREEDY, SAMPLED, SHARED, Outcome, Stage

Fault: TypeAlias = Callable[[Stage], Outcome]


def not_finite(output: int) -> Fault:
    """A row of the bad request is not a number once it has so much output."""

    def happens(batch: Batch, hidden: NDArray[np.float32]) -> None:
        for index, chunk in enumerate(batch.chunks):
            if chunk.request.id == BAD and chunk.request.output_length == output:
                hidden[np.flatnonzero(batch.row_chunk == index)[-1]] = np.nan

    def fault(stage: Stage) -> Outcome:
        stage.break_model(happens)
        stage.add(BAD, SHARED, GREEDY)
        return "engine_error"

    return fault


def sampling_breaks_off(error: Exception, output: int) -> Fault:
    def fault(stage: Stage) -> Outcome:
        stage.break_sampler(error, at_output=output)
        stage.add(BAD, SHARED, SAMPLED)
        return "engine_error"

    return fault


def no_memory_for(least: int, batches: Callable[[Batch], bool]) -> Fault:
    """The forward pass finds no memory for such batches: those of the bad request fail by themselves, too."""

    def happens(batch: Batch, hidden: NDArray[np.float32]) -> None:
        if len(batch.chunks) >= least and batches(batch):
            raise MemoryError

    def fault(stage: Stage) -> Outcome:
        stage.break_model(happens)
        stage.add(BAD, SHARED, GREEDY)
        return "engine_error" if least == 1 else "length"

    return fault


def explaining_breaks_off(stage: Stage) -> Outcome:
    stage.break_sampler(MemoryError(), at_output=99, at_alternatives=3)
    stage.add(BAD, SHARED, replace(GREEDY, prompt_logprobs=3))
    return "engine_error"


def over_long(stage: Stage) -> Outcome:
    assert stage.refusal(BAD, (1,) * (stage.engine.max_context - 9), GREEDY) == "context_length_exceeded"
    return "refused"


def duplicate(stage: Stage) -> Outcome:
    assert stage.refusal("before", SHARED, GREEDY) == "invalid_request"
    return "refused"


def nothing_left_to_say(stage: Stage) -> Outcome:
    stage.add(BAD, SHARED, GREEDY, Resume(tuple(range(10))))
    return "length"


def nothing_asked(stage: Stage) -> Outcome:
    stage.add(BAD, SHARED, replace(GREEDY, max_tokens=0, prompt_logprobs=0))
    return "length"


def known_whole(stage: Stage) -> Outcome:
    """Every page of its prompt is in the cache: the last token is computed all the same."""
    stage.engine.add_request("teacher", SHARED, replace(GREEDY, max_tokens=1))
    stage.shown["teacher"] = []
    stage.until("teacher", 1)
    stage.add(BAD, SHARED, GREEDY)
    return "length"


def aborted_while_waiting(stage: Stage) -> Outcome:
    stage.add(BAD, SHARED, GREEDY)
    assert stage.engine.abort(BAD)
    assert not stage.engine.abort(BAD)
    return "aborted"


def aborted_after(output: int) -> Fault:
    def fault(stage: Stage) -> Outcome:
        stage.add(BAD, SHARED, GREEDY)
        stage.until(BAD, output)
        assert stage.engine.abort(BAD)
        return "aborted"

    return fault


def aborted_in_its_prompt(stage: Stage) -> Outcome:
    stage.add(BAD, range(200), GREEDY)
    request = stage.engine._scheduler.get(BAD)
    assert request is not None
    while not request.computed:
        stage.step()
    assert request.computed < 200
    assert stage.engine.abort(BAD)
    return "aborted"


def aborted_within_a_step(stage: Stage) -> Outcome:
    """By what runs while the step is computed, as a signal's handler might; the name is taken again at once."""
    again = replace(GREEDY, max_tokens=2)

    def happens(batch: Batch, hidden: NDArray[np.float32]) -> None:
        if any(chunk.request.id == BAD and chunk.request.params is GREEDY for chunk in batch.chunks):
            assert stage.engine.abort(BAD)
            stage.add(BAD, SHARED[:3], again)

    stage.break_model(happens)
    stage.add(BAD, SHARED, GREEDY)
    stage.until(BAD, 2)
    return "length"


def an_abort_storm(stage: Stage) -> Outcome:
    """Dozens come and go in every state, some of them while outputs are being handed out."""
    for number in range(40):
        stage.add(f"{BAD} {number}", SHARED[: 1 + number % 32], GREEDY)
        if number % 3 == 0:
            for output in stage.engine.step().outputs:
                stage.shown[output.request_id].append(output)
                if output.request_id.startswith(BAD):
                    stage.engine.abort(output.request_id)
                    stage.engine.check_integrity()
        if number % 5 == 0:
            stage.engine.abort(f"{BAD} {number // 2}")
    for number in range(40):
        stage.engine.abort(f"{BAD} {number}")
    return "aborted"


FAULTS: dict[str, Fault] = {
    "a row of the prompt is not finite": not_finite(0),
    "a row of the output is not finite": not_finite(3),
    "allocation fails wherever it is": no_memory_for(1, lambda batch: any(c.request.id == BAD for c in batch.chunks)),
    "allocation fails for more than one": no_memory_for(2, lambda batch: True),
    "allocation fails in sampling": sampling_breaks_off(MemoryError(), 0),
    "sampling raises at the first token": sampling_breaks_off(RuntimeError("no"), 0),
    "sampling raises later": sampling_breaks_off(KeyError("no"), 4),
    "explaining the prompt fails": explaining_breaks_off,
    "a prompt too long": over_long,
    "a name in use": duplicate,
    "an end without a token": nothing_left_to_say,
    "no token asked for": nothing_asked,
    "all pages known": known_whole,
    "aborted while waiting": aborted_while_waiting,
    "aborted in its prompt": aborted_in_its_prompt,
    "aborted at its first token": aborted_after(1),
    "aborted later": aborted_after(5),
    "aborted within a step": aborted_within_a_step,
    "an abort storm": an_abort_storm,
}
