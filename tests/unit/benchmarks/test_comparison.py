"""From rounds to ratios, and from several sittings to one record."""

from benchmarks.comparison import Sample, merged, pair_order, summaries


def test_a_ratio_above_one_says_that_ours_was_faster() -> None:
    assert Sample("openvino", "n1", ours=200, theirs=80).ratio == 2.5


def test_the_median_is_taken_of_ratios_and_not_of_speeds() -> None:
    rounds = [Sample("p", "n1", 100, 50), Sample("p", "n1", 30, 10), Sample("p", "n1", 400, 100)]
    said = summaries(rounds)["n1"]
    assert said["ratio"] == 3.0  # the median speeds would say 2.0
    assert (said["ratio_min"], said["ratio_max"]) == (2.0, 4.0)
    assert (said["ours_tok_s"], said["tok_s"]) == (100, 50)
    assert said["rounds"] == [[100, 50], [30, 10], [400, 100]]


def test_workloads_are_summed_up_apart() -> None:
    said = summaries([Sample("p", "n1", 10, 5), Sample("p", "n8", 30, 10)])
    assert {name: one["ratio"] for name, one in said.items()} == {"n1": 2.0, "n8": 3.0}


def test_each_round_begins_with_another_peer() -> None:
    names = ["a", "b", "c"]
    orders = [pair_order(number, names) for number in range(4)]
    assert [order[0] for order in orders] == ["a", "b", "c", "a"]
    assert all(sorted(order) == names for order in orders)
    assert pair_order(2, []) == []


def test_a_later_sitting_replaces_what_it_measured_and_keeps_the_rest() -> None:
    earlier = {
        "openvino": {"title": "O", "workloads": {"n1": {"ratio": 1}, "n8": {"ratio": 2}}},
        "vllm": {"title": "V"},
    }
    together = merged(earlier, {"openvino": {"title": "O", "workloads": {"n8": {"ratio": 3}}}})
    assert together["openvino"]["workloads"] == {"n1": {"ratio": 1}, "n8": {"ratio": 3}}
    assert together["vllm"]["title"] == "V"


def test_a_failure_ends_with_a_figure_and_a_figure_with_a_failure() -> None:
    failed = {"vllm": {"workloads": {}, "failures": {"n1": "died"}, "error": "no wheel"}}
    measured = {"vllm": {"workloads": {"n1": {"ratio": 2}}, "failures": {}}}
    well = merged(failed, measured)["vllm"]
    assert well["failures"] == {}
    assert well["workloads"] == {"n1": {"ratio": 2}}
    assert "error" not in well
    ill = merged(measured, failed)["vllm"]
    assert ill["workloads"] == {}
    assert ill["failures"] == {"n1": "died"}
    assert ill["error"] == "no wheel"
