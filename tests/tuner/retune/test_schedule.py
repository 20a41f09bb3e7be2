"""Schedules, read by the tools of the systems that will run them."""

import datetime as dt
import shutil
import subprocess
import sys

import pytest
from croniter import croniter
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from search_spaces.errors import InputError
from tuner.retune.schedule import (
    Scheduled,
    calendars,
    check_cron,
    cron,
    github,
    kubernetes,
    render,
    systemd,
    systemd_units,
)

NIGHTLY = Scheduled(when="17 5 * * 1-5", experiment="experiments/gpt-oss-120b-b200-chat.yaml", options=("--promote",))
AWKWARD = Scheduled(when="*/30 0,12 1 * *", experiment="my experiments/100%.yaml", options=("--engine", "trtllm"))
BOTH = pytest.mark.parametrize("scheduled", [NIGHTLY, AWKWARD])


@BOTH
def test_the_workflow_keeps_githubs_schema(scheduled, tmp_path):
    path = tmp_path / "retune.yml"
    path.write_text(github(scheduled))
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@BOTH
def test_the_shell_of_the_workflow_and_of_the_cron_job_is_valid(scheduled):
    steps = YAML(typ="safe").load(github(scheduled))["jobs"]["retune"]["steps"]
    container = YAML(typ="safe").load(kubernetes(scheduled))["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    scripts = [step["run"] for step in steps if "run" in step]
    scripts.append(container["containers"][0]["command"][2])
    for script in scripts:
        assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


@pytest.mark.parametrize(("code", "ends"), [(0, 0), (10, 0), (20, 0), (1, 1), (2, 2)])
def test_a_verdict_is_no_failure_of_the_cron_job(code, ends, tmp_path):
    fake = tmp_path / "servetune"
    fake.write_text(f"#!/bin/sh\nexit {code}\n")
    fake.chmod(0o755)
    job = YAML(typ="safe").load(kubernetes(NIGHTLY))
    command = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["command"]
    done = subprocess.run(command, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=False)
    assert done.returncode == ends


@BOTH
def test_the_cron_job_keeps_the_kubernetes_api(scheduled):
    import kubernetes_validate

    job = YAML(typ="safe").load(kubernetes(scheduled))
    kubernetes_validate.validate(job, "1.31", strict=True)


def test_a_broken_cron_job_would_be_seen():
    import kubernetes_validate

    job = YAML(typ="safe").load(kubernetes(NIGHTLY))
    job["spec"]["jobTemplate"]["spec"]["backoffLimit"] = "often"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, "1.31", strict=True)


def test_a_cron_job_has_a_name_that_its_jobs_can_add_to():
    job = YAML(typ="safe").load(kubernetes(Scheduled(when="0 0 * * *", experiment=f"{'Long_name ' * 20}.yaml")))
    name = job["metadata"]["name"]
    assert len(name) <= 52
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert name[-1] != "-"


@BOTH
def test_the_cron_line_is_read_by_croniter_and_its_command_by_a_shell(scheduled):
    import shlex

    line = cron(scheduled).splitlines()[1]
    when, command = " ".join(line.split()[:5]), " ".join(line.split()[5:])
    assert croniter.is_valid(when)
    assert "%" not in command.replace(r"\%", "")
    assert shlex.split(command.replace(r"\%", "%"))[3:] == scheduled.command


@BOTH
@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_the_units_are_accepted_by_systemd(scheduled, tmp_path):
    units = systemd_units(systemd(scheduled))
    assert sorted(name.rpartition(".")[2] for name in units) == ["service", "timer"]
    paths = [tmp_path / name for name in units]
    for path, text in zip(paths, units.values(), strict=True):
        path.write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", "--user", *paths], capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if "servetune" in line]
    assert not said, done.stderr


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
@pytest.mark.parametrize(
    "when", ["17 5 * * *", "*/15 * * * *", "0 6 1 * *", "0 0 * * 1-5", "5,35 4 * 1,7 *", "0 9 * * 0"]
)
def test_systemd_and_cron_agree_on_the_next_time(when):
    start = dt.datetime(2026, 3, 4, 5, 6, tzinfo=dt.UTC)
    (calendar,) = calendars(when)
    command = ["systemd-analyze", "calendar", "--base-time", "2026-03-04 05:06:00 UTC", calendar]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"TZ": "UTC", "PATH": "/usr/bin"})
    assert done.returncode == 0, done.stderr
    elapse = next(line for line in done.stdout.splitlines() if "Next elapse" in line).split(": ", 1)[1]
    expected = croniter(when, start).get_next(dt.datetime)
    assert elapse == f"{expected:%a %Y-%m-%d %H:%M:%S} UTC"


def test_days_of_the_month_and_of_the_week_together_are_either_as_cron_has_it():
    assert calendars("0 3 1 * 1") == ["*-*-1 3:0:00 UTC", "Mon *-*-* 3:0:00 UTC"]


FIELD = st.from_regex(r"[0-9*/,\-]{1,8}", fullmatch=True)


@given(FIELD)
def test_what_is_accepted_as_a_schedule_croniter_accepts_too(field):
    when = f"{field} 5 * * *"
    try:
        check_cron(when)
    except InputError:
        return
    assert croniter.is_valid(when)


@pytest.mark.parametrize("when", ["* * * *", "60 * * * *", "a * * * *", "0 0 0 * *", "*/0 * * * *", "5-1 * * * *"])
def test_what_is_no_schedule_is_refused(when):
    with pytest.raises(InputError, match="--schedule"):
        render("cron", Scheduled(when=when, experiment="x.yaml"))


def test_an_unknown_kind_lists_the_valid_ones():
    with pytest.raises(InputError, match="valid: kubernetes, "):
        render("kubernets", NIGHTLY)


@pytest.mark.parametrize("kind", ["github", "kubernetes", "systemd", "cron"])
def test_no_schedule_holds_credentials(kind):
    options = ("--tracking-uri", "https://me:hunter2@mlflow.example:5000")
    with pytest.raises(InputError) as caught:
        render(kind, Scheduled(when="0 0 * * *", experiment="x.yaml", options=options))
    assert "hunter2" not in str(caught.value)
