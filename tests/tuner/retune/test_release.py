"""Releases: where they are looked for, and how they are ordered."""

import subprocess

import pytest

from search_spaces.config import Engine
from search_spaces.engines.engine import find_engine
from search_spaces.errors import InputError, UnknownNameError
from tuner.retune import release
from tuner.retune.release import (
    IndexUnreachableError,
    Releases,
    newest_known,
    pip_index,
    release_named,
    release_of_image,
    releases,
)

OLD = Engine(name="trtllm", version="1.3.0rc20")


def known(*indexed, installed=()):
    return Releases(engine=OLD, installed=installed, indexed=indexed)


@pytest.mark.parametrize(
    ("image", "found"),
    [
        ("vllm/vllm-openai:v0.27.0", "0.27.0"),
        ("vllm/vllm-openai:v0.27.0-cu130", "0.27.0"),
        ("registry.example:5000/sglang:0.5.16.post1@sha256:abc", "0.5.16.post1"),
        ("nvcr.io/nvidia/tensorrt-llm/release:1.3.0rc23", "1.3.0rc23"),
    ],
)
def test_an_images_tag_names_a_release(image, found):
    assert release_of_image(image) == found


@pytest.mark.parametrize("image", ["vllm/vllm-openai", "vllm/vllm-openai:latest", "vllm/vllm-openai:nightly-1"])
def test_a_tag_that_names_no_release_is_refused(image):
    with pytest.raises(InputError, match=r"must begin with a release such as v0.27.0"):
        release_of_image(image)


def test_newer_releases_are_ordered_as_versions_not_as_text():
    found = known("1.3.0rc9", "1.3.0rc23", "1.3.0", "1.10.0", "1.2.0", installed=("1.9.0",))
    assert found.newer("1.3.0rc20") == ("1.3.0rc23", "1.3.0", "1.9.0", "1.10.0")


def test_a_simulated_release_that_has_no_kernel_times_lists_those_that_have_the_nearest_first():
    with pytest.raises(UnknownNameError, match=r"unknown trtllm release '1.3.0rc24'; valid: 1.3.0rc23"):
        release_named(OLD, "1.3.0rc24", real=False, known=known())


def test_a_real_release_that_is_not_to_be_had_is_refused():
    with pytest.raises(UnknownNameError, match=r"valid: 1.3.1, 1.3.0"):
        release_named(OLD, "1.3.7", real=True, known=known("1.3.0", "1.3.1"))
    assert release_named(OLD, "1.3.1", real=True, known=known("1.3.0", "1.3.1")).version == "1.3.1"


def test_a_real_release_is_taken_at_its_word_where_no_index_answered():
    assert release_named(OLD, "1.3.7", real=True, known=known(installed=("1.3.0",))).version == "1.3.7"


def test_the_newest_release_to_go_to_is_no_pre_release_on_real_engines():
    assert newest_known(OLD, real=True, known=known("1.3.0rc23", "1.3.0", "1.4.0rc1")) == "1.3.0"
    assert newest_known(OLD, real=True, known=known("1.2.0")) is None
    assert newest_known(OLD, real=True, known=known("1.4.0", "1.5.0", installed=("1.4.0",))) == "1.4.0", "installed"
    assert newest_known(OLD, real=False, known=known("9.9")) == "1.3.0rc23"


def test_an_index_that_does_not_answer_is_told_and_stops_nothing():
    def silent(_package):
        raise IndexUnreachableError("no route to host")

    found = releases(find_engine("vllm"), silent)
    assert (found.indexed, found.problem) == ((), "no route to host")
    assert releases(find_engine("vllm"), lambda package: [package]).indexed == ("vllm",)


def fake_pip(monkeypatch, **result):
    asked = []

    def run(command, **options):
        asked.append((command, options))
        return subprocess.CompletedProcess(command, **result)

    monkeypatch.setattr(release.subprocess, "run", run)
    return asked


def test_pip_is_asked_with_a_time_limit_and_its_answer_read(monkeypatch):
    text = "vllm (0.28.0)\nAvailable versions: 0.28.0, 0.28.0rc1, 0.27.0\n  INSTALLED: 0.27.0\n"
    asked = fake_pip(monkeypatch, returncode=0, stdout=text, stderr="")
    assert pip_index("vllm") == ["0.28.0", "0.28.0rc1", "0.27.0"]
    command, options = asked[0]
    assert command[-4:] == ["index", "versions", "--pre", "vllm"]
    assert options["timeout"] > 0


def test_pips_own_words_are_passed_on(monkeypatch):
    fake_pip(monkeypatch, returncode=1, stdout="", stderr="WARNING: x\nERROR: No matching distribution found for vllm")
    with pytest.raises(IndexUnreachableError, match="No matching distribution found for vllm"):
        pip_index("vllm")
