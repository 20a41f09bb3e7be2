"""A server's process: dead when the `with` ends, whatever it did meanwhile."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from runners.runner import RunFailedError
from runners.served.process import free_ports, is_free, running, wait_until_free

FAKE = Path(__file__).parent / "fake_server.py"


def start(tmp_path, *args, patience_s=10.0):
    (port,) = free_ports(1)
    argv = [sys.executable, str(FAKE), "--port", str(port), *args]
    env = {**os.environ, "FAKE_OF": f"test {tmp_path}"}
    return port, running(argv, log=tmp_path / "server.log", cwd=tmp_path, env=env, patience_s=patience_s)


def of_this_test(tmp_path):
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("FAKE_OF") == f"test {tmp_path}":
                found.append(process)
        except psutil.Error:
            continue
    return found


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize("how", ["", "ignores_term", "daemon", "orphans", "hang_at_start"])
def test_nothing_of_a_server_lives_when_the_with_ends(tmp_path, how):
    port, server = start(tmp_path, "--fail", how, patience_s=1.0)
    with server as process:
        until(lambda: "starting" in (tmp_path / "server.log").read_text())
        until(lambda: how == "hang_at_start" or not is_free(port))
        if how == "orphans":
            until(lambda: process.exit_code == -signal.SIGKILL)
        assert of_this_test(tmp_path)
    assert of_this_test(tmp_path) == []
    wait_until_free([port], limit_s=10)
    assert (tmp_path / "server.log").read_text().startswith("starting")


def test_a_worker_that_leaves_the_session_is_found_by_its_mark(tmp_path):
    _, server = start(tmp_path, "--fail", "daemon")
    with server as process:
        until(lambda: len(process.survivors()) >= 2)
        os.kill(process.pid, signal.SIGKILL)
        until(lambda: process.exit_code is not None)
        until(lambda: len(process.survivors()) == 1)
    assert of_this_test(tmp_path) == []


def test_the_server_dies_too_when_the_one_who_started_it_is_killed(tmp_path):
    (port,) = free_ports(1)
    script = f"""
import os, sys, time
from pathlib import Path
from runners.served.process import running
argv = [sys.executable, {str(FAKE)!r}, "--port", "{port}", "--fail", "ignores_term"]
with running(argv, log=Path({str(tmp_path)!r}) / "log", cwd=Path({str(tmp_path)!r}), env=dict(os.environ)):
    time.sleep(60)
"""
    env = {**os.environ, "FAKE_OF": f"test {tmp_path}", "PYTHONPATH": str(FAKE.parents[3])}
    owner = subprocess.Popen([sys.executable, "-c", script], env=env)
    until(lambda: not is_free(port))
    owner.kill()
    owner.wait()
    until(lambda: of_this_test(tmp_path) == [])
    assert is_free(port)


def test_a_program_that_is_not_there_is_an_environment_failure(tmp_path):
    with (
        pytest.raises(RunFailedError, match="engine not installed: /nowhere/vllm: No such file") as caught,
        running(["/nowhere/vllm"], log=tmp_path / "log", cwd=tmp_path, env={}),
    ):
        pass
    assert caught.value.environment


def test_a_log_that_cannot_be_made_is_told_with_its_path(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(RunFailedError, match=r"no log: .*file/log: File exists"),
        running([sys.executable], log=tmp_path / "file" / "log", cwd=tmp_path, env={}),
    ):
        pass


def test_free_ports_differ_and_are_free():
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(map(is_free, ports))


def test_a_port_that_stays_held_is_told():
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        assert not is_free(port)
        with pytest.raises(RunFailedError, match="port in use"):
            wait_until_free([port], limit_s=0.1)
