"""Latencies that a server keeps itself."""

from runners.load.histograms import Totals

# As vLLM 0.32 writes them.
PAGE = """\
# HELP vllm:time_to_first_token_seconds Histogram of time to first token in seconds.
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.001",model_name="tiny"} 0.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="tiny"} 10.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="tiny"} 0.5
vllm:inter_token_latency_seconds_sum{engine="0",model_name="tiny"} 9.0
vllm:inter_token_latency_seconds_count{engine="0",model_name="tiny"} 900.0
vllm:request_time_per_output_token_seconds_count{engine="0",model_name="tiny"} 10.0
vllm:request_time_per_output_token_seconds_sum{engine="0",model_name="tiny"} 1e-1
"""


def test_the_means_are_of_what_was_observed_in_between():
    later = PAGE.replace("} 10.0", "} 30.0").replace("} 0.5", "} 2.5").replace("} 1e-1", "} 0.7")
    means = Totals.of([later]).means_since(Totals.of([PAGE]))
    assert {metric: round(seconds, 6) for metric, seconds in means.items()} == {"ttft": 0.1, "tpot": 0.03}


def test_replicas_and_engines_are_added_up():
    totals = Totals.of([PAGE, PAGE.replace("vllm:", "sglang:")])
    assert (totals.sums["ttft"], totals.counts["ttft"]) == (1.0, 20.0)


def test_a_page_without_histograms_has_no_means():
    assert Totals.of(["<html>"]).means_since(Totals.of([])) == {}
    assert Totals.of([PAGE]).means_since(Totals.of([PAGE])) == {}
