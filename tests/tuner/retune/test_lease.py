"""The lease: one holder at a time, in a store that is shared, and none for ever."""

import json
import subprocess
import sys
import threading

import pytest

from tuner.retune.lease import KEY, Lease, ModelTags, TakenError
from tuner.retune.registry import Store


class MemoryTags:
    def __init__(self):
        self.tags = {}

    def read(self):
        return dict(self.tags)

    def write(self, key, value):
        self.tags[key] = value

    def drop(self, key):
        self.tags.pop(key, None)


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def lease(tags, clock, **options):
    return Lease(tags=tags, clock=clock, sleep=clock.sleep, **options)


def test_a_lease_is_held_within_its_block_and_gone_after_it():
    tags, clock = MemoryTags(), Clock()
    with lease(tags, clock) as held:
        assert held.held
        assert len(tags.tags) == 1
    assert tags.tags == {}


def test_a_second_leaves_and_says_who_is_at_it():
    tags, clock = MemoryTags(), Clock()
    with lease(tags, clock, who="ci@build:7"):
        with pytest.raises(TakenError, match=r"ci@build:7 is at it, for another 120 s"):
            lease(tags, clock).__enter__()
        assert len(tags.tags) == 1


def test_a_second_may_wait_for_the_first():
    tags, clock = MemoryTags(), Clock()
    first = lease(tags, clock).__enter__()
    waited = []

    def told(who):
        waited.append(who)
        if len(waited) == 3:
            first.__exit__(None, None, None)

    with lease(tags, clock, wait_s=600, on_wait=told) as second:
        assert second.held
    assert len(waited) == 3


def test_the_lease_of_a_killed_holder_runs_out():
    tags, clock = MemoryTags(), Clock()
    tags.write(KEY + "dead", json.dumps({"who": "killed", "until": clock.now + 100}))
    with pytest.raises(TakenError):
        lease(tags, clock).__enter__()
    clock.now += 200
    with lease(tags, clock) as held:
        assert held.held


def test_a_lease_counts_a_little_longer_than_it_says_since_clocks_differ():
    tags, clock = MemoryTags(), Clock()
    tags.write(KEY + "other", json.dumps({"who": "other", "until": clock.now - 5}))
    with pytest.raises(TakenError):
        lease(tags, clock).__enter__()


def test_tags_of_the_long_dead_are_cleared_away():
    tags, clock = MemoryTags(), Clock()
    tags.write(KEY + "old", json.dumps({"who": "old", "until": 0.0}))
    clock.now = 1e6
    with lease(tags, clock):
        assert KEY + "old" not in tags.tags


def test_a_holder_that_could_not_renew_no_longer_holds():
    tags, clock = MemoryTags(), Clock()
    with lease(tags, clock) as held:
        clock.now += 121
        assert not held.held


def test_of_two_that_come_at_once_both_may_step_back_but_never_both_hold():
    tags, clock = MemoryTags(), Clock()
    both_wrote = threading.Barrier(2, timeout=10)

    class Together(MemoryTags):
        """Both have written before either looks."""

        def __init__(self):
            super().__init__()
            self.tags = tags.tags

        def write(self, key, value):
            super().write(key, value)
            both_wrote.wait()

    held = []

    def try_once():
        try:
            with Lease(tags=Together(), clock=clock, sleep=clock.sleep):
                held.append(1)
        except TakenError:
            pass

    threads = [threading.Thread(target=try_once) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(held) <= 1


CRITICAL = """
import sys, time
from pathlib import Path
from tuner.retune.lease import Lease, ModelTags
from tuner.retune.registry import Store

uri, log, me = sys.argv[1:]
store = Store(uri)
with Lease(tags=ModelTags(store, "servetune.chat"), wait_s=60):
    with Path(log).open("a") as file:
        file.write(f"in {me}\\n")
        file.flush()
        time.sleep(0.5)
        file.write(f"out {me}\\n")
"""


@pytest.mark.slow
def test_two_processes_on_one_sqlite_store_never_overlap(tmp_path):
    uri, log = f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "log"
    store = Store(uri)
    store.make_model("servetune.chat", {})
    command = [sys.executable, "-c", CRITICAL, uri, str(log)]
    processes = [subprocess.Popen([*command, name]) for name in ("a", "b")]
    assert [process.wait(120) for process in processes] == [0, 0]
    lines = log.read_text().splitlines()
    assert sorted(lines) == ["in a", "in b", "out a", "out b"]
    assert lines[0][3:] == lines[1][4:]
    assert lines[2][3:] == lines[3][4:]
    assert not ModelTags(store, "servetune.chat").read()
