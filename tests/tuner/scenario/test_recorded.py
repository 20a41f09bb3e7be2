"""Searching what was recorded: the experiment, the prior over its rows, and what a search over them comes to."""

from pathlib import Path

import pytest

from runners.recorded.recording import served
from runners.recorded.sample import recordings
from runners.workload.workload import Lengths, Workload
from search_spaces.enumerated import EnumeratedSpace
from search_spaces.errors import InputError, UnknownNameError
from tests.recordings import GPT_OSS, asked
from tuner.evidence.replay import cases
from tuner.scenario.experiment.files import find_experiment
from tuner.scenario.experiment.reading import read_experiment
from tuner.scenario.recorded import judged_on_means, recorded_cases, recorded_rows, write_experiments
from tuner.scenario.sla import Sla, read_slo
from tuner.search.session import Session

KILO = Lengths(low=819, high=1024)


@pytest.fixture(scope="module")
def session():
    return Session(experiment=read_experiment(find_experiment(f"recorded/{GPT_OSS}")))


def test_every_scenario_with_eight_configurations_has_an_experiment_that_holds_all_of_them():
    assert len(recorded_cases()) == 31
    for name, case in recorded_cases().items():
        scenario = read_experiment(find_experiment(f"recorded/{name}")).scenario()
        assert isinstance(scenario.space, EnumeratedSpace)
        assert {served(config) for config in scenario.space.configs.values()} == set(case.configs)


def test_the_cases_of_benchmarks_are_among_the_experiments():
    assert {case.name for case in cases()} < set(recorded_cases())


def test_a_file_with_the_same_experiment_is_answered_from_the_same_rows(tmp_path, session):
    assert set(Session(experiment=asked(tmp_path)).recorded) == set(session.recorded)


def test_a_shipped_experiment_can_be_put_to_the_recordings():
    experiment = read_experiment(find_experiment("gpt-oss-120b-b200-chat"), runner="recorded")
    found = Session(experiment=experiment).recorded
    assert found
    assert {row.config.engine.name for row in found} == {"trtllm"}


def test_a_length_that_is_one_token_off_is_the_same_experiment():
    near = Workload(input_tokens=Lengths(low=820, high=1024), output_tokens=KILO)
    assert recorded_rows("gpt-oss-120b", "b200", near)


def test_experiments_are_written_once_and_a_changed_file_is_left_alone(tmp_path):
    assert write_experiments(tmp_path / "new") == 31
    mine = tmp_path / "new" / f"{GPT_OSS}.yaml"
    mine.write_text("mine", encoding="utf-8")
    assert write_experiments(tmp_path / "new") == 0
    assert mine.read_text(encoding="utf-8") == "mine"


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be written to"):
        write_experiments(tmp_path / "file")


def test_a_scenario_without_recordings_names_the_nearest_ones(tmp_path):
    with pytest.raises(InputError, match=r"nothing was recorded for gpt-oss-120b on b300 .*nearest: gpt-oss-120b on "):
        asked(tmp_path, system="b300").scenario()


def test_a_scenario_with_too_few_recordings_says_how_many_there_are():
    known = {}
    for row in recordings().clean:
        known.setdefault(row.scenario, set()).add(served(row.config))
    (model, system, inputs, outputs), configs = next((key, found) for key, found in known.items() if 1 < len(found) < 8)
    workload = Workload(
        input_tokens=Lengths(low=round(0.8 * inputs), high=inputs),
        output_tokens=Lengths(low=round(0.8 * outputs), high=outputs),
    )
    with pytest.raises(InputError, match=rf"only {len(configs)} configurations were recorded .*a search needs 8"):
        recorded_rows(model, system, workload)


def test_other_lengths_learn_the_recorded_ones():
    fixed = Workload(input_tokens=Lengths(low=1024, high=1024), output_tokens=KILO)
    with pytest.raises(InputError, match="must be those recorded, 819 to 1024 and 819 to 1024, but got 1024 and"):
        recorded_rows("gpt-oss-120b", "b200", fixed)


def test_open_arrivals_and_shared_prefixes_were_not_recorded():
    with pytest.raises(InputError, match="arrivals must be closed_loop"):
        recorded_rows("gpt-oss-120b", "b200", Workload(shape="poisson", input_tokens=KILO, output_tokens=KILO))
    prefixed = Workload(input_tokens=KILO, output_tokens=KILO, shared_prefix_tokens=100)
    with pytest.raises(InputError, match="shared_prefix_tokens must be 0"):
        recorded_rows("gpt-oss-120b", "b200", prefixed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"engines": "[sglang]"}, "recorded engines are trtllm, vllm, but got sglang"),
        ({"engines": '["trtllm@1.3.0rc20"]'}, "name the engine alone"),
        ({"space": '{"batching.max_sequences": [8]}'}, "unknown dimension 'batching.max_sequences'"),
        ({"space": '{"layout.tensor": [3]}'}, "unknown value of layout.tensor '3'"),
    ],
)
def test_what_was_not_recorded_cannot_be_asked_for(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        asked(tmp_path, **changes).scenario()


def test_fewer_gpus_than_any_deployment_has_are_refused():
    experiment = read_experiment(find_experiment("recorded/deepseek-r1-gb200-nvl72-1024-1024"))
    with pytest.raises(InputError, match=r"`gpus >= 8` .* must hold, but got 4"):
        experiment.model_copy(update={"gpus": 4}).scenario()


def test_a_recorded_scenario_is_found_by_its_bare_name_and_as_a_file_name_too():
    for name in (GPT_OSS, f"{GPT_OSS}.yaml", f"recorded/{GPT_OSS}", f"recorded/{GPT_OSS}.yaml"):
        assert find_experiment(name).stem == GPT_OSS
    with pytest.raises(InputError, match="no file and no experiment"):
        find_experiment(f"elsewhere/{GPT_OSS}")


def test_an_unknown_recorded_scenario_lists_the_nearest_first():
    with pytest.raises(UnknownNameError, match=f"valid: {GPT_OSS}"):
        find_experiment("recorded/gpt-oss-120b-b200-1024-1023")


def test_a_file_that_is_not_there_is_told_even_in_a_folder_of_that_name():
    with pytest.raises(InputError, match="cannot be read"):
        read_experiment(Path("recorded") / "nothing.yaml")


def test_slos_that_rows_cannot_tell_are_named():
    sla = Sla(slos=(read_slo("ttft_ms_p99", 1000), read_slo("tpot_ms_mean", 20), read_slo("itl_ms_mean", 9)))
    assert judged_on_means(sla) == ("ttft_ms_p99", "itl_ms_mean")
