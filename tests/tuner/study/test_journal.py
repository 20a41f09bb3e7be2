"""The study file: one writer at a time, nothing finished is lost, and what is broken is named and left alone."""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search_spaces.errors import InputError
from tuner.search.trial import RECORD, Trial, trial_to_json
from tuner.study.journal import open_study, read_study


def record(number: int) -> str:
    return trial_to_json(Trial(number=number, ending="failed", cause="died", detail="exit 1 " * 20))


def add_trials(study: optuna.Study, count: int) -> None:
    for _ in range(count):
        trial = study.ask()
        trial.suggest_categorical("layout.tensor", (1, 2, 4))
        trial.set_user_attr(RECORD, record(trial.number))
        study.tell(trial, 1.0)


def journal(folder: Path, count: int = 3) -> Path:
    with open_study(folder, "s", experiment={"gpus": 8}) as study:
        add_trials(study, count)
    return folder / "s.journal"


def numbers(study: optuna.Study) -> list[int]:
    return [trial.number for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]


# Going on


def test_a_study_is_begun_and_gone_on_with(tmp_path):
    with open_study(tmp_path / "made" / "here", "s") as study:
        add_trials(study, 2)
    with open_study(tmp_path / "made" / "here", "s") as study:
        add_trials(study, 1)
        assert numbers(study) == [0, 1, 2]


def test_looking_at_a_study_changes_nothing(tmp_path):
    path = journal(tmp_path)
    before = path.read_bytes()
    with open_study(tmp_path, "s", experiment={"gpus": 8}):
        pass
    assert numbers(read_study(tmp_path, "s")) == [0, 1, 2]
    assert path.read_bytes() == before


def test_a_study_that_is_not_there_is_refused_with_the_nearest_first(tmp_path):
    for name in ("chat-1234", "reasoning-5678"):
        with open_study(tmp_path, name):
            pass
    with pytest.raises(InputError, match=r"there is no such study; studies there: chat-1234, reasoning-5678"):
        read_study(tmp_path, "chat-123")
    assert not (tmp_path / "chat-123.journal").exists()


# One writer at a time

HOLDER = """
    import sys, time
    from pathlib import Path
    from tuner.study.journal import open_study
    with open_study(Path(sys.argv[1]), "s") as study:
        print("open", flush=True)
        time.sleep(60)
"""


def start(program: str, *arguments: object) -> subprocess.Popen:
    code = textwrap.dedent(program)
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


def test_a_second_process_is_told_which_file_is_in_use_and_a_killed_one_blocks_nobody(tmp_path):
    holder = start(HOLDER, tmp_path)
    try:
        assert holder.stdout.readline() == "open\n"
        before = (tmp_path / "s.journal").read_bytes()
        with pytest.raises(InputError, match=r"s\.journal: another process is tuning this study; .*--study"):
            with open_study(tmp_path, "s"):
                pass
        assert (tmp_path / "s.journal").read_bytes() == before
        with open_study(tmp_path, "another"):
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with open_study(tmp_path, "s") as study:
        add_trials(study, 1)


WRITER = """
    import sys
    from pathlib import Path
    from tests_of_study_file import add_trials
    from tuner.study.journal import open_study
    with open_study(Path(sys.argv[1]), "s") as study:
        while True:
            add_trials(study, 1)
            print(len(study.trials) - 1, flush=True)
"""


def test_what_was_finished_before_kill_9_is_there_and_can_be_gone_on_with_at_once(tmp_path):
    program = textwrap.dedent(WRITER).replace(
        "from tests_of_study_file import add_trials",
        f"import runpy; add_trials = runpy.run_path({__file__!r})['add_trials']",
    )
    finished = set()
    for lines in (5, 9):
        writer = start(program, tmp_path)
        finished |= {int(writer.stdout.readline()) for _ in range(lines)}
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        with open_study(tmp_path, "s") as study:
            assert finished <= set(numbers(study))
            for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
                study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            add_trials(study, 1)


@pytest.mark.parametrize("kept", [1, 5, 12, 30, -20, -2])
def test_a_torn_last_line_is_dropped_and_everything_before_it_kept(tmp_path, kept):
    path = journal(tmp_path)
    whole = path.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    path.write_bytes(whole + last[:kept])
    with open_study(tmp_path, "s") as study:
        assert numbers(study) == [0, 1, 2]
        add_trials(study, 1)
    with open_study(tmp_path, "s") as study:
        assert numbers(study) == [0, 1, 2, 3]


def test_a_study_killed_at_its_first_line_is_begun_again(tmp_path):
    path = journal(tmp_path)
    path.write_bytes(path.read_bytes().splitlines()[0][:40])
    with open_study(tmp_path, "s", experiment={"gpus": 8}) as study:
        add_trials(study, 1)


@pytest.mark.parametrize("lines", range(1, 3))
def test_a_study_killed_before_its_experiment_was_written_is_gone_on_with(tmp_path, lines):
    path = journal(tmp_path)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:lines]))
    with open_study(tmp_path, "s", experiment={"gpus": 8}) as study:
        add_trials(study, 1)


# Broken files


def refused(folder: Path, path: Path) -> str:
    """The message; the file is as it was."""
    before = path.read_bytes()
    with pytest.raises(InputError) as caught:
        with open_study(folder, "s", experiment={"gpus": 8}):
            pass
    assert path.read_bytes() == before
    return str(caught.value)


BROKEN = {
    "text": b"hello",
    "a line of text": b"hello\n",
    "lines of text": b"hello\nworld\n",
    "text without an end": b"hello\nworld",
    "an empty line": b"\n",
    "a JSON list": b"[]\n",
    "a JSON number": b"1\n",
    "JSON of something else": b'{"a": 1}\n{"b": 2}\n',
    "JSON over several lines": json.dumps({"a": {"b": 1}}, indent=2).encode(),
    "an unknown operation": b'{"op_code":99,"worker_id":"x"}\n',
    "an operation without its parts": b'{"op_code":4,"worker_id":"x"}\n',
    "deeply nested JSON": b"[" * 100_000 + b"\n",
    "zeros": bytes(1000),
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    "a zip": b"PK\x03\x04" + bytes(range(256)) * 10,
    "UTF-16": '{"op_code":0}\n'.encode("utf-16"),
    "an SQLite file": b"SQLite format 3\0" + bytes(4000),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_is_no_journal_is_named_and_left_as_it_is(tmp_path, case):
    path = tmp_path / "s.journal"
    path.write_bytes(BROKEN[case])
    message = refused(tmp_path, path)
    assert message.startswith(f"{path}: is not a readable study journal")
    assert "it was left as it is" in message
    assert "--study" in message
    assert "\n" not in message


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(min_size=1, max_size=200))
def test_random_bytes_are_named_and_left_as_they_are(tmp_path, content):
    path = tmp_path / "s.journal"
    path.write_bytes(content)
    if not b'{"op_code":'.startswith(content):
        assert str(path) in refused(tmp_path, path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    return journal(tmp_path_factory.mktemp("whole"), count=6).read_bytes()


@pytest.mark.parametrize("seed", range(20))
def test_a_piece_missing_in_the_middle_is_named_and_the_rest_left_as_it_is(tmp_path, whole, seed):
    lines = whole.splitlines(keepends=True)
    first, last = sorted(random.Random(seed).sample(range(len(lines)), 2))
    path = tmp_path / "s.journal"
    path.write_bytes(b"".join([*lines[:first], lines[first][:-5], lines[last][20:], *lines[last + 1 :]]))
    assert str(path) in refused(tmp_path, path)


@pytest.mark.parametrize("seed", range(10))
def test_a_lost_trial_is_named_though_every_line_is_whole(tmp_path, whole, seed):
    lines = whole.splitlines(keepends=True)
    created = [number for number, line in enumerate(lines) if b'"op_code":4,' in line]
    del lines[random.Random(seed).choice(created[:-1])]
    path = tmp_path / "s.journal"
    path.write_bytes(b"".join(lines))
    assert "lines are missing before line" in refused(tmp_path, path)


def test_a_record_that_is_no_trial_is_named(tmp_path, whole):
    path = tmp_path / "s.journal"
    path.write_bytes(whole.replace(b'\\"failed\\"', b'\\"melted\\"', 1))
    message = refused(tmp_path, path)
    assert "is not a readable study journal" in message
    assert "\n" not in message


def test_a_study_under_another_name_is_named_and_left_as_it_is(tmp_path):
    path = journal(tmp_path)
    other = path.with_name("other.journal")
    path.rename(other)
    before = other.read_bytes()
    with pytest.raises(InputError, match="it holds the study s"):
        with open_study(tmp_path, "other"):
            pass
    assert other.read_bytes() == before


def test_an_empty_file_is_a_new_study(tmp_path):
    (tmp_path / "s.journal").touch()
    with open_study(tmp_path, "s") as study:
        assert study.trials == []


# Places where no study can be


def test_a_directory_in_its_place_is_named(tmp_path):
    (tmp_path / "s.journal").mkdir()
    with pytest.raises(InputError, match=r"s\.journal: .*IsADirectoryError"):
        with open_study(tmp_path, "s"):
            pass


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "studies").touch()
    with pytest.raises(InputError, match=r"studies/s\.journal: no study can be kept there: .*--studies"):
        with open_study(tmp_path / "studies", "s"):
            pass


def test_a_folder_that_cannot_be_made_is_named():
    with pytest.raises(InputError, match=r"/proc/nowhere/s\.journal: no study can be kept there"):
        with open_study(Path("/proc/nowhere"), "s"):
            pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="Permission denied"):
        with open_study(tmp_path, "s"):
            pass


def test_a_name_that_no_file_can_have_is_named(tmp_path):
    with pytest.raises(InputError, match="File name too long"):
        with open_study(tmp_path, "x" * 300):
            pass


@pytest.mark.parametrize("name", ["with space", "v1.2", "[b]", "äöü", "-x"])
def test_any_other_name_will_do(tmp_path, name):
    for _ in range(2):
        with open_study(tmp_path, name) as study:
            add_trials(study, 1)
    assert numbers(read_study(tmp_path, name)) == [0, 1]


# Another experiment


def test_a_study_of_another_experiment_is_refused_with_what_differs(tmp_path):
    asked = {"gpus": 8, "sla": {"tpot_ms_p99": 20.0}, "space": {}, "seed": 0}
    with open_study(tmp_path, "s", experiment=asked) as study:
        add_trials(study, 1)
    with open_study(tmp_path, "s", experiment=asked):
        pass
    path = tmp_path / "s.journal"
    before = path.read_bytes()
    with pytest.raises(
        InputError, match=r"s\.journal: this study is of another experiment \(other: gpus, sla\.tpot_ms_p99\)"
    ):
        with open_study(tmp_path, "s", experiment=asked | {"gpus": 4, "sla": {"tpot_ms_p99": 10.0}}):
            pass
    assert path.read_bytes() == before


def test_the_lock_is_released_after_an_error(tmp_path):
    with suppress(RuntimeError), open_study(tmp_path, "s"):
        raise RuntimeError
    with open_study(tmp_path, "s"):
        pass
    (tmp_path / "t.journal").write_bytes(b"hello")
    for _ in range(2):
        with pytest.raises(InputError, match="is not a readable study journal"):
            with open_study(tmp_path, "t"):
                pass
