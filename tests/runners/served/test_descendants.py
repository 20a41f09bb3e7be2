"""What is known of processes that another one reaps: real ones, ended by real signals."""

import os
import select
import signal
import subprocess
import sys

import pytest

from runners.served import descendants as module
from runners.served.descendants import Descendants
from tests.runners.served.kernel import NEEDS_MEMORY_OF_THE_REAPED

PARENT = """
import os, sys, time
child = os.fork()
if child == 0:
    time.sleep(600)
print(child, flush=True)
sys.stdin.readline()
print(os.waitpid(child, 0)[1], flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def parent():
    """A process with one child, which it reaps when it is written a line."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as it:
        yield it
        it.kill()


@pytest.fixture
def family(parent):
    """What is below that process, and the child's number."""
    child = int(parent.stdout.readline())
    below = Descendants(parent.pid)
    below.look()
    yield below, child
    below.release()


def wait_for_the_end(child):
    held = os.pidfd_open(child)
    assert select.select([held], [], [], 20) == ([held], [], [])
    os.close(held)


def reaped(parent):
    """The wait status that the parent was given."""
    parent.stdin.write("\n")
    parent.stdin.flush()
    return int(parent.stdout.readline())


@pytest.mark.parametrize("number", [signal.SIGILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGKILL])
def test_a_signal_is_known_of_a_child_that_nobody_has_asked_after(family, number):
    below, child = family
    assert below.killed_by is None
    os.kill(child, number)
    wait_for_the_end(child)
    assert below.killed_by == number


@NEEDS_MEMORY_OF_THE_REAPED
def test_a_signal_is_known_though_the_parent_has_reaped_its_child(parent, family):
    below, child = family
    os.kill(child, signal.SIGKILL)
    assert os.WTERMSIG(reaped(parent)) == signal.SIGKILL
    assert below.killed_by == signal.SIGKILL


def test_an_older_kernel_knows_nothing_of_a_reaped_child(parent, family, monkeypatch):
    monkeypatch.setattr(module, "PIDFD_GET_INFO", 0)
    below, child = family
    os.kill(child, signal.SIGKILL)
    reaped(parent)
    assert below.killed_by is None


def test_a_child_that_was_asked_to_end_was_not_killed(parent, family):
    below, child = family
    os.kill(child, signal.SIGTERM)
    reaped(parent)
    assert below.killed_by is None


def test_a_process_that_is_gone_has_no_descendants():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    below = Descendants(process.pid)
    below.look()
    assert below.killed_by is None
