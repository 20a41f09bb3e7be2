"""servetune report: what it writes, and what it refuses."""

import json

import pytest
from typer.testing import CliRunner

from search_spaces.errors import InputError
from tests.studies import CHAT, INFEASIBLE, OTHER, WINNER, study_of
from tuner.cli import app, main


def servetune(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_suffix_decides_the_format_and_nothing_is_overwritten(tmp_path):
    study_of(tmp_path, WINNER, OTHER)
    page = tmp_path / "made" / "report.md"
    assert servetune("report", CHAT, "--studies", tmp_path, "-o", page).exit_code == 0
    assert page.read_text().startswith(f"# {CHAT}")
    page.write_text("mine")
    refused = servetune("report", CHAT, "--studies", tmp_path, "-o", page)
    assert isinstance(refused.exception, InputError)
    assert "is there already; --force overwrites it" in str(refused.exception)
    assert page.read_text() == "mine"
    assert servetune("report", CHAT, "--studies", tmp_path, "-o", page, "--force").exit_code == 0
    assert page.read_text().startswith(f"# {CHAT}")
    assert list(page.parent.iterdir()) == [page]


def test_json_goes_to_standard_output(tmp_path):
    study_of(tmp_path, WINNER)
    done = servetune("report", CHAT, "--studies", tmp_path, "--json", "--revenue-per-million", "2")
    assert json.loads(done.stdout)["month"]["revenue"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--format", "pdf"), "unknown format 'pdf'; valid: "),
        (("-o", "report.docx"), "unknown kind of report 'docx'; valid: html, md, json, csv"),
        (("-o", "."), "unknown kind of report ''"),
        (("-o", ".", "--format", "md"), "is a folder; name a file"),
    ],
)
def test_bad_input_is_refused(tmp_path, monkeypatch, arguments, message):
    study_of(tmp_path, WINNER)
    monkeypatch.chdir(tmp_path)
    assert message in str(servetune("report", CHAT, "--studies", tmp_path, *arguments).exception)


def test_a_study_without_a_measurement_exits_with_2_and_no_traceback(tmp_path, monkeypatch, capsys):
    study_of(tmp_path, INFEASIBLE)
    monkeypatch.setattr("sys.argv", ["servetune", "report", CHAT, "--studies", str(tmp_path), "--json"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "none of its 1 trials was measured" in capsys.readouterr().err
