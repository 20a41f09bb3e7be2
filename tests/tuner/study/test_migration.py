"""Studies written at 25bee3f, before knobs had one vocabulary: they are read, and gone on with."""

import multiprocessing
import os
from pathlib import Path

import optuna
import pytest

from search_spaces.errors import InputError
from search_spaces.knobs import EARLIER, KNOBS
from tuner.app import library
from tuner.scenario.experiment.files import find_experiment
from tuner.scenario.experiment.reading import read_experiment
from tuner.search.session import Session
from tuner.search.trial import RECORD, trial_from_json
from tuner.study.asked import asked_otherwise, differing, study_of
from tuner.study.finished_study import open_finished
from tuner.study.journal import open_study, read_study
from tuner.study.migration import asked_now, is_earlier, migrated, params_now, values_now

WRITTEN = Path(__file__).parent / "written_at_25bee3f"
NAMES = sorted(path.stem for path in WRITTEN.glob("*.journal"))
RECORDED = "deepseek-r1-gb300-nvl72-1024-1024"
NEW_WORDS = {
    '[none, "eagle3:1", "eagle3:2"]': "[none, eagle3]\n  speculation.draft_length: [1, 2]",
    '["eagle3:1", "eagle3:3"]': "[eagle3]\n  speculation.draft_length: [3, 1]",
    "speculation:": "speculation.method:",
    "prefill.workers": "prefill.replicas",
}


@pytest.fixture
def studies(tmp_path):
    folder = tmp_path / "studies"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.journal").write_bytes((WRITTEN / f"{name}.journal").read_bytes())
    return folder


def lines_of(name: str) -> list[bytes]:
    return (WRITTEN / f"{name}.journal").read_bytes().splitlines()


def session_of(name: str, folder: Path) -> Session:
    """The experiment of a study, its file rewritten in today's words where it has earlier ones."""
    experiment = name.rpartition("-")[0]
    if experiment == RECORDED:
        return Session(experiment=read_experiment(find_experiment(f"recorded/{RECORDED}")))
    text = (WRITTEN / f"{experiment}.yaml").read_text()
    for earlier, now in NEW_WORDS.items():
        text = text.replace(earlier, now)
    path = folder / f"{experiment}.yaml"
    path.write_text(text)
    return Session(experiment=read_experiment(path))


EVERY_STUDY = pytest.mark.parametrize("name", NAMES)


# Looking at it


@EVERY_STUDY
def test_an_earlier_study_is_read_and_left_as_it_is(studies, name):
    found = library.open_study(name, studies=studies)
    assert len(found.trials) >= 3
    assert found.meets_sla
    assert found.report("md")
    assert sorted(path.name for path in studies.iterdir()) == [f"{name}.journal" for name in NAMES]
    assert (studies / f"{name}.journal").read_bytes() == (WRITTEN / f"{name}.journal").read_bytes()


def test_what_was_infeasible_is_so_with_its_reason(studies):
    first, *_ = open_finished(studies, "infeasible").trials
    assert (first.ending, first.cause) == ("infeasible", "engine")
    assert "speculates without pipeline parallelism only" in first.detail


def test_the_experiment_is_shown_in_words_that_can_be_read_again(studies, tmp_path):
    path = tmp_path / "again.yaml"
    path.write_text(open_finished(studies, "disaggregated").text)
    space = read_experiment(path).space
    assert space["speculation.method"] == ["eagle3"]
    assert space["speculation.draft_length"] == [1, 3]
    assert space["prefill.replicas"] == [1, 2]


def test_earlier_words_in_the_experiment_are_refused_with_those_of_today():
    with pytest.raises(InputError) as refused:
        read_experiment(WRITTEN / "disaggregated.yaml")
    said = str(refused.value).splitlines()
    assert [line.partition("disaggregated.yaml: ")[2].partition(",")[0] for line in said] == [
        "space.speculation: speculation is called speculation.method now",
        "space.prefill.workers: prefill.workers is called prefill.replicas now",
    ]


# Going on with it


@EVERY_STUDY
def test_the_same_experiment_in_todays_words_finds_its_study(studies, tmp_path, name):
    assert study_of(studies, session_of(name, tmp_path)) == name


def test_an_experiment_without_earlier_words_has_the_study_that_it_had(tmp_path):
    for name in ("whole-758497a2", f"{RECORDED}-1c1ae87d"):
        assert session_of(name, tmp_path).study_name == name


def test_another_experiment_does_not_go_on_with_it(studies, tmp_path):
    session = session_of("aggregated-aeefcd4a", tmp_path)
    other = session.experiment.model_copy(update={"gpus": 1})
    assert study_of(studies, Session(experiment=other)) == Session(experiment=other).study_name
    with pytest.raises(InputError, match=r"is of another experiment \(other: gpus\)"):
        with open_study(studies, "aggregated-aeefcd4a", experiment=Session(experiment=other).asked):
            pass


def test_who_begins_another_study_is_shown_what_differs_from_the_earlier_one(studies, tmp_path):
    session = session_of("aggregated-aeefcd4a", tmp_path)
    assert list(asked_otherwise(studies, session)) == []
    other = session.experiment.model_copy(update={"space": session.experiment.space | {"layout.tensor": [1, 2]}})
    (said,) = asked_otherwise(studies, Session(experiment=other))
    assert said.endswith("aggregated-aeefcd4a.journal asks otherwise (space.layout.tensor), so another study begins.")


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\n", b"[]\n", b'{"user_attr": 1}\n', b'{"user_attr":{"question":[]}}\n']
)
def test_a_file_that_is_no_study_is_passed_over(studies, tmp_path, content):
    (studies / "aggregated-00000000.journal").write_bytes(content)
    assert study_of(studies, session_of("aggregated-aeefcd4a", tmp_path)) == "aggregated-aeefcd4a"


def test_what_is_asked_otherwise_is_named_by_its_key(studies, tmp_path):
    session = session_of("aggregated-aeefcd4a", tmp_path)
    asked = {**session.asked, "space": {**session.asked["space"], "layout.tensor": [1, 2]}}
    with pytest.raises(InputError, match=r"is of another experiment \(other: space\.layout\.tensor\)"):
        with open_study(studies, "aggregated-aeefcd4a", experiment=asked):
            pass


@EVERY_STUDY
def test_a_study_that_is_gone_on_with_is_as_if_it_had_been_written_today(studies, tmp_path, name):
    session = session_of(name, tmp_path)
    scenario = session.scenario
    drawn_from = scenario.space.distributions()
    with open_study(studies, name, experiment=session.asked) as study:
        for trial in study.trials:
            record = trial_from_json(trial.user_attrs[RECORD])
            assert trial.distributions == {knob: drawn_from[knob] for knob in trial.params}
            assert trial.params == scenario.space.drawn(trial.params)
            if record.ending == "measured":
                assert trial.params == scenario.space.params(record.config)
                assert trial.value == pytest.approx(scenario.usd_per_million(record.measurement))
                assert trial.constraints == pytest.approx(scenario.sla.excess(record.measurement))
    assert (studies / f"{name}.journal.before").read_bytes() == (WRITTEN / f"{name}.journal").read_bytes()
    assert sorted(path.suffix for path in studies.glob(f"{name}*")) == [".before", ".journal", ".lock"]


def test_a_gpu_that_was_left_over_is_charged(studies, tmp_path):
    before = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(WRITTEN / "left_over-41c6ceea.journal"))
    )
    held = optuna.load_study(study_name="left_over-41c6ceea", storage=before)
    with open_study(studies, "left_over-41c6ceea") as study:
        for earlier, now in zip(held.trials, study.trials, strict=True):
            assert now.value == pytest.approx(earlier.value * 3 / 2), "3 GPUs are given, 2 are held"
            assert now.constraints["tpot_ms_p99"] > earlier.constraints["tpot_ms_p99"], "all SLOs together"


@pytest.mark.parametrize("name", ["aggregated-aeefcd4a", "disaggregated-77dee412"])
def test_the_search_goes_on_where_it_stopped(studies, tmp_path, name):
    session = session_of(name, tmp_path)
    found = library.tune(session.experiment, trials=4, studies=studies)
    assert [trial.number for trial in found.trials] == [0, 1, 2, 3]
    assert len({trial.config for trial in found.trials}) == 4, "nothing is tried twice"
    assert not [path for path in studies.glob("*.journal") if path.stem not in NAMES]


def test_what_was_enqueued_is_drawn(studies, tmp_path):
    path = studies / "infeasible-0f850c7f.journal"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
    space = session_of("infeasible-0f850c7f", tmp_path).scenario.space
    with open_study(studies, "infeasible-0f850c7f") as study:
        config = space.draw(study.ask())
    assert (config.layout.pipeline, str(config.speculation)) == (2, "eagle3:2")


def test_a_line_that_a_killed_process_never_ended_is_cut_off(studies):
    path = studies / "aggregated-aeefcd4a.journal"
    whole = path.read_bytes()
    path.write_bytes(whole[:-200])
    with open_study(studies, "aggregated-aeefcd4a") as study:
        assert len(study.trials) == 3
        study.set_user_attr("seen", 1)
    assert len(read_study(studies, "aggregated-aeefcd4a").trials) == 3


def test_a_journal_that_cannot_be_understood_is_named_and_left_as_it_is(studies):
    path = studies / "aggregated-aeefcd4a.journal"
    path.write_bytes(path.read_bytes().replace(b"prefill.workers", b"x").replace(b'"speculation\\"', b"x"))
    strange = path.read_bytes().replace(b'"param_name":"mode"', b'"param_name":"mood"')
    path.write_bytes(strange)
    with pytest.raises(InputError, match="is not a readable study journal"):
        with open_study(studies, "aggregated-aeefcd4a"):
            pass
    assert path.read_bytes() == strange


@pytest.mark.parametrize("at", [0, 1])
def test_killed_half_way_nothing_is_lost_and_the_next_goes_on(studies, monkeypatch, at):
    """Renames are what changes: the copy of the old file gets its name, then the new file the old one's."""
    name = "aggregated-aeefcd4a"
    path = studies / f"{name}.journal"
    before = path.read_bytes()
    replace, renames = Path.replace, []

    def killed(self, target):
        if len(renames) == at:
            raise KeyboardInterrupt
        renames.append(target)
        return replace(self, target)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "replace", killed)
        with open_study(studies, name):
            pass
    assert path.read_bytes() == before
    with open_study(studies, name) as study:
        assert len(study.trials) == 3
    assert (studies / f"{name}.journal.before").read_bytes() == before
    assert not list(studies.glob("*.before.1"))


def test_an_earlier_study_that_was_put_back_is_kept_beside_the_first(studies):
    name = "aggregated-aeefcd4a"
    with open_study(studies, name):
        pass
    (studies / f"{name}.journal").write_bytes((WRITTEN / f"{name}.journal").read_bytes() + b'{"op')
    with open_study(studies, name):
        pass
    kept = [(studies / f"{name}.journal.before{end}").read_bytes() for end in ("", ".1")]
    assert kept[1] == kept[0] + b'{"op'


def opened(folder: str) -> str:
    try:
        with open_study(Path(folder), "disaggregated-77dee412") as study:
            return f"{len(study.trials)} trials"
    except InputError as error:
        return "busy" if "another process is tuning" in str(error) else str(error)


def test_processes_that_open_it_at_once_leave_one_whole_study(studies):
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        said = pool.map(opened, [os.fspath(studies)] * 8)
    assert {*said} <= {"3 trials", "busy"}
    assert "3 trials" in said
    assert len(read_study(studies, "disaggregated-77dee412").trials) == 3


# Names


@EVERY_STUDY
def test_every_name_in_a_migrated_journal_is_of_today(name):
    assert is_earlier(lines_of(name))
    entries = migrated(lines_of(name))
    drawn = {entry["param_name"] for entry in entries if "param_name" in entry}
    assert drawn <= KNOBS.keys()
    text = repr(entries)
    for earlier in ("'question'", "'fell_out'", "'speculation': [", "prefill.workers"):
        assert earlier not in text


def test_none_has_no_draft_length_and_a_pair_is_two_names():
    assert params_now({"mode": "aggregated", "speculation": "none"}) == {
        "mode": "aggregated",
        "speculation.method": "none",
    }
    assert params_now({"speculation": "eagle3:2", "prefill.workers": 3}) == {
        "speculation.method": "eagle3",
        "speculation.draft_length": 2,
        "prefill.replicas": 3,
    }


def test_listed_pairs_become_their_methods_and_lengths():
    assert values_now({"speculation": ["none", "eagle3:2", "mtp:1"], "layout.tensor": [1]}) == {
        "layout.tensor": [1],
        "speculation.method": ["none", "eagle3", "mtp"],
        "speculation.draft_length": [1, 2],
    }
    assert values_now({"speculation": ["none"]}) == {"speculation.method": ["none"]}


def test_names_of_today_stay():
    asked = {"gpus": 8, "space": {name: [1] for name in KNOBS}}
    assert asked_now(asked) == asked
    assert not EARLIER.keys() & KNOBS.keys()


def test_the_order_of_listed_values_means_nothing_and_that_of_engines_does():
    one = {"engines": ["vllm", "sglang"], "space": {"layout.tensor": [1, 2]}}
    assert differing(one, {**one, "space": {"layout.tensor": [2, 1]}}) == []
    assert differing(one, {**one, "engines": ["sglang", "vllm"]}) == ["engines"]
