"""Hypothesis looks for new counterexamples on a developer's machine and repeats the same examples in CI."""

import os

import pytest
from hypothesis import settings

settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch):
    """Output is as wide as in a pipe, whatever terminal the tests run in."""
    for name in ("COLUMNS", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
