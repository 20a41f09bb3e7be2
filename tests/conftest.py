"""What holds for every test, however it is started.

Hypothesis looks for new counterexamples on a developer's machine and repeats the same examples in CI.
"""

import os
import signal

import pytest
from hypothesis import settings

settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

# A shell without job control has what it puts into the background ignore Ctrl-C, and with it all that is started there.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch):
    """Output is as wide as in a pipe, whatever terminal the tests run in."""
    for name in ("COLUMNS", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
