"""The command in scripts and shells: JSON, quiet and verbose, interruptions, completion."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runners.simulated.calibration import FEWEST
from search_spaces.engines.engine import engines
from tests.commands import DEPLOYED, EXPERIMENT, Result, environment, refused, run, started
from tests.runners.load.golden_server import GoldenServer, Plan
from tuner.cli import completion
from tuner.deploy.targets import targets
from tuner.search.session import RUNNERS
from tuner.show.report.render import FORMATS

RECORDED = "recorded/llama-3.1-8b-h200-4000-100"
GPT_OSS = "recorded/gpt-oss-120b-b200-1024-1024"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("scripts")
    (path / "small.yaml").write_text(EXPERIMENT)
    (path / "impossible.yaml").write_text(EXPERIMENT.replace("tpot_ms_p99: 20", "tpot_ms_p99: 0.5"))
    (path / "chat.yaml").write_text(DEPLOYED)
    return path


@pytest.fixture(scope="module")
def replayed(folder) -> Result:
    return run("tune", RECORDED, "--trials", 4, "--no-track", "--study", "replayed", "--json", cwd=folder)


@pytest.fixture(scope="module")
def simulated(folder) -> Result:
    return run("tune", "small.yaml", "--no-track", "--study", "small", "--verbose", cwd=folder)


# JSON


def test_tune_prints_the_document_of_the_report_and_where_things_are(replayed, folder):
    assert replayed.code == 0, replayed.errors
    document = json.loads(replayed.output)
    search = document.pop("search")
    assert search["new_trials"] == 4
    assert search["study_file"] == "studies/replayed.journal"
    assert search["mlflow"] is None
    assert "vllm serve" in document.pop("start")
    report = json.loads(run("report", "replayed", "--json", cwd=folder).output)
    assert document == report


def test_measured_candidates_say_how_surely_they_meet_the_sla_and_between_what_they_cost(replayed):
    document = json.loads(replayed.output)
    assert len(document["candidates"]) == 4
    for candidate in document["candidates"]:
        interval = candidate["usd_per_million_interval"]
        assert interval["probability"] == 0.9
        assert interval["low"] < candidate["usd_per_million"] < interval["high"]
        assert 0 <= candidate["probability_sla_met"] <= 1
    assert document["certainty"]["probability_sla_met"] > 0.9


def test_a_missed_sla_is_valid_json_and_exits_with_3(folder):
    result = run("tune", "impossible.yaml", "--no-track", "--trials", 2, "--json", cwd=folder)
    assert result.code == 3, result.errors
    document = json.loads(result.output)
    assert document["verdict"]["meets_sla"] is False
    assert document["winner"]["slos"][1]["met"] is False


def test_a_search_that_measured_nothing_is_valid_json_too(folder):
    text = EXPERIMENT.replace("gpt-oss-120b", "deepseek-r1").replace("gpus: 2", "gpus: 1")
    kept = [line for line in text.splitlines() if not line.startswith(("  precision", "  speculation"))]
    (folder / "large.yaml").write_text("\n".join(kept))
    result = run("tune", "large.yaml", "--no-track", "--json", cwd=folder)
    assert result.code == 3, result.errors
    document = json.loads(result.output)
    assert document["winner"] is None
    assert document["excluded"]


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (("simulate", "small.yaml", "--load", "8"), "tpot_ms"),
        (("list", "systems"), 0),
        (("list", "recordings"), 0),
        (("validate", "--rows", "3"), "scores"),
        (("deploy", "small", "--target", "trtllm", "-o", "out"), "files"),
        (("reprice", "small", "--price", "2"), "trials"),
    ],
)
def test_standard_output_is_one_document_and_what_else_is_said_goes_elsewhere(simulated, folder, arguments, key):
    assert simulated.code == 0
    result = run(*arguments, "--json", cwd=folder)
    assert result.code == 0, result.errors
    assert json.loads(result.output)[key]
    assert "\x1b" not in result.output + result.errors


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("tune", "smal.yaml"), "no file and no experiment"),
        (("tune", "small.yaml", "--trails", "3"), "--trials"),
        (("list", "modles"), "valid: models"),
        (("report", "nothing"), "there is no study 'nothing'"),
    ],
)
def test_an_error_is_one_line_on_the_error_stream_with_json_too(simulated, folder, arguments, part):
    assert simulated.code == 0
    result = run(*arguments, "--json", cwd=folder)
    assert part in refused(result)
    assert result.output == ""
    assert len(result.errors.splitlines()) == 1


# Quiet and verbose


def test_verbose_has_a_line_for_each_trial(simulated):
    lines = [line for line in simulated.output.splitlines() if line.startswith("trial ")]
    assert [line.split()[1] for line in lines] == ["0", "1", "2"]
    for line in lines:
        assert "measured $" in line or "measured <= $" in line
        assert "meets the SLA: " in line
        assert "fp8 b" in line


def test_quiet_prints_the_verdict_and_where_things_are(simulated, folder):
    assert simulated.code == 0
    result = run("tune", "small.yaml", "--no-track", "--study", "small", "-q", cwd=folder)
    assert result.code == 0, result.errors
    assert "Verdict: SLA met" in result.words
    assert result.next("Study") == "studies/small.journal"
    for part in ("SLOs", "Runners-up", "Next,", "Minimise"):
        assert part not in result.output


def test_quiet_and_verbose_at_once_are_refused(folder):
    assert "not both" in refused(run("tune", "small.yaml", "-q", "-v", cwd=folder))


def test_no_color_is_heeded_where_colours_are_forced(folder):
    for hidden, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        done = subprocess.run(
            [sys.executable, "-c", "from tuner.cli import main; main()", "simulate", "small.yaml", "--load", "8"],
            cwd=folder,
            env=environment() | {"FORCE_COLOR": "1", "TERM": "xterm"} | hidden,
            capture_output=True,
            text=True,
            check=True,
        )
        assert ("\x1b[32m" in done.stdout) is coloured


# Interruptions


def test_ctrl_c_ends_a_measurement_with_the_best_load_so_far(folder):
    with GoldenServer(Plan(ttft_s=0.02, tpot_s=0.005, seats=12)) as server:
        with started("measure", "chat.yaml", "--url", server.url, "--requests", 300, cwd=folder) as process:
            first = next(line for line in process.stdout if line.startswith("load "))
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "Interrupted: shown is the best of the loads so far" in errors
    assert first.split()[1] in output
    assert "Figures" in output


def test_ctrl_c_ends_a_validation_with_the_rows_so_far(folder):
    command = [sys.executable, "-c", SLOWLY, "validate", "--rows", "40", "-o", "page.md"]
    with subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "Rows predicted" in output
    assert "Interrupted after 5 of 40 rows; no file written" in errors
    assert not (folder / "page.md").exists()


SLOWLY = """
import os, signal
import tuner.evidence.validate
from tuner.cli import main

compare = tuner.evidence.validate.compare

def interrupted(rows, *, done):
    for number, row in enumerate(compare(rows, done=done)):
        if number == 5:
            os.kill(os.getpid(), signal.SIGINT)
        yield row

tuner.evidence.validate.compare = interrupted
main()
"""


# Completion


def completed(words: str, *, cwd: Path) -> list[str]:
    """What bash is offered for the last of the words, which may be empty."""
    asked = {"_SERVETUNE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    code = "import sys; sys.argv = ['servetune']; from tuner.cli import main; main()"
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(root)} | asked,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("servetune tune gpt-oss-120b-b200-ch", ["gpt-oss-120b-b200-chat"]),
        ("servetune tune smal", ["small.yaml"]),
        ("servetune tune small.yaml --runner rec", ["recorded"]),
        ("servetune report sma", ["small"]),
        ("servetune report --studies nowhere sma", []),
        ("servetune simulate small.yaml --calibrate sma", ["small"]),
        ("servetune list rec", ["recordings"]),
        ("servetune deploy small --target kub", ["kubernetes"]),
        ("servetune champion pro", ["promote"]),
    ],
)
def test_a_shell_completes(simulated, folder, words, offered):
    assert simulated.code == 0
    assert completed(words, cwd=folder) == offered


def test_what_a_shell_offers_is_what_the_commands_take():
    from tuner.show.catalogue import CATALOGUES, FACTS

    assert set(completion.RUNNERS) == set(RUNNERS)
    assert set(completion.LISTS) == set(CATALOGUES) == set(FACTS)
    assert set(completion.targets("")) == set(targets())
    assert set(completion.engines("")) == set(engines())
    assert set(completion.REPORT_FORMATS) == set(FORMATS)


# One prediction, corrected by a study


def test_a_study_of_predictions_holds_nothing_to_calibrate_with(simulated, folder):
    assert simulated.code == 0
    said = refused(run("simulate", "small.yaml", "--calibrate", "small", cwd=folder))
    assert "holds predictions, not measurements" in said


def test_a_study_of_another_model_abstains_and_says_what_it_measured(replayed, folder):
    assert replayed.code == 0
    result = run("simulate", "small.yaml", "--load", 8, "--calibrate", "replayed", cwd=folder)
    plain = run("simulate", "small.yaml", "--load", 8, cwd=folder)
    assert result.code == plain.code == 0, result.errors
    assert "Not calibrated, the prediction stands as it is: no measurement of gpt-oss-120b in" in result.words
    assert "measured: llama-3.1-8b in fp8 on h200" in result.words
    assert plain.output in result.output


def test_a_recorded_study_corrects_a_prediction_and_says_by_how_much(folder):
    tuned = run("tune", GPT_OSS, "--trials", 8, "--no-track", "--study", "measured", "-q", cwd=folder)
    assert tuned.code == 0, tuned.errors
    arguments = ("simulate", GPT_OSS, "--set", "layout.tensor=4", "--load", 64)
    plain = json.loads(run(*arguments, "--json", cwd=folder).output)
    corrected = json.loads(run(*arguments, "--calibrate", "measured", "--json", cwd=folder).output)
    found = corrected["calibration"]
    assert found["abstained"] is None
    assert FEWEST <= found["measurements"] <= found["measured"]
    assert found["decode_factor"] != 1
    assert corrected["tpot_ms"]["mean"] != plain["tpot_ms"]["mean"]
    for name in ("ttft", "tpot"):
        interval = found[f"mean_{name}_ms_interval"]
        assert interval["low"] < corrected[f"{name}_ms"]["mean"] < interval["high"]
    shown = run(*arguments, "--calibrate", "measured", cwd=folder)
    assert "decode steps x " in shown.words
    assert "mean TPOT, 80% interval" in shown.words
