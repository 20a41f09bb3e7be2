"""Schedules: a retune as a GitHub Actions workflow, a Kubernetes CronJob, a systemd timer or a cron line.

Each is text to be kept with the user's own files. None holds a secret: the address of MLflow comes from where that
system keeps such things, unless one without credentials was given.
"""

import io
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from search_spaces.errors import InputError, UnknownNameError
from tuner.tracking.store import shown

FIELDS = ("minute", "hour", "day of the month", "month", "day of the week")
RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
LONGEST_NAME = 52
"""Of a CronJob: Kubernetes adds eleven characters, and a Job's name has at most 63."""

LONGEST_H = 6
KEPT = "/var/lib/servetune"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduled:
    """A retune to run: when (five fields of cron, in UTC), of what, and with which options."""

    when: str
    experiment: str
    options: tuple[str, ...] = ()

    @property
    def command(self) -> list[str]:
        return ["servetune", "retune", self.experiment, *self.options]

    @property
    def name(self) -> str:
        """Lower case, digits and dashes, for names of resources and units."""
        stem = Path(self.experiment).stem.lower()
        return "retune-" + (re.sub(r"[^a-z0-9]+", "-", stem).strip("-")[: LONGEST_NAME - 7].strip("-") or "all")


def render(kind: str, scheduled: Scheduled) -> str:
    """Raises InputError for a schedule that cron would not take, for an address with credentials, or a kind."""
    check_cron(scheduled.when)
    _check_secrets(scheduled.options)
    if kind not in KINDS:
        raise UnknownNameError("schedule", kind, KINDS)
    return KINDS[kind](scheduled)


def check_cron(text: str) -> None:
    """Raises InputError for what is not five fields of numbers, `*`, ranges, steps and lists."""
    fields = text.split()
    if len(fields) != len(FIELDS):
        raise InputError(f"--schedule {text!r}: five fields are needed ({', '.join(FIELDS)}), but got {len(fields)}")
    for name, field, (low, high) in zip(FIELDS, fields, RANGES, strict=True):
        for part in field.split(","):
            if not _is_part(part, low, high):
                raise InputError(
                    f"--schedule {text!r}: {name} must hold numbers from {low} to {high}, *, a-b, */n or lists of "
                    f"these, but has {part!r}"
                )


def _is_part(text: str, low: int, high: int) -> bool:
    found = re.fullmatch(r"(\*|\d+(?:-\d+)?)(?:/(\d+))?", text)
    if not found:
        return False
    numbers = [int(number) for number in re.findall(r"\d+", found[1])]
    step = int(found[2] or 1)
    steps_a_number = found[2] is not None and found[1].isdigit()  # some crons take 5/10, some do not
    return (
        1 <= step <= high
        and not steps_a_number
        and numbers == sorted(numbers)
        and all(low <= n <= high for n in numbers)
    )


def _check_secrets(options: tuple[str, ...]) -> None:
    for option in options:
        if "://" in option and shown(option) != option:
            raise InputError(
                f"--tracking-uri {shown(option)}: holds credentials, which do not belong into a schedule; leave it "
                "out and set MLFLOW_TRACKING_URI where the schedule runs"
            )


def cron(scheduled: Scheduled) -> str:
    """A line for crontab; `%` ends a command there and is escaped."""
    command = shlex.join(scheduled.command).replace("%", r"\%")
    return (
        f"# {scheduled.name}: exit 10 recommends a switch, 20 is a regression. Times are the machine's own.\n"
        f"{scheduled.when} cd $HOME/servetune && {command}\n"
    )


def systemd(scheduled: Scheduled) -> str:
    """Two units in one text, each below its file's name."""
    quoted = " ".join(_unit_word(word) for word in scheduled.command[1:])
    service = (
        f"[Unit]\nDescription=Retune {_percent(scheduled.experiment)}\nWants=network-online.target\n"
        "After=network-online.target\n\n"
        "[Service]\nType=oneshot\n"
        "# A switch is recommended (10) or a release regressed (20): both are verdicts, not failures.\n"
        "SuccessExitStatus=10 20\nWorkingDirectory=%h/servetune\n"
        "# MLFLOW_TRACKING_URI=... and what else is not for everybody's eyes; mode 600.\n"
        "EnvironmentFile=-%h/.config/servetune.env\nEnvironment=PATH=%h/.local/bin:/usr/local/bin:/usr/bin:/bin\n"
        f"ExecStart=/usr/bin/env servetune {quoted}\nTimeoutStartSec={LONGEST_H}h\n"
    )
    timer = (
        f"[Unit]\nDescription=Retune {_percent(scheduled.experiment)} on schedule\n\n[Timer]\n"
        + "".join(f"OnCalendar={one}\n" for one in calendars(scheduled.when))
        + "Persistent=true\nRandomizedDelaySec=5min\n\n[Install]\nWantedBy=timers.target\n"
    )
    where, unit = "~/.config/systemd/user", f"servetune-{scheduled.name}"
    return (
        f"# {where}/{unit}.service\n{service}\n# {where}/{unit}.timer\n{timer}\n"
        f"# systemctl --user enable --now {unit}.timer\n"
    )


def systemd_units(text: str) -> dict[str, str]:
    """The units of `systemd`'s text by their file's name."""
    parts = re.split(r"^# ~/\.config/systemd/user/(\S+)\n", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def calendars(when: str) -> list[str]:
    """Calendar expressions of systemd for five fields of cron: two where days of both kinds are given, as in cron."""
    minute, hour, day, month, weekday = when.split()
    time = f"{_calendar(hour, 0)}:{_calendar(minute, 0)}:00"
    date = f"*-{_calendar(month, 1)}-{_calendar(day, 1)}"
    if weekday == "*":
        return [f"{date} {time} UTC"]
    days = f"{_weekdays(weekday)} *-{_calendar(month, 1)}-* {time} UTC"
    return [days] if day == "*" else [f"{date} {time} UTC", days]


def _calendar(field: str, first: int) -> str:
    """`*/15` as `0/15`, `1-5` as `1..5`."""
    parts = []
    for part in field.split(","):
        span, slash, step = part.partition("/")
        span = str(first) if span == "*" and slash else span.replace("-", "..")
        parts.append(span + slash + step)
    return ",".join(parts)


def _weekdays(field: str) -> str:
    found: list[str] = []
    for part in field.split(","):
        span, _, step = part.partition("/")
        low, _, high = ("0", "", "6") if span == "*" else span.partition("-")
        found += [DAYS[day] for day in range(int(low), int(high or low) + 1, int(step or 1))]
    return ",".join(dict.fromkeys(found))


def _percent(text: str) -> str:
    return text.replace("%", "%%")


def _unit_word(word: str) -> str:
    escaped = _percent(word).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{escaped}"' if re.search(r"[\s\"'\\;]", word) else escaped


def github(scheduled: Scheduled) -> str:
    """A workflow of GitHub Actions. Simulated runners need nothing more than a hosted machine."""
    retune = (
        "code=0\n"
        f"{shlex.join(scheduled.command)} || code=$?\n"
        'cat retunes/*.md >> "$GITHUB_STEP_SUMMARY" || true\n'
        'echo "code=$code" >> "$GITHUB_OUTPUT"\n'
        'case "$code" in 0|10) ;; *) exit "$code" ;; esac\n'
    )
    workflow: dict[str, Any] = {
        "name": f"servetune {scheduled.name}",
        "on": {"schedule": [{"cron": scheduled.when}], "workflow_dispatch": {}},
        "permissions": {"contents": "read"},
        "concurrency": {"group": scheduled.name, "cancel-in-progress": False},
        "jobs": {
            "retune": {
                "runs-on": "ubuntu-latest",
                "timeout-minutes": LONGEST_H * 60,
                "env": {"MLFLOW_TRACKING_URI": "${{ secrets.MLFLOW_TRACKING_URI }}"},
                "steps": [
                    {"uses": "actions/checkout@v4"},
                    {"uses": "actions/setup-python@v5", "with": {"python-version": "3.12"}},
                    {"run": f"pip install servetune=={_own_version()}"},
                    {"id": "retune", "name": "Keep, switch or roll back", "shell": "bash", "run": retune},
                    {
                        "name": "Keep the summary",
                        "if": "always()",
                        "uses": "actions/upload-artifact@v4",
                        "with": {"name": "retunes", "path": "retunes/", "if-no-files-found": "ignore"},
                    },
                    {
                        "name": "Say that a switch is recommended",
                        "if": "steps.retune.outputs.code == '10'",
                        "run": "echo '::warning::servetune recommends a switch; see the summary'",
                    },
                ],
            }
        },
    }
    return _yaml(workflow)


def kubernetes(scheduled: Scheduled) -> str:
    """A CronJob (batch/v1). IMAGE has to hold servetune, and the experiments in its working directory.

    Studies, and what MLflow did not take, outlive the pod in the volume claim `servetune`; the address of MLflow comes
    from the secret of that name.
    """
    command = shlex.join([*scheduled.command, "--studies", f"{KEPT}/studies", "--output", f"{KEPT}/retunes"])
    script = f'{command} || code=$?\ncase "${{code:-0}}" in 0|10|20) exit 0 ;; *) exit "$code" ;; esac\n'
    container = {
        "name": "retune",
        "image": f"IMAGE/servetune:{_own_version()}",
        # 10 and 20 are verdicts, kept in MLflow; only what failed is to be tried again.
        "command": ["/bin/sh", "-c", script],
        "envFrom": [{"secretRef": {"name": "servetune", "optional": True}}],
        "resources": {"requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"memory": "8Gi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "kept", "mountPath": KEPT}],
    }
    job: dict[str, Any] = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": scheduled.name, "labels": {"app.kubernetes.io/name": "servetune"}},
        "spec": {
            "schedule": scheduled.when,
            "timeZone": "Etc/UTC",
            "concurrencyPolicy": "Forbid",
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 3,
            "jobTemplate": {
                "spec": {
                    "backoffLimit": 1,
                    "activeDeadlineSeconds": LONGEST_H * 3600,
                    "template": {
                        "metadata": {"labels": {"app.kubernetes.io/name": "servetune"}},
                        "spec": {
                            "restartPolicy": "Never",
                            "automountServiceAccountToken": False,
                            "containers": [container],
                            "volumes": [{"name": "kept", "persistentVolumeClaim": {"claimName": "servetune"}}],
                        },
                    },
                }
            },
        },
    }
    return _yaml(job)


def _own_version() -> str:
    return version("servetune")


def _yaml(document: Mapping[str, Any]) -> str:
    from ruamel.yaml import YAML
    from ruamel.yaml.scalarstring import LiteralScalarString

    def literal(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: literal(part) for key, part in value.items()}
        if isinstance(value, list):
            return [literal(part) for part in value]
        return LiteralScalarString(value) if isinstance(value, str) and "\n" in value else value

    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    out = io.StringIO()
    yaml.dump(literal(document), out)
    return out.getvalue()


KINDS: Mapping[str, Callable[[Scheduled], str]] = {
    "github": github,
    "kubernetes": kubernetes,
    "systemd": systemd,
    "cron": cron,
}
