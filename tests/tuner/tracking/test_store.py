"""Addresses of stores of runs: which are taken, and what is said of them."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from search_spaces.errors import InputError
from tests.tuner.tracking.trials import SCENARIO
from tuner.tracking.mlflow_tracker import MlflowTracker
from tuner.tracking.store import (
    check_tracking_uri,
    default_tracking_uri,
    hidden,
    open_command,
    runs_location,
    shown,
)

SECRET = "hunter2"


def sqlite_with(table: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with closing(sqlite3.connect(path)) as database:
            database.execute(f"CREATE TABLE {table} (id INTEGER)")

    return make


def damaged(path: Path) -> None:
    sqlite_with("experiments")(path)
    content = bytearray(path.read_bytes())
    content[100:200] = b"\xff" * 100
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda path: path.write_text("not a database"), "begins with b'not a database'"),
        (sqlite_with("studies"), "another SQLite database, with the tables studies"),
        (damaged, "SQLite cannot read it"),
    ],
    ids=["text", "another program's", "damaged"],
)
def test_a_file_that_is_no_store_is_named_and_left_as_it_was(tmp_path, make, found):
    path = tmp_path / "mlflow.db"
    make(path)
    before = path.read_bytes()
    with pytest.raises(InputError) as error:
        MlflowTracker(SCENARIO, study="chat-1", tracking_uri=f"sqlite:///{path}")
    assert str(path) in str(error.value)
    assert found in str(error.value)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_no_store(tmp_path):
    with pytest.raises(InputError, match="is a folder") as error:
        check_tracking_uri(f"sqlite:///{tmp_path}")
    assert f"sqlite:///{tmp_path}/mlflow.db" in str(error.value)


def test_a_store_inside_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="not writable"):
        check_tracking_uri(f"sqlite:///{tmp_path}/file/mlflow.db")


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("mlruns", "sqlite:///mlruns/mlflow.db"),
        ("runs.db", "sqlite:///runs.db"),
        ("file:///data/mlruns", "sqlite:////data/mlruns/mlflow.db"),
        ("sqlite://mlflow.db", "it should look like sqlite:///mlflow.db"),
        ("sqlite:///:memory:", "names no file"),
        ("http:/localhost:5000", "it should look like http://host:5000"),
        (
            f"postgres://someone:{SECRET}@host/db",
            "unknown tracking URI scheme 'postgres'; valid: postgresql,",
        ),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_with_one_that_can(uri, says):
    with pytest.raises(InputError) as error:
        check_tracking_uri(uri)
    assert says in str(error.value)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("uri", ["postgresql+psycopg2://u:p@host/db", "mysql://host/db", "https://host", "databricks"])
def test_every_kind_of_store_that_mlflow_knows_is_accepted(uri):
    check_tracking_uri(uri)


def test_without_a_word_runs_go_where_mlflow_puts_them(monkeypatch):
    assert default_tracking_uri() == "sqlite:///mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    assert default_tracking_uri() == "http://tracking:5000"


def test_people_are_told_where_the_runs_are_and_what_opens_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    local = "sqlite:///mlflow.db"
    assert open_command(local) == "mlflow ui --backend-store-uri sqlite:///mlflow.db"
    assert runs_location(local, SCENARIO) == f"experiment servetune/chat in {tmp_path}/mlflow.db"
    assert open_command("http://tracking:5000") == "http://tracking:5000"


@pytest.mark.parametrize(
    "uri",
    [
        f"postgresql://someone:{SECRET}@host/db",
        f"postgresql://someone:{SECRET}/with@signs@host/db",
        f"mysql://host/db?user=me&password={SECRET}",
        f"https://someone:{SECRET}@host:5000",
        f"https://{SECRET}@host:5000",
        f"mysql://someone:p@{SECRET}/p@host/db",
    ],
)
def test_a_password_is_never_shown(uri):
    assert SECRET not in shown(uri) + open_command(uri) + runs_location(uri, SCENARIO)
    assert SECRET not in hidden(f"cannot connect to {uri} (host)", uri)
