"""A finished study: read back from its journal without the file that began it, or refused with what is wrong."""

import shutil
from dataclasses import replace

import pytest

from search_spaces.errors import InputError
from tests.studies import CHAT, CHEAPER, FAILED, INFEASIBLE, KEPT, study_of
from tuner.scenario.experiment.files import find_experiment
from tuner.scenario.experiment.reading import read_experiment
from tuner.search.session import Session
from tuner.search.trial import RECORD, trial_to_json
from tuner.study.attributes import keep_experiment
from tuner.study.finished_study import find_study, open_finished
from tuner.study.journal import open_study


def test_a_study_says_what_it_asked_and_what_came_of_it(tmp_path):
    study_of(tmp_path, KEPT, CHEAPER, INFEASIBLE, FAILED)
    finished = open_finished(tmp_path, CHAT)
    asked = read_experiment(find_experiment(CHAT))
    assert finished.experiment.model_dump() == asked.model_dump()
    assert finished.experiment.name == CHAT
    assert finished.scenario == asked.scenario()
    assert finished.text == asked.path.read_text()
    assert finished.trials == (KEPT, CHEAPER, INFEASIBLE, FAILED)
    assert finished.winner == CHEAPER
    assert finished.baseline == KEPT
    assert finished.answer.excluded() == {"GPUs": 7}
    assert finished.answer.saving == pytest.approx(0.2)
    assert finished.unfinished == ""


def test_a_study_is_found_by_its_name_its_file_and_its_experiment(tmp_path):
    path = study_of(tmp_path, KEPT)
    for name in (path.stem, str(path), CHAT, f"experiments/{CHAT}.yaml"):
        assert find_study(tmp_path, name) == path


def test_an_experiment_with_two_studies_is_ambiguous(tmp_path):
    path = study_of(tmp_path, KEPT)
    shutil.copy(path, tmp_path / f"{CHAT}-00000000.journal")
    with pytest.raises(InputError, match=f"2 studies of {CHAT}; name one: {CHAT}-00000000, {path.stem}"):
        open_finished(tmp_path, CHAT)


def test_an_unknown_study_lists_the_nearest(tmp_path):
    path = study_of(tmp_path, KEPT)
    with pytest.raises(InputError, match=f"there is no study 'gpt-oss'; valid: {path.stem}"):
        open_finished(tmp_path, "gpt-oss")
    with pytest.raises(InputError, match="there are no studies; begin one"):
        open_finished(tmp_path / "none", CHAT)


def test_a_trace_is_found_where_the_experiment_lay(tmp_path, monkeypatch):
    study_of(tmp_path, KEPT, experiment="gpt-oss-120b-b200-azure-conv")
    monkeypatch.chdir(tmp_path)
    assert open_finished(tmp_path, "gpt-oss-120b-b200-azure-conv").scenario.workload.trace is not None


def test_a_trace_that_has_changed_is_refused(tmp_path):
    home = tmp_path / "home"
    (home / "traces").mkdir(parents=True)
    shipped = find_experiment("gpt-oss-120b-b200-azure-conv")
    shutil.copy(shipped, home / "own.yaml")
    trace = home / "traces" / "azure-conv-2023-first-2000.csv"
    shutil.copy(shipped.parent / "traces" / trace.name, trace)
    with trace.open("a") as lines:
        lines.write("2023-11-17 00:00:00,5,5\n")
    study_of(tmp_path, KEPT, experiment=str(home / "own.yaml"))
    assert open_finished(tmp_path, "own").experiment.name == "own"
    trace.unlink()
    with pytest.raises(InputError, match=r"the trace that it replays, .*, is not to be found or has changed"):
        open_finished(tmp_path, "own")


def test_a_study_without_its_file_is_read_and_can_be_asked_again(tmp_path):
    study_of(tmp_path, KEPT, file=False)
    finished = open_finished(tmp_path, CHAT)
    (tmp_path / "again.yaml").write_text(finished.text)
    assert read_experiment(tmp_path / "again.yaml").scenario() == replace(finished.scenario, name="again")


def test_a_study_whose_search_did_not_end_says_so(tmp_path):
    path = study_of(tmp_path, KEPT, summary=False)
    assert open_finished(tmp_path, path.stem).unfinished == "its search is still running, or was killed"


def test_an_empty_study_is_refused(tmp_path):
    study_of(tmp_path)
    with pytest.raises(InputError, match="no trial of this study has ended yet"):
        open_finished(tmp_path, CHAT)


def test_a_study_without_a_measurement_has_no_winner_and_says_why(tmp_path):
    study_of(tmp_path, INFEASIBLE, INFEASIBLE, FAILED)
    with pytest.raises(InputError, match=r"none of its 3 trials was measured: infeasible: memory \(2\), failed: died"):
        _ = open_finished(tmp_path, CHAT).winner


def test_a_journal_of_another_program_is_refused(tmp_path):
    with open_study(tmp_path, "foreign") as study:
        study.tell(study.ask(), 1.0)
    with pytest.raises(InputError, match="is no study of servetune: it does not say what it asks"):
        open_finished(tmp_path, "foreign")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b'{"a": 1}\n'])
def test_a_file_that_is_no_journal_is_refused(tmp_path, content):
    (tmp_path / "broken.journal").write_bytes(content)
    with pytest.raises(InputError, match=r"broken\.journal: is not a readable study journal"):
        open_finished(tmp_path, "broken")


def test_a_experiment_that_this_release_does_not_understand_is_refused(tmp_path):
    session = Session(experiment=read_experiment(find_experiment(CHAT)))
    with open_study(tmp_path, "later", experiment={**session.asked, "model": "gpt-oss-1200b"}) as study:
        asked = study.ask()
        asked.set_user_attr(RECORD, trial_to_json(KEPT))
        study.tell(asked, 1.0)
    with pytest.raises(InputError, match=r"later\.journal: model: unknown model 'gpt-oss-1200b'"):
        open_finished(tmp_path, "later")


def test_a_experiment_with_a_part_that_this_release_does_not_know_is_refused(tmp_path):
    session = Session(experiment=read_experiment(find_experiment(CHAT)))
    with open_study(tmp_path, "later", experiment={**session.asked, "risk": 0.9}) as study:
        asked = study.ask()
        asked.set_user_attr(RECORD, trial_to_json(KEPT))
        study.tell(asked, 1.0)
    with pytest.raises(InputError, match=r"asks it otherwise \(risk\)"):
        open_finished(tmp_path, "later")


def test_frames_have_a_row_for_each_trial_and_each_load(tmp_path):
    study_of(tmp_path, KEPT, CHEAPER, INFEASIBLE)
    finished = open_finished(tmp_path, CHAT)
    trials, levels = finished.trials_frame(), finished.levels_frame()
    assert list(trials.index) == [0, 1, 2]
    assert list(trials["ending"]) == ["measured", "measured", "infeasible"]
    assert list(trials["layout.tensor"]) == [2, 2, 2]
    assert trials["ttft_ms_p99"].isna().tolist() == [False, False, True]
    assert list(levels.index) == [(0, 0), (0, 1), (1, 0)]
    assert list(levels["chosen"]) == [True, False, True]
    assert list(levels["sla_met"]) == [True, False, True]
    gpus_usd_per_s = 8 * finished.scenario.price.usd_per_gpu_hour / 3600
    assert levels["usd_per_million_output_tokens"][0, 0] == pytest.approx(gpus_usd_per_s / 80_000 * 1e6)


def test_an_experiment_that_was_changed_in_python_is_kept_as_it_was_asked(tmp_path):
    asked = read_experiment(find_experiment(CHAT)).model_copy(update={"gpus": 4})
    session = Session(experiment=asked)
    with open_study(tmp_path, session.study_name, experiment=session.asked) as study:
        keep_experiment(study, asked)
        turn = study.ask()
        turn.set_user_attr(RECORD, trial_to_json(KEPT))
        study.tell(turn, 1.0)
    finished = open_finished(tmp_path, CHAT)
    assert finished.experiment.gpus == 4
    (tmp_path / "again.yaml").write_text(finished.text)
    assert read_experiment(tmp_path / "again.yaml").gpus == 4
