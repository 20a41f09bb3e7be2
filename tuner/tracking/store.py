"""The store of MLflow runs: its address, what may be said of it, and whether it can be one."""

import os
import re
import shlex
import sqlite3
from contextlib import closing
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from search_spaces.errors import InputError, UnknownNameError
from tuner.scenario.scenario import Scenario

SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https", "databricks")
DEFAULT_URI = "sqlite:///mlflow.db"

EXPERIMENTS = "servetune/"
"""What the names of MLflow experiments begin with."""

SQLITE_HEADER = b"SQLite format 3\0"
SECRET_NAMES = ("password", "passwd", "pwd", "token", "secret")


def experiment_name(scenario: Scenario) -> str:
    """The MLflow experiment that holds a scenario's studies."""
    return EXPERIMENTS + scenario.name


def default_tracking_uri() -> str:
    """Where runs go when nothing is said: MLFLOW_TRACKING_URI, else MLflow's default in this directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def open_command(uri: str) -> str:
    """What opens the runs: a command, or the address of a server. Shows no credentials."""
    scheme = _scheme(uri)
    if scheme in ("http", "https"):
        return shown(uri)
    if scheme == "databricks":
        return "the Experiments page of the Databricks workspace"
    if shown(uri) != uri:
        return 'mlflow ui --backend-store-uri "$MLFLOW_TRACKING_URI"'
    return shlex.join(["mlflow", "ui", "--backend-store-uri", uri])


def runs_location(uri: str, scenario: Scenario) -> str:
    """Where a scenario's runs are, in words. Shows no credentials."""
    return f"experiment {experiment_name(scenario)} in {sqlite_file(uri) or shown(uri)}"


def shown(uri: str) -> str:
    """A tracking address as people may see it: without credentials and query."""
    if _scheme(uri) == "sqlite":
        return uri
    return re.sub(r"//.*@", "//***@", uri).partition("?")[0]


def check_tracking_uri(uri: str) -> None:
    """Raises InputError for an address that MLflow cannot keep runs at, as far as is known without it."""
    scheme = _scheme(uri)
    if scheme in ("", "file"):
        path = unquote(uri.removeprefix("file:"))
        raise InputError(
            f"tracking URI {uri!r} is a folder or file, where MLflow no longer keeps runs; "
            f"use a database in it: {_database_for(path)}"
        )
    if scheme not in SCHEMES:
        plugins = {plugin.name for plugin in entry_points(group="mlflow.tracking_store")}
        if scheme not in plugins:
            raise UnknownNameError("tracking URI scheme", scheme, (*SCHEMES, *sorted(plugins)))
    if scheme in ("http", "https") and not uri.startswith(f"{scheme}://"):
        raise InputError(f"tracking URI {shown(uri)!r} names no host; it should look like {scheme}://host:5000")
    if scheme == "sqlite":
        _check_sqlite(uri)


def _check_sqlite(uri: str) -> None:
    path = sqlite_file(uri)
    if path is None:
        raise InputError(f"tracking URI {uri!r} names no file; it should look like {DEFAULT_URI}")
    if path.is_dir():
        raise InputError(f"{path}: is a folder, not an MLflow store; use {_database_for(str(path))}")
    nearest = path if path.exists() else next(folder for folder in path.parents if folder.exists())
    if not os.access(nearest, os.R_OK | os.W_OK) or (nearest != path and not nearest.is_dir()):
        raise InputError(f"{path}: cannot be an MLflow store: {nearest} is not writable")
    if path.exists() and path.stat().st_size:
        _check_database(path)


def _check_database(path: Path) -> None:
    with path.open("rb") as file:
        found = file.read(len(SQLITE_HEADER))
    if found != SQLITE_HEADER:
        raise InputError(f"{path}: is not an MLflow store: an SQLite file is expected, but it begins with {found!r}")
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            names = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.OperationalError:
        return  # in use just now; the writer will see
    except sqlite3.DatabaseError as error:
        raise InputError(f"{path}: is not an MLflow store: SQLite cannot read it: {error}") from None
    if names and "experiments" not in names:
        tables = ", ".join(sorted(names))
        raise InputError(f"{path}: is not an MLflow store but another SQLite database, with the tables {tables}")


def _scheme(uri: str) -> str:
    if uri == "databricks":
        return uri
    scheme, colon, _ = uri.partition(":")
    return scheme.partition("+")[0] if colon else ""


def sqlite_file(uri: str) -> Path | None:
    """The absolute path of an SQLite store; None for another, and where no file is named."""
    _, slashes, path = uri.partition("?")[0].partition(":///")
    if _scheme(uri) != "sqlite" or not slashes or path in ("", ":memory:"):
        return None
    return Path(path).absolute()


def absolute_uri(uri: str) -> str:
    path = sqlite_file(uri)
    if path is None:
        return uri
    _, experiment, query = uri.partition("?")
    return f"{uri.partition(':')[0]}:///{path}{experiment}{query}"


def _database_for(path: str) -> str:
    name = path if path.endswith((".db", ".sqlite", ".sqlite3")) else f"{path.rstrip('/')}/mlflow.db"
    return f"sqlite:///{name.removeprefix('//')}"


def hidden(text: str, uri: str) -> str:
    """`text` without the credentials of `uri` and of the environment."""
    for secret in sorted(_secrets(uri), key=len, reverse=True):
        text = text.replace(secret, "***")
    return re.sub(r"://[^\s'\"/]*@", "://***@", text)


def _secrets(uri: str) -> set[str]:
    environment = {os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in ("PASSWORD", "TOKEN")}
    if _scheme(uri) == "sqlite":
        return environment - {""}
    credentials = re.search(r"//(.*)@", uri)
    user, colon, password = credentials.group(1).partition(":") if credentials else ("", "", "")
    query = {value for name, value in parse_qsl(urlsplit(uri).query) if name.lower() in SECRET_NAMES}
    plain = {password if colon else user} | query | environment
    return (plain | {unquote(secret) for secret in plain}) - {""}
