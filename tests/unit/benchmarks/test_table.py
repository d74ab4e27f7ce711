"""Tables out of results, and their place in a file."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks import results, table
from benchmarks.figures import Figure, percentile, seconds, share, spread, times


def comparison() -> dict[str, Any]:
    rounds = [[200.4, 80.2]] * 3
    measured = {"ours_tok_s": 200.4, "tok_s": 80.2, "ratio": 2.5, "rounds": rounds}
    longer = measured | {"rounds": rounds * 2}
    return {
        "date": "2026-11-23",
        "commit": "abc",
        "model": "small.gguf",
        "machine": {"cpu": "Xeon", "cores": 2},
        "flags": {"threads": 2, "rounds": 3},
        "ours": {"title": "Headrace"},
        "peers": {
            "openvino": {"title": "OpenVINO", "openvino-genai": "2026.4", "workloads": {"n1": measured}},
            "vllm": {"title": "vLLM", "error": "no wheel\nfor this machine", "workloads": {}},
            "bench": {"title": "bench", "workloads": {"n8": longer}, "failures": {"n1": "died"}},
        },
    }


def test_a_comparison_shows_speeds_ratios_gaps_and_failures() -> None:
    lines = table.comparison_table(comparison()).splitlines()
    assert lines[:6] == [
        "| engine | N=1 | N=8 |",
        "| --- | ---: | ---: |",
        "| Headrace | **200** | **200** |",
        "| OpenVINO (2026.4) | 80 (2.5x) | - |",
        "| vLLM | failed | failed |",
        "| bench | failed | 80 (2.5x) |",
    ]
    assert "vLLM: no wheel for this machine" in lines
    assert "bench, n1: died" in lines


def test_what_is_promised_of_nearly_all_shows_the_worst_too() -> None:
    values = [float(number) for number in range(1, 101)]
    assert [percentile(values, share) for share in (0, 50, 99, 100)] == [1.0, 50.0, 99.0, 100.0]
    assert percentile([3.0], 99) == 3.0
    assert spread("kill", values[:2]).shown == "p50 1.00 s, p99 2.00 s, max 2.00 s"


def test_figures_show_medians_beside_their_bars() -> None:
    figures = [seconds("start", [3, 1, 2], "≤ 3 s"), times("ratio", [2.0, 4.0]), share("fleet", [0.97], "≥ 95 %")]
    rows = table.figures_table({"figures": [figure.record() for figure in figures]}).splitlines()[2:]
    assert rows == ["| start | 2.00 s | ≤ 3 s |", "| ratio | 3.00x | - |", "| fleet | 97 % | ≥ 95 % |"]


def test_the_document_has_what_there_are_results_for(tmp_path: Path) -> None:
    assert table.document(tmp_path) == ""
    results.write(tmp_path / "cpu.json", comparison())
    model = tmp_path / "small.gguf"
    results.write_figures(tmp_path / "fleet.json", model, {}, [Figure("N=1", "91 %", (0.91,))])
    text = table.document(tmp_path)
    assert "small.gguf, Xeon, 2 cores, 2026-11-23, commit abc" in text
    assert "2 threads, medians of 3 to 6 rounds" in text
    assert "| N=1 | 91 % | - |" in text
    assert "91 %" not in table.document(tmp_path, ["cpu"])
    assert "small.gguf" not in table.document(tmp_path, ["perplexity"])


def test_an_update_touches_nothing_outside_the_marks() -> None:
    for name in ("", "delivery"):
        begin, end = table.mark("begin", name), table.mark("end", name)
        other = f"{table.mark('begin', 'x')}\nkept\n{table.mark('end', 'x')}\n"
        after = table.update(f"head\n{begin}\nold\n{end}\ntail\n{other}", "new", name)
        assert after == f"head\n{begin}\nnew\n{end}\ntail\n{other}"
        assert table.update(after, "new", name) == after


@pytest.mark.parametrize("text", ["nothing", table.mark("begin"), f"{table.mark('end')}\n{table.mark('begin')}"])
def test_a_file_without_both_marks_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="benchmarks:begin"):
        table.update(text, "new")


def test_a_file_without_marks_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("words\n")
    assert table.main(["--results", str(tmp_path), "--update", str(readme)]) == 2
    assert readme.read_text() == "words\n"
    assert "benchmarks:begin" in capsys.readouterr().err


def test_several_sittings_make_one_file(tmp_path: Path) -> None:
    path, model = tmp_path / "cpu.json", Path("small.gguf")
    one: dict[str, Any] = {"a": {"title": "A", "workloads": {"n1": {"ratio": 2}}}}
    other: dict[str, Any] = {"b": {"title": "B", "workloads": {"n1": {"ratio": 3}}}}
    results.write_comparison(path, model, {}, {}, one)
    results.write_comparison(path, model, {}, {}, other)
    assert set(results.read(path)["peers"]) == {"a", "b"}
    results.write_comparison(path, Path("other.gguf"), {}, {}, other)
    assert set(results.read(path)["peers"]) == {"b"}


def test_kills_and_troubles_have_a_row_each(tmp_path: Path) -> None:
    counts = {"rounds": 50, "struck": 50, "jobs": 400, "tokens": 12_345, "resumed": 90}
    clean = {"lost": 0, "repeated": 0, "different": 0}
    point = {"point": "append.after", **counts, **clean, "left_over": 0}
    points = {**results.header(Path("fake")), "points": [point, {**point, "point": "claim.before"}]}
    results.write(tmp_path / "chaos-fake.json", points)
    row = {"scenario": "stopped", **counts, **clean, "forgotten": 0, "refused": 7, "on_again_max_s": 1.25}
    results.write(tmp_path / "faults.json", {**results.header(Path("fake")), "scenarios": [row]})
    lines = table.document(tmp_path).splitlines()
    assert "| append.after | 50 | 50 | 400 | 12,345 | 90 | 0 | 0 | 0 | 0 |" in lines
    assert "| **all** | 100 | 100 | 800 | 24,690 | 180 | 0 | 0 | 0 | 0 |" in lines
    assert "| stopped | 50 | 400 | 12,345 | 0 | 0 | 0 | 0 | 7 | 1.2 s |" in lines


def test_what_was_promised_is_one_short_table(tmp_path: Path) -> None:
    figures = [Figure("submit", "1 ms", (1,), "≤ 2 ms"), Figure("cost of it", "3 ms", (3,))]
    results.write_figures(tmp_path / "cancel.json", Path("fake"), {}, figures)
    counts = {"rounds": 2, "struck": 2, "jobs": 40, "tokens": 1_000}
    point = {"point": "append.after", **counts, "lost": 0, "repeated": 1, "different": 0}
    results.write(tmp_path / "chaos-real.json", {**results.header(Path("small")), "points": [point, point]})
    row = {**point, "scenario": "stopped", "on_again_max_s": 1.25}
    longer = {**row, "scenario": "stopped-for-long", "on_again_max_s": 12.0}
    results.write(tmp_path / "faults.json", {**results.header(Path("fake")), "scenarios": [row, longer]})
    text = table.document(tmp_path, ["delivery"])
    assert "| submit (fake engine) | 1 ms | ≤ 2 ms |" in text
    assert "cost of it" not in text
    assert "| 2 points of death, 4 rounds, 4 kills, 80 jobs, 2,000 tokens (real model) | 0 lost, 2 repeated, 0" in text
    assert "| streams go on after them (fake engine) | 1.2 s at most | ≤ 8 s |" in text
