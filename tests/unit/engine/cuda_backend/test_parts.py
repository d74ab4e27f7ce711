"""Mailbox, seats, graphs, proof and numerics of the GPU's backend, each by itself."""

import ctypes
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine import EngineConfig
from engine.batch import PageLayout, build_batch
from engine.cuda_backend.driver import has_driver
from engine.cuda_backend.filling import RowEdits, edits_of
from engine.cuda_backend.graphs import EagerLauncher, GraphLauncher
from engine.cuda_backend.loading import device_memory
from engine.cuda_backend.mailbox import Field, Mailbox
from engine.cuda_backend.operations import operations
from engine.cuda_backend.proof import products_are_exact
from engine.cuda_backend.seats import Seats
from engine.loaders import open_model
from engine.memory import Memory
from engine.outcome import RequestFailure
from engine.request import Request, SamplingParams
from engine.sampling_state import RowState
from engine.step_plan import ScheduledChunk
from engine.torch_backend.loading import load_torch_model
from tests.unit.engine.cpu_backend.drawn_models import LLAMA as SHAPE
from tests.unit.engine.cuda_backend.twin import CONTEXT, config, runner

CPU = torch.device("cpu")


def request(name: str, ids: list[int], **params: float) -> Request:
    given = SamplingParams(max_tokens=9, **params)  # type: ignore[arg-type]
    return Request(name, given, ids, 2, 0.0, 0, frozenset(), pages=[1, 2, 3])


def test_a_mailbox_sends_what_comes_before_the_end_of_the_last_field() -> None:
    box = Mailbox(
        {"a": Field(torch.int64, (3,)), "b": Field(torch.float32, (2, 2)), "c": Field(torch.int32, (4,))}, CPU
    )
    arrays = box.turn()
    arrays["a"][:], arrays["b"][:], arrays["c"][:] = [1, 2, 3], 0.5, 7
    box.send("c", 2)
    assert box.tensors["a"].tolist() == [1, 2, 3]
    assert box.tensors["b"].tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert box.tensors["c"].tolist() == [7, 7, 0, 0]
    addresses = [tensor.data_ptr() for tensor in box.tensors.values()]
    assert [(address - addresses[0]) % 256 for address in addresses] == [0, 0, 0]


def test_two_host_sides_keep_what_is_still_on_its_way() -> None:
    box = Mailbox({"a": Field(torch.int64, (1,))}, CPU)
    box.tensors["a"][0] = 5
    first = box.fetch()
    box.tensors["a"][0] = 6
    second = box.fetch()
    assert (int(first["a"][0]), int(second["a"][0])) == (5, 6)


def test_seats_are_kept_and_the_one_unheard_of_for_longest_is_given_up() -> None:
    seats = Seats(2, 10, CPU)
    a, b, c = (request(name, [1, 2]) for name in "abc")
    first = seats.place([a, b])
    assert [seat.index for seat in seats.place([b, a])] == [first[1].index, first[0].index]
    assert seats.place([a])[0] is first[0]
    assert seats.place([c])[0].index == first[1].index
    assert seats.place([a])[0] is first[0]


def test_a_seat_holds_parameters_and_padding_holds_none() -> None:
    seats = Seats(2, 10, CPU)
    (seat,) = seats.place([request("a", [1, 2], temperature=0.5, seed=(1 << 64) - 1, frequency_penalty=0.5)])
    row, padding = seats.parameters(np.array([seat.index, seats.padding]))
    assert (row["temperature"], row["history_slot"], row["alternatives"]) == (0.5, seat.index, -1)
    assert isinstance(seat.state, RowState)
    assert int(row["noise_key"]) % (1 << 64) == seat.state.key
    assert (padding["temperature"], padding["history_slot"], padding["top_p"]) == (0.0, -1, 1.0)


def test_a_history_is_made_once_and_again_only_when_it_is_behind() -> None:
    seats = Seats(1, 6, CPU)
    seen = request("a", [1, 1, 4, 4, 5], presence_penalty=1.0)
    (seat,) = seats.place([seen])
    seats.remember(seat, 5)
    assert seats.history[0].tolist() == [0, 1, 0, 0, 4, 2]
    seats.history[0, 0] = 9
    seats.remember(seat, 5)
    assert int(seats.history[0, 0]) == 9, "counted already"
    seats.remember(seat, 4)
    assert seats.history[0].tolist() == [0, 1, 0, 0, 4, 0]


def test_an_end_is_barred_by_the_number_of_its_token_and_not_by_what_is_known() -> None:
    seats = Seats(1, 10, CPU)
    asked = Request("a", SamplingParams(max_tokens=9, min_tokens=2), [1, 2], 2, 0.0, 0, frozenset({5}), awaited=2)
    (seat,) = seats.place([asked])
    edits = [edits_of(seat, ScheduledChunk(asked, end - 1, end, samples=True)) for end in (2, 3, 4)]
    assert [isinstance(each, RowEdits) and each.barred_ids for each in edits] == [(5,), (5,), ()]


def test_an_impossible_id_is_its_own_requests_failure() -> None:
    (seat,) = Seats(1, 6, CPU).place([request("a", [1, 77])])
    assert isinstance(seat.state, RequestFailure)


def test_a_graph_works_once_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []

    class Graph:
        def replay(self) -> None:
            log.append("replayed")

    def capture(graph: Graph, pool: object, capture_error_mode: str) -> AbstractContextManager[None]:
        log.append("captured")
        return nullcontext()

    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    launcher = GraphLauncher()
    for key in (1, 1, 2, 1):
        launcher.launch(key, lambda: log.append("work"))
    assert log == ["work", "captured", "work", "replayed", "work", "captured", "work", "replayed"]


def test_the_eager_twin_works_every_time() -> None:
    log: list[int] = []
    for _ in range(3):
        EagerLauncher().launch("key", lambda: log.append(1))
    assert log == [1, 1, 1]


def test_the_proof_believes_true_products_and_no_others() -> None:
    true = operations("cpu")

    def off_by_one(*args: torch.Tensor) -> None:
        true.scaled_int8_matmul(*args)
        if len(args[0]) > 17:
            args[5][-1, -1] += 1.0

    assert products_are_exact(true, CPU, (96, 64))
    assert not products_are_exact(replace(true, scaled_int8_matmul=off_by_one), CPU, (64,))


def test_a_driver_is_there_when_its_library_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert not has_driver()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: None)
    assert has_driver()


def test_hidden_rows_are_near_those_of_the_portable_backend(tiny: Path) -> None:
    ours, knobs = runner(tiny, config(tiny)), config(tiny)
    with open_model(tiny) as opened:
        shape = opened.describe().shape
        theirs = load_torch_model(replace(knobs, backend="torch"), opened.weights, shape, PageLayout(25, 16), CONTEXT)
    chunks = [ScheduledChunk(request(str(n), list(range(n, n + 20))), 0, 20, True) for n in (3, 60)]
    chunks[1].request.pages = [5, 6]
    batch = build_batch(chunks, 16)
    mine, wanted = ours.forward(batch), theirs.forward(batch)
    assert np.linalg.norm(mine - wanted) < 2e-2 * np.linalg.norm(wanted)
    logits = ours.logits(mine)  # 40 rows where there is room for 6
    assert np.array_equal(logits[7:8], ours.logits(mine[7:8]))


def test_a_device_offers_pages_what_the_backend_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """`mem_get_info` is the driver's; there is none here."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (8 << 30, 80 << 30))
    shape, asked = replace(SHAPE, vocab_size=1 << 17), EngineConfig("none", device="cuda", max_num_seqs=256)
    history = Seats(4, 100, CPU).history.nbytes // 400 * 256 * (1 << 17)
    assert device_memory(asked, shape) == Memory((8 << 30) - (512 << 20) - history, 80 << 30)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1 << 20, 80 << 30))
    assert device_memory(asked, shape) == Memory(0, 80 << 30)
    assert device_memory(replace(asked, device="cpu"), shape) is None
