"""servetune measure: a deployment that is running, as users load it."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.commands import COMMAND, DEPLOYED
from tests.runners.load.golden_server import GoldenServer, Plan


def measure(folder, *arguments, **environment):
    root = Path(__file__).parents[3]
    env = os.environ | {"PYTHONPATH": str(root)} | environment
    return subprocess.run(
        [*COMMAND, "measure", *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("measure")
    (folder / "chat.yaml").write_text(DEPLOYED)
    return folder


@pytest.fixture(scope="module")
def server():
    with GoldenServer(Plan(ttft_s=0.02, tpot_s=0.005, seats=12)) as server:
        yield server


def test_one_load_is_shown_against_the_slo_and_its_cost(folder, server):
    result = measure(folder, "chat.yaml", "--url", server.url, "--load", "4")
    words = " ".join(result.stdout.split())
    assert result.returncode == 0, result.stderr
    assert "load 4 requests in flight: SLA met; 50 requests (all answered)" in words
    assert "SLO limit measured headroom" in words
    assert "Source: measured, by servetune: 50 requests" in words
    assert "0 failed" in words


def test_json_has_the_measurement_and_nothing_else(folder, server):
    result = measure(folder, "chat.yaml", "--url", server.url, "--load", "4", "--gpus", "1", "--json")
    level = json.loads(result.stdout)
    assert (level["source"], level["requests"], level["gpus"], level["load"]) == ("measured", 50, 1, 4)
    assert level["gpus_left_over"] == 0
    assert 20 <= level["ttft_ms"]["p50"] <= level["ttft_ms"]["p99"]
    assert "load 4 requests in flight: SLA met" in result.stderr


def test_without_a_load_the_highest_that_meets_the_sla_is_found_in_7_levels_at_most(folder, server):
    result = measure(folder, "chat.yaml", "--url", server.url)
    levels = [line for line in result.stdout.splitlines() if line.startswith("load ")]
    assert result.returncode == 0, result.stderr
    assert 2 <= len(levels) <= 7
    kept = [int(line.split()[1]) for line in levels if "SLA met" in line]
    missed = [int(line.split()[1]) for line in levels if "SLA missed" in line]
    # The server has 12 seats: far above, requests wait for longer than they may.
    assert 8 <= max(kept) < min(missed) <= 40


OWN_ENGINE = """\
title: My engine
versions: [1.0.0]
times_of: vllm@0.27.0
command: [my-server, '{checkpoint}', --port, '{port}']
server: {ignore_eos: false, min_tokens: false, usage_in_streams: false, model_name: '{checkpoint}'}
"""


def test_a_server_of_ones_own_engine_is_asked_only_for_what_it_takes(tmp_path):
    (tmp_path / "my-engine").mkdir()
    (tmp_path / "my-engine" / "engine.yaml").write_text(OWN_ENGINE)
    (tmp_path / "own.yaml").write_text(DEPLOYED.replace("engines: [vllm]", "engines: [./my-engine]"))
    plan = Plan(ttft_s=0.02, tpot_s=0.005, knows=(), done=False, ids=False, usage="", histograms=False)
    with GoldenServer(plan) as server:
        given = ["--url", server.url, "--load", "4", "--model-name", plan.model]
        result = measure(tmp_path, "own.yaml", *given)
    assert result.returncode == 0, result.stderr
    assert "Not had of this server: the server's count of tokens" in " ".join(result.stdout.split())


def test_a_missed_sla_exits_with_3(folder):
    with GoldenServer(Plan(ttft_s=0.1, tpot_s=0.002)) as slow:
        result = measure(folder, "chat.yaml", "--url", slow.url, "--load", "2")
    assert result.returncode == 3
    assert "SLA missed" in result.stdout


def test_a_run_that_fails_exits_with_1_and_the_cause(folder):
    with GoldenServer(Plan(fail="error", fail_from=1)) as broken:
        result = measure(folder, "chat.yaml", "--url", broken.url, "--load", "2")
    assert result.returncode == 1
    assert "HTTP 500: 20 requests in a row failed" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_key_comes_from_the_environment_and_is_never_shown(folder):
    with GoldenServer(Plan(ttft_s=0.01, tpot_s=0.001, key="s3cret")) as server:
        refused = measure(folder, "chat.yaml", "--url", server.url, "--load", "1")
        given = ["chat.yaml", "--url", server.url, "--load", "2", "--api-key-env", "THE_KEY"]
        taken = measure(folder, *given, THE_KEY="s3cret")
        wrong = measure(folder, *given, THE_KEY="0ther")
    assert refused.returncode == wrong.returncode == 2
    assert "wants an API key: name its variable with --api-key-env" in refused.stderr
    assert taken.returncode == 0
    assert "0ther" not in wrong.stdout + wrong.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--gpus", "2"], "without --url only --load, --set and --json are taken"),
        (["--url", "ftp://there"], "must begin with http:// or https://"),
        (["--url", "http://127.0.0.1:9"], "unreachable: http://127.0.0.1:9"),
        (["--url", "{server}/other"], "no OpenAI-compatible server: GET /v1/models gave HTTP 404"),
        (["--url", "{server}", "--model-name", "gold"], "unknown model at {server} 'gold'; valid: golden"),
        (["--url", "{server}", "--with", "aiperf"], "--with aiperf needs --load"),
        (["--url", "{server}", "--with", "aiperf", "--load", "1"], "which is not installed here"),
        (["--url", "{server}", "--api-key-env", "NOT_SET"], "NOT_SET holds no API key"),
    ],
)
def test_bad_input_exits_with_2_and_says_what_holds(folder, server, arguments, told):
    given = [argument.replace("{server}", server.url) for argument in arguments]
    result = measure(folder, "chat.yaml", *given, PATH="")
    assert result.returncode == 2
    assert told.replace("{server}", server.url) in result.stderr
    assert "Traceback" not in result.stderr
