"""How much memory there is, by made-up system files, and how many pages a config gets of it."""

from dataclasses import replace
from pathlib import Path

import pytest

from engine import EngineConfig, EngineConfigError
from engine.memory import Memory, host_memory
from engine.models.shape import ModelShape, RotaryShape
from engine.sizing import cache_size, loading_bytes, measured_budget, weight_bytes, workspace_bytes

GIB = 1 << 30
SHAPE = ModelShape(
    vocab_size=1000,
    context_length=2048,
    hidden_size=64,
    ffn_size=128,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    rms_eps=1e-5,
    rotaries=(RotaryShape(1e4),),
    layer_rotary=(0, 0),
    layer_windows=(None, None),
)
PAGE_BYTES = 16 * SHAPE.kv_bytes_per_token("exact")


def config(**knobs: object) -> EngineConfig:
    return replace(EngineConfig("x.gguf"), **knobs)  # type: ignore[arg-type]


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = {
    "proc/meminfo": "MemTotal:        8388608 kB\nMemFree: 1 kB\nMemAvailable:    4194304 kB\nHugePages_Total: 0\n"
}


def test_a_machine_says_what_is_available(tmp_path: Path) -> None:
    assert host_memory(write(tmp_path, MEMINFO)) == Memory(4 * GIB, 8 * GIB)


def test_where_nothing_says_nothing_is_known(tmp_path: Path) -> None:
    assert host_memory(tmp_path) is None
    assert host_memory(write(tmp_path, {"proc/meminfo": "nonsense\n", "proc/self/cgroup": "x\n"})) is None


def test_the_tightest_group_around_the_process_counts(tmp_path: Path) -> None:
    groups = {
        "proc/self/cgroup": "0::/pods/one\n",
        "sys/fs/cgroup/pods/one/memory.max": "max\n",
        "sys/fs/cgroup/pods/one/memory.current": "1000\n",
        "sys/fs/cgroup/pods/memory.max": f"{2 * GIB}\n",
        "sys/fs/cgroup/pods/memory.current": f"{GIB}\n",
        "sys/fs/cgroup/pods/memory.stat": f"anon 5\ninactive_file {GIB // 2}\n",
    }
    assert host_memory(write(tmp_path, MEMINFO | groups)) == Memory(3 * GIB // 2, 2 * GIB)


def test_a_container_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    groups = {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": f"{GIB}\n",
        "sys/fs/cgroup/memory.current": f"{2 * GIB}\n",
    }
    assert host_memory(write(tmp_path, MEMINFO | groups)) == Memory(0, GIB)


@pytest.mark.parametrize(("limit", "total"), [(GIB, GIB), ((1 << 63) - 4096, 8 * GIB)])
def test_groups_of_version_1_are_read_too(tmp_path: Path, limit: int, total: int) -> None:
    groups = {
        "proc/self/cgroup": "3:cpu,cpuacct:/x\n2:memory:/x\n",
        "sys/fs/cgroup/memory/x/memory.limit_in_bytes": f"{limit}\n",
        "sys/fs/cgroup/memory/x/memory.usage_in_bytes": "4096\n",
        "sys/fs/cgroup/memory/x/memory.stat": "total_inactive_file 4096\n",
    }
    found = host_memory(write(tmp_path, MEMINFO | groups))
    assert found == Memory(min(limit, 4 * GIB), total)


def test_a_measured_budget_leaves_room_for_weights_and_buffers() -> None:
    memory = Memory(GIB, 8 * GIB)
    left = GIB - weight_bytes("exact", SHAPE) - loading_bytes(SHAPE) - workspace_bytes(config(), SHAPE, 2048)
    assert measured_budget(config(), SHAPE, memory, cap=8 * GIB) == int(0.8 * left)
    assert measured_budget(config(), SHAPE, memory, cap=1000) == 1000
    with pytest.raises(EngineConfigError, match="no memory is left"):
        measured_budget(config(), SHAPE, Memory(1 << 20, 8 * GIB), cap=GIB)


@pytest.mark.parametrize(
    "larger",
    [{"max_num_seqs": 128}, {"max_batched_tokens": 4096}, {"numerics": "reference"}],
    ids=lambda knobs: next(iter(knobs)),
)
def test_what_a_step_needs_more_the_pages_get_less(larger: dict[str, object]) -> None:
    memory = Memory(GIB // 8, GIB)
    assert measured_budget(config(**larger), SHAPE, memory, cap=GIB) < measured_budget(config(), SHAPE, memory, cap=GIB)


def test_a_budget_gives_no_more_pages_than_requests_could_fill() -> None:
    size = cache_size(config(max_num_seqs=2), SHAPE, Memory(8 * GIB, 8 * GIB))
    assert (size.num_pages, size.max_context) == (2 * 128, 2048)
    small = cache_size(config(kv_budget_bytes=3 * PAGE_BYTES), SHAPE, Memory(GIB, GIB))
    assert (small.num_pages, small.max_context, small.total_tokens) == (3, 48, 48)


def test_on_a_host_there_is_a_cap_where_nobody_gave_a_figure() -> None:
    size = cache_size(config(max_num_seqs=10**6, max_context=2048), replace(SHAPE, vocab_size=2))
    assert size.num_pages * PAGE_BYTES <= 2 * GIB


def test_a_context_that_a_file_makes_up_is_bound_by_pages() -> None:
    size = cache_size(config(), replace(SHAPE, context_length=1 << 27), Memory(2 * GIB, 2 * GIB))
    assert size.max_context == size.total_tokens < 2 * GIB // SHAPE.kv_bytes_per_token("exact")


@pytest.mark.parametrize("asked", [{"num_pages": 10**9}, {"kv_budget_bytes": 1 << 50, "max_num_seqs": 10**9}])
def test_more_than_there_is_is_refused(asked: dict[str, object]) -> None:
    with pytest.raises(EngineConfigError, match="GiB of memory"):
        cache_size(config(**asked), SHAPE, Memory(GIB, 8 * GIB))


def test_a_budget_below_a_page_is_refused() -> None:
    with pytest.raises(EngineConfigError, match="no page"):
        cache_size(config(kv_budget_bytes=PAGE_BYTES - 1), SHAPE, Memory(GIB, GIB))
