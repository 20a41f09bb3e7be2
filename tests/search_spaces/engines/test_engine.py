"""The engines that are known, and how they are named."""

import pytest

from search_spaces.config import METHODS, Engine
from search_spaces.engines.engine import engine_names, engines, find_engine, nearest_release
from search_spaces.errors import UnknownNameError


def test_every_engine_of_a_configuration_is_known():
    assert tuple(engines()) == engine_names()


@pytest.mark.parametrize("name", engine_names())
def test_an_engine_without_a_release_is_its_first(name):
    assert find_engine(name) == Engine(name=name, version=engines()[name].versions[0])


RELEASES = [(name, version) for name in engine_names() for version in engines()[name].versions]


@pytest.mark.parametrize(("name", "version"), RELEASES)
def test_every_release_is_found_by_its_name(name, version):
    assert find_engine(f"{name}@{version}") == Engine(name=name, version=version)


@pytest.mark.parametrize("text", ["vlm", "VLLM", " vllm", "", "vllm 0.24.0"])
def test_an_unknown_engine_is_refused_with_the_nearest_first(text):
    with pytest.raises(UnknownNameError, match=r"unknown engine .* valid: ") as caught:
        find_engine(text)
    if text.strip():
        assert str(caught.value).split("valid: ")[1].startswith("vllm")


def test_an_unknown_release_is_refused_with_those_that_have_data():
    with pytest.raises(UnknownNameError, match=r"unknown vllm version '0\.25\.0'; valid: 0\.2\d\.0, 0\.2\d\.0"):
        find_engine("vllm@0.25.0")


@pytest.mark.parametrize("facts", engines().values(), ids=list(engines()))
def test_the_facts_of_an_engine_make_sense(facts):
    assert facts.versions
    assert 1 <= facts.default_max_sequences <= facts.default_max_batched_tokens
    assert 0 < facts.memory_fraction < 1
    assert facts.source
    assert set(facts.methods) <= set(METHODS)
    assert "none" in facts.methods


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [("0.27.0", "0.27.0"), ("0.32.0", "0.27.0"), ("0.25.1", "0.24.0"), ("0.9", "0.24.0"), ("nightly", "0.24.0")],
)
def test_the_nearest_release_is_the_newest_that_is_not_newer(asked, nearest):
    assert nearest_release(Engine(name="vllm", version=asked)).version == nearest
