"""MLPerf's results: how they are read, which rules clean them, and why none of them can be searched."""

import csv
import math

import pytest

from runners.recorded.mlperf import COLUMNS, read_submissions, submissions, unsearchable
from search_spaces.config import Layout
from search_spaces.errors import InputError

GIVEN = {
    "round": "v5.1",
    "id": "5.1-0024",
    "submitter": "Dell",
    "availability": "available",
    "platform": "XE9680L_B200_SXM_180GBx8_TRT",
    "accelerator": "NVIDIA B200-SXM-180GB",
    "total_accel": "8.0",
    "model": "deepseek-r1",
    "scenario": "Server",
    "units": "Tokens/s",
    "weight_dtype": "fp4",
    "mean_output_tokens": "3680.8",
    "scheduled_samples_s": "3.81",
    "completed_samples_s": "3.78",
    "completed_tokens_s": "13913.33",
    "ttft_p99_limit_ms": "2000.0",
    "tpot_p99_limit_ms": "80.0",
    "ttft_mean_ms": "556.53",
    "ttft_p50_ms": "495.302",
    "ttft_p90_ms": "871.161",
    "ttft_p99_ms": "1631.088",
    "tpot_p50_ms": "61.986",
    "tpot_p90_ms": "63.124",
    "tpot_p99_ms": "64.867",
    "location": "closed/Dell/results",
    "source": "summary_results.json",
    "tuned_tp": "8.0",
    "tuned_pp": "1.0",
    "tuned_moe_ep": "8.0",
    "tuned_attention_dp": "True",
    "tuned_max_batch_size": "512.0",
    "tuned_max_num_tokens": "3456.0",
    "tuned_kv_cache_dtype": "fp8",
    "tuned_source": "deepseek-r1.py",
}


@pytest.fixture
def read(tmp_path):
    """Reads rows given as changes to GIVEN."""

    def write(*changes, columns=COLUMNS):
        path = tmp_path / "mlperf.csv"
        with path.open("w", encoding="utf-8", newline="") as lines:
            writer = csv.DictWriter(lines, columns, extrasaction="ignore", restval="")
            writer.writeheader()
            writer.writerows({**GIVEN, **change} for change in changes)
        return read_submissions(path)

    return write


def only(found):
    (row,) = found.rows
    return row


def test_a_result_is_read_in_seconds_with_its_limits_and_source(read):
    row = only(read({}))
    assert row.experiment == ("deepseek-r1", "b200", "Server")
    assert row.ttft.at(99) == pytest.approx(1.631088)
    assert row.tpot.at(50) == pytest.approx(0.061986)
    assert (row.ttft_limit, row.tpot_limit) == (2.0, 0.08)
    assert row.output_rate == pytest.approx(13913.33)
    assert "5.1-0024" in row.provenance


def test_percentiles_that_are_not_published_are_bounded_from_above(read):
    ttft = only(read({})).ttft
    assert ttft.at(75) == ttft.at(90)
    assert ttft.at(95) == ttft.at(99)
    assert math.isinf(ttft.at(99.9))


def test_a_mean_that_is_not_published_keeps_no_slo(read):
    row = only(read({}))
    assert row.ttft.mean == pytest.approx(0.55653)
    assert math.isinf(row.tpot.mean)


def test_offline_results_have_no_latencies(read):
    none = dict.fromkeys((name for name in COLUMNS if name.startswith(("ttft", "tpot"))), "")
    row = only(read({"scenario": "Offline", **none}))
    assert row.ttft is None
    assert row.ttft_limit is None


def test_a_run_is_charged_the_least_that_the_rules_allow(read):
    row = only(read({}))
    assert row.gpu_seconds == 8 * 600


def test_the_tuned_configuration_has_attention_dp_over_the_ranks_and_fills_the_gpus(read):
    row = only(read({"total_accel": "16"}))
    assert row.config.layout == Layout(attention_dp=8, expert=8, replicas=2)
    assert row.config.gpus == 16
    assert (row.config.batching.max_sequences, row.config.batching.max_batched_tokens) == (512, 3456)
    assert (row.config.precision.weights, row.config.precision.kv_cache) == ("nvfp4", "fp8")


def test_a_tuned_draft_is_kept(read):
    speculation = only(read({"tuned_spec_method": "MTP", "tuned_spec_draft_len": "3.0"})).config.speculation
    assert str(speculation) == "mtp:3"


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"tuned_source": ""}, "no configuration published"),
        ({"tuned_num_prefill_workers": "4"}, "layouts of the prefill workers not given"),
        ({"tuned_max_num_tokens": ""}, "layout or batch limits not given"),
        ({"tuned_moe_ep": ""}, "expert parallelism not given"),
        ({"tuned_kv_cache_dtype": "auto"}, "format of the KV cache not given"),
        ({"tuned_max_num_tokens": "256"}, "more sequences than tokens in a pass"),
        ({"total_accel": "12"}, "GPUs are not a multiple of a worker's"),
    ],
)
def test_a_configuration_that_cannot_be_told_says_why(read, cells, reason):
    row = only(read(cells))
    assert row.config is None
    assert row.unconfigured == reason
    assert reason in unsearchable([row])


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"model": "mixtral-8x7b"}, "a model that servetune does not know"),
        ({"accelerator": "NVIDIA H200-NVL-141GB"}, "a system that servetune does not know"),
        ({"scenario": "SingleStream"}, "a scenario that servetune does not know"),
        ({"completed_tokens_s": ""}, "no tokens/s given (queries or samples only)"),
    ],
)
def test_what_cannot_be_used_is_dropped_with_its_reason(read, cells, reason):
    found = read(cells)
    assert not found.rows
    assert found.dropped == {reason: 1}


def test_a_run_entered_for_two_accuracy_targets_is_counted_once(read):
    found = read({"model": "llama2-70b-99"}, {"model": "llama2-70b-99.9"}, {})
    assert found.dropped["the same run, entered for a second accuracy target"] == 1


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"completed_samples_s": "3.0"}, "fewer than 90 % of the requests sent were answered in time"),
        ({"ttft_p99_ms": "2001"}, "TTFT p99 above the round's own limit"),
        ({"tpot_p99_ms": "81"}, "TPOT p99 above the round's own limit"),
        ({"availability": "preview"}, "a preview: not to be had when it was submitted"),
    ],
)
def test_a_suspect_result_says_why(read, cells, reason):
    found = read(cells)
    assert only(found).suspect == reason
    assert found.suspects == {reason: 1}
    assert not found.clean


def test_labels_that_were_corrected_are_counted(read):
    found = read({"model": "gpt-oss-120b", "units": "Queries/s"})
    assert found.changed == {"result in queries/s, tokens/s taken from the log": 1, "MXFP4 labelled fp4": 1}
    assert only(found).weights == "mxfp4_mxfp8"


def test_missing_columns_are_named(read):
    with pytest.raises(InputError, match="missing: ttft_p99_ms"):
        read({}, columns=[name for name in COLUMNS if name != "ttft_p99_ms"])


@pytest.mark.parametrize("text", ["fast", "nan"])
def test_a_cell_that_is_no_number_is_told_with_its_line(read, text):
    with pytest.raises(InputError, match=f"line 2: column ttft_p99_ms must hold a number, but has '{text}'"):
        read({"ttft_p99_ms": text})


def test_a_file_that_is_not_there_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="cannot be read as MLPerf results"):
        read_submissions(tmp_path / "none.csv")


def test_every_result_that_ships_is_kept_or_dropped_by_a_named_rule():
    found = submissions()
    assert found.total == 430
    assert len(found.rows) + sum(found.dropped.values()) == found.total
    assert len(found.clean) + sum(found.suspects.values()) == len(found.rows)
    assert len(found.clean) == 205


def test_no_experiment_of_mlperf_has_enough_known_configurations_to_search():
    for rows in submissions().experiments().values():
        assert len({row.config for row in rows if row.config}) < 8
        assert "a search needs 8" in unsearchable(rows)


def test_the_winning_result_of_the_published_round_is_there():
    """mlcommons' table of v5.1: Dell XE9680L, llama3.1-405b interactive, 751.369 tokens/s on 8 B200."""
    (row,) = [
        row for row in submissions().rows if row.experiment == ("llama-3.1-405b", "b200", "Interactive") and
        row.submitter == "Dell" and "XE9680L" in row.provenance
    ]  # fmt: skip
    assert row.output_rate == pytest.approx(751.37)
    assert row.gpus == 8
