"""Recorded runs: each cleaning rule on rows written for it, the file that ships, and the runner."""

import csv
from collections import Counter

import pytest

from runners.recorded.recorded import Recorded
from runners.recorded.row import COLUMNS
from runners.recorded.sample import read_recordings, recordings
from runners.runner import RunFailedError
from runners.workload.workload import Lengths, Workload
from search_spaces.config import Layout
from search_spaces.errors import InputError

ROW = {
    "id": "row",
    "silicon_data_source": "db-dump/2026-04-27; silicon_concurrency=32; measured=2026-03-18T00:00:00.000Z",
    "backend": "sglang",
    "backend_version": "0.5.9",
    "model_path": "deepseek-ai/DeepSeek-R1",
    "system": "b200_sxm",
    "precision": "fp4",
    "mode": "agg",
    "isl": "1024",
    "osl": "1024",
    "batch_size": "32.0",
    "tp_size": "8.0",
    "pp_size": "1.0",
    "attention_dp_size": "1.0",
    "moe_ep_size": "1.0",
    "silicon_ttft_ms": "500.0",
    "silicon_tpot_ms": "12.5",
}
DISAGGREGATED = {
    "mode": "disagg",
    "tp_size": "",
    "batch_size": "",
    "prefill_num_workers": "2.0",
    "prefill_tp_size": "4.0",
    "decode_num_workers": "3.0",
    "decode_tp_size": "8.0",
    "decode_moe_ep_size": "8.0",
}


def row(concurrency=32, **cells):
    source = ROW["silicon_data_source"].replace("=32", f"={concurrency}")
    return {**ROW, "silicon_data_source": source, "batch_size": f"{concurrency}.0", **cells}


@pytest.fixture
def read(tmp_path):
    def read_rows(*rows, columns=COLUMNS):
        path = tmp_path / "recordings.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        return read_recordings(path)

    return read_rows


# What a row becomes


def test_a_row_is_read_in_seconds_with_what_its_source_says(read):
    (found,) = read(row()).rows
    assert (found.ttft, found.tpot, found.concurrency) == (0.5, 0.0125, 32)
    assert (found.model, found.system, found.release) == ("deepseek-r1", "b200", "0.5.9")
    assert found.date.isoformat() == "2026-03-18"
    assert "db-dump/2026-04-27" in found.provenance


def test_lengths_are_uniform_from_80_to_100_percent_of_the_nominal_ones(read):
    (found,) = read(row()).rows
    assert found.workload.input_tokens == Lengths(low=819, high=1024)


def test_ten_requests_for_each_one_in_flight_start_at_once(read):
    (found,) = read(row()).rows
    assert found.workload.requests == 320
    assert found.workload.standing_start


def test_throughput_follows_from_the_closed_loop(read):
    (found,) = read(row()).rows
    tokens = (819 + 1024) / 2
    assert found.output_rate == pytest.approx(32 * tokens / (0.5 + 0.0125 * (tokens - 1)))
    assert found.seconds == pytest.approx(10 * (0.5 + 0.0125 * (tokens - 1)))


def test_a_disaggregated_row_has_both_pools_and_all_their_gpus(read):
    (found,) = read(row(**DISAGGREGATED)).rows
    assert found.config.workers == "2P3D"
    assert found.config.gpus == 2 * 4 + 3 * 8


def test_sglang_looks_at_arrivals_every_ten_or_thirty_steps_as_its_launch_script_says(read):
    few, many = read(row(8), row(32, silicon_tpot_ms="13")).rows
    assert few.config.batching.receive_interval == 10
    assert many.config.batching.receive_interval == 30


# The rules


def test_copies_of_one_measurement_are_counted_once_whatever_their_labels(read):
    found = read(row(), row(model_path="deepseek-ai/DeepSeek-V3", id="copy"), row(silicon_tpot_ms="12.6"))
    assert found.dropped["a copy of another row's measurement"] == 1
    assert len(found.rows) == 2


def test_of_two_copies_the_one_with_worker_counts_stays(read):
    without = {**DISAGGREGATED, "prefill_num_workers": "", "decode_num_workers": ""}
    found = read(row(**without), row(**DISAGGREGATED))
    assert len(found.rows) == 1
    assert found.dropped["disaggregated without worker counts"] == 0


def test_a_disaggregated_row_without_worker_counts_is_dropped(read):
    found = read(row(**{**DISAGGREGATED, "decode_num_workers": ""}))
    assert found.dropped["disaggregated without worker counts"] == 1


def test_a_single_node_with_more_than_eight_gpus_is_dropped(read):
    found = read(row(tp_size="36.0", moe_ep_size="1.0"))
    assert found.dropped["single node with more than 8 GPUs (mis-read)"] == 1


@pytest.mark.parametrize(
    ("tensor", "ranks", "expert", "layout"),
    [
        ("16.0", "1.0", "4.0", Layout(tensor=4, expert=4)),
        ("64.0", "1.0", "8.0", Layout(tensor=8, expert=8)),
        ("1.0", "64.0", "8.0", Layout(attention_dp=8, expert=8)),
        ("2.0", "2.0", "4.0", Layout(attention_dp=2, expert=2)),
    ],
)
def test_a_layout_multiplied_by_its_expert_parallelism_is_divided_again(read, tensor, ranks, expert, layout):
    found = read(row(tp_size=tensor, attention_dp_size=ranks, moe_ep_size=expert))
    assert found.rows[0].config.layout == layout
    assert found.changed["layout multiplied by its expert parallelism"] == 1


def test_an_honest_layout_is_left_alone(read):
    found = read(row(tp_size="8.0", moe_ep_size="8.0"), row(tp_size="8.0", moe_ep_size="4.0", silicon_tpot_ms="9"))
    assert [item.config.layout for item in found.rows] == [
        Layout(tensor=8, expert=8),
        Layout(tensor=8, expert=4),
    ]
    assert not found.changed


def test_fp4_of_gpt_oss_is_mxfp4(read):
    found = read(row(model_path="openai/gpt-oss-120b", backend="trtllm", tp_size="1.0"))
    assert found.rows[0].config.precision.weights == "mxfp4_mxfp8"
    assert found.changed["MXFP4 labelled fp4 or nvfp4"] == 1


def test_on_hopper_activations_of_gpt_oss_stay_at_16_bit(read):
    gpt_oss = row(backend="trtllm", model_path="openai/gpt-oss-120b", precision="fp4", system="h200_sxm")
    (found,) = read(gpt_oss).rows
    assert found.config.precision.weights == "mxfp4"


def test_a_cold_start_is_suspect_and_says_why(read):
    cold, busy = read(row(16, silicon_ttft_ms="3001"), row(17, silicon_ttft_ms="3002")).rows
    assert cold.suspect.startswith("cold start")
    assert not busy.suspect


def test_deepseek_twice_as_fast_as_its_neighbour_is_unlabelled_mtp(read):
    found = read(row(precision="fp8"), row(precision="fp8", silicon_tpot_ms="6.5"))
    slow, fast = found.rows
    assert not slow.suspect
    assert fast.suspect.startswith("unlabelled MTP")
    assert found.clean == (slow,)


def test_where_mtp_was_never_run_a_faster_neighbour_is_only_newer(read):
    assert not read(row(), row(silicon_tpot_ms="6.5")).suspects


def test_a_row_whose_batch_is_not_its_concurrency_hides_replicas(read):
    found = read(row(416, batch_size="13.0"))
    assert sum(found.dropped.values()) - found.dropped["a copy of another row's measurement"] == 1


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"silicon_data_source": "a file"}, "no concurrency given"),
        ({"moe_ep_size": "0.0"}, "layout with a size of 0 (not read)"),
        ({"model_path": "someone/else"}, "a model that servetune does not know"),
        ({"precision": "int4"}, "a number format without kernel data (int4)"),
        ({"system": "a30"}, "a system that servetune does not know"),
        ({"backend": "other"}, "an engine that servetune does not know"),
    ],
)
def test_what_cannot_be_replayed_is_dropped_with_its_reason(read, cells, reason):
    assert read(row(**cells)).dropped[reason] == 1


# Bad files


def test_missing_columns_are_named(read):
    with pytest.raises(InputError, match="missing: silicon_ttft_ms"):
        read(row(), columns=[name for name in COLUMNS if name != "silicon_ttft_ms"])


def test_a_cell_that_is_no_number_is_told_with_its_line(read):
    with pytest.raises(InputError, match=r"line 2: column silicon_tpot_ms must hold a number, but has 'fast'"):
        read(row(silicon_tpot_ms="fast"))


@pytest.mark.parametrize("text", ["0.0213", "0", "-5", "inf", ""])
def test_a_time_that_cannot_be_in_milliseconds_is_told_with_its_line(read, text):
    with pytest.raises(InputError, match=r"line 2: column silicon_tpot_ms must hold milliseconds, 0\.1 or more"):
        read(row(silicon_tpot_ms=text))


@pytest.mark.parametrize("text", ["0", "", "inf"])
def test_a_count_that_is_none_is_told_with_its_line(read, text):
    with pytest.raises(InputError, match="line 2: column isl must hold a number of tokens"):
        read(row(isl=text))


def test_a_column_without_its_unit_is_a_missing_one_and_the_unit_is_told(read):
    columns = ["silicon_tpot" if name == "silicon_tpot_ms" else name for name in COLUMNS]
    with pytest.raises(InputError, match=r"times in milliseconds\); missing: silicon_tpot_ms"):
        read(row(), columns=columns)


def test_a_file_that_is_not_there_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="cannot be read as recordings"):
        read_recordings(tmp_path / "none.csv")


# The file that ships


def test_every_row_that_ships_is_kept_or_dropped_by_a_named_rule():
    found = recordings()
    assert found.total == 5221
    assert len(found.rows) + sum(found.dropped.values()) == found.total
    assert len(found.clean) + sum(found.suspects.values()) == len(found.rows)


def test_a_scenario_to_replay_has_at_least_eight_measured_configurations():
    scenarios = recordings().scenarios()
    assert ("gpt-oss-120b", "b200", 1024, 1024) in scenarios
    assert all(len(rows) >= 8 for rows in scenarios.values())


def test_no_clean_row_appears_twice():
    seen = Counter((item.ttft, item.tpot, item.system, item.concurrency) for item in recordings().clean)
    assert max(seen.values()) == 1


# The runner


@pytest.fixture
def two_levels(read):
    return read(row(8, silicon_tpot_ms="9"), row(32)).rows


def test_the_nearest_recorded_concurrency_at_or_below_answers(two_levels):
    few, many = two_levels
    with Recorded(two_levels).serve(few.config) as measure:
        assert measure(few.workload.at(31)).tpot.mean == few.tpot
        assert measure(few.workload.at(32)).tpot.mean == many.tpot


def test_a_replay_says_that_it_is_one_and_repeats_the_figures(two_levels):
    found = two_levels[1]
    with Recorded(two_levels).serve(found.config) as measure:
        run = measure(found.workload.at(32))
    assert run.source == "recorded"
    assert run.output_rate == pytest.approx(found.output_rate, rel=1e-3)
    assert (run.ttft.mean, run.ttft.at(99)) == (found.ttft, found.ttft)
    assert run.kept_up


def test_a_replay_is_charged_what_the_run_took(two_levels):
    found = two_levels[1]
    slept = []
    runner = Recorded(two_levels, startup_s=300, sleep=slept.append)
    with runner.serve(found.config) as measure:
        measure(found.workload.at(32))
    assert slept == [300, found.seconds]
    assert runner.spent_s == 300 + found.seconds


def test_a_load_below_all_recorded_ones_failed(two_levels):
    found = two_levels[0]
    with (
        Recorded(two_levels).serve(found.config) as measure,
        pytest.raises(RunFailedError, match="from 8 requests in flight, not 4"),
    ):
        measure(found.workload.at(4))


def test_a_configuration_that_was_never_measured_failed(two_levels, read):
    (other,) = read(row(tp_size="4.0")).rows
    with pytest.raises(RunFailedError, match="was never measured"), Recorded(two_levels).serve(other.config):
        pass


def test_other_lengths_failed_and_the_recorded_ones_are_listed(two_levels):
    lengths = Lengths(low=100, high=100)
    with (
        Recorded(two_levels).serve(two_levels[0].config) as measure,
        pytest.raises(RunFailedError, match="valid \\(longest\\): 1024/1024"),
    ):
        measure(Workload(input_tokens=lengths, output_tokens=lengths).at(8))


def test_open_loads_are_refused(two_levels):
    lengths = two_levels[0].workload.input_tokens
    with (
        Recorded(two_levels).serve(two_levels[0].config) as measure,
        pytest.raises(InputError, match="closed-loop"),
    ):
        measure(Workload(shape="poisson", input_tokens=lengths, output_tokens=lengths).at(8))
