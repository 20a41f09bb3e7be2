"""What an engine takes decides which knobs are searched with it."""

import random

import pytest

from search_spaces.engines.engine import find_engine
from search_spaces.errors import InputError
from search_spaces.hardware.system import systems
from search_spaces.models.model import models
from search_spaces.space import SearchSpace, full_space

FACTS = """\
title: Small
versions: [1.0.0]
command: [small-serve, '{checkpoint}', '--port={port}']
default_max_sequences: 100
default_max_batched_tokens: 1000
source: its documentation
knobs: {layout.tensor: --tp, precision.kv_cache: {option: --kv, values: {bf16: auto}}}
"""


@pytest.fixture
def small(tmp_path):
    """An engine that takes the tensor size and nothing else."""
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "engine.yaml").write_text(FACTS)
    return find_engine("./small", directory=tmp_path)


def space_of(*engines) -> SearchSpace:
    return full_space(models()["llama-3.1-8b"], systems()["b200"], engines, 8)


def drawn(space: SearchSpace, engine: str, times: int = 200):
    """Lawful parameters at random, of one engine."""
    rng = random.Random(0)
    for _ in range(times):
        params = {}
        for name in space.dimensions:
            if choices := space.choices(name, params):
                params[name] = engine if name == "engine" and engine in choices else rng.choice(choices)
        if params["engine"] == engine:
            yield params


def test_alone_it_has_only_the_dimensions_that_it_takes(small):
    space = space_of(small)
    assert set(space.dimensions) == {"mode", "engine", "layout.tensor"}
    assert space.dimensions["mode"] == ("aggregated",)
    config = space.config({"mode": "aggregated", "engine": "small", "layout.tensor": 2})
    assert config.engine == small
    assert (config.layout.tensor, config.layout.replicas) == (2, 4)
    assert (config.batching.max_sequences, config.batching.max_batched_tokens) == (100, 1000)
    assert config.precision.weights == "bf16", "the checkpoint's own"
    assert space.params(config) == {"mode": "aggregated", "engine": "small", "layout.tensor": 2}


def test_beside_others_it_leaves_undrawn_what_it_does_not_take(small):
    space = space_of(find_engine("vllm"), small)
    assert {frozenset(params) for params in drawn(space, "small")} == {frozenset({"mode", "engine", "layout.tensor"})}
    assert all(space.params(space.config(params)) == params for params in drawn(space, "small"))
    assert any(params["mode"] == "disaggregated" for params in drawn(space, "vllm"))


def test_a_knob_that_no_engine_takes_is_not_searched_and_said_to_be_so(small):
    with pytest.raises(InputError, match=r"layout\.pipeline is not searched here: small does not take it"):
        space_of(small).restricted({"layout.pipeline": (2,)})
    with pytest.raises(InputError, match=r"receive_interval is not searched here: vllm and small do not take it"):
        space_of(find_engine("vllm"), small).restricted({"batching.receive_interval": (1, 4)})


def test_an_engine_that_cannot_have_a_listed_value_is_no_choice(small):
    space = space_of(find_engine("vllm"), small)
    assert space.restricted({"layout.pipeline": (2,)}).dimensions["engine"] == ("vllm",)
    assert space.restricted({"layout.pipeline": (1, 2)}).dimensions["engine"] == ("vllm", "small")
    assert space.restricted({"batching.max_sequences": (64,)}).dimensions["engine"] == ("vllm",)
    assert space.restricted({"mode": ("disaggregated",)}).dimensions["engine"] == ("vllm",)
    assert space.restricted({"speculation.draft_length": (1,)}).dimensions["engine"] == ("vllm", "small")


def test_a_value_that_no_engine_can_have_is_refused_with_what_each_has(small):
    only = space_of(find_engine("vllm"), small).restricted({"engine": ("small",)})
    with pytest.raises(InputError, match="no engine here can have 64: small has 100"):
        only.restricted({"batching.max_sequences": (64,)})
