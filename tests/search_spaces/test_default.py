"""The untuned configurations: what an operator starts who reads the memory requirement and nothing else."""

import itertools

import pytest

from search_spaces.default import default_configs
from search_spaces.engines.engine import engines, find_engine
from search_spaces.engines.folders import engine_names
from search_spaces.hardware.system import systems
from search_spaces.models.model import models
from search_spaces.space import full_space

EVERY_ENGINE = pytest.mark.parametrize("engine", engine_names())
EVERY_MODEL = pytest.mark.parametrize("model", models())


def flat(model: str, engine: str, gpus: int):
    return list(itertools.chain.from_iterable(default_configs(models()[model], find_engine(engine), gpus)))


@EVERY_ENGINE
@EVERY_MODEL
def test_batch_limits_are_the_engines_own_and_nothing_speculates(model, engine):
    facts = engines()[engine]
    for config in flat(model, engine, 8):
        assert config.batching.max_sequences == facts.default_max_sequences
        assert config.batching.max_batched_tokens == facts.default_max_batched_tokens
        assert config.speculation.method == "none"
        assert config.mode == "aggregated"


@EVERY_ENGINE
@EVERY_MODEL
@pytest.mark.parametrize("gpus", [1, 2, 6, 8, 72])
def test_they_fill_the_gpus_and_never_exceed_them(model, engine, gpus):
    configs = flat(model, engine, gpus)
    assert configs
    for config in configs:
        assert config.gpus <= gpus < config.gpus + config.layout.gpus_per_worker


@EVERY_ENGINE
@EVERY_MODEL
def test_a_search_could_find_each_of_them(model, engine):
    space = full_space(models()[model], systems()["gb200-nvl72"], (find_engine(engine),), 8)
    for config in flat(model, engine, 8):
        params = space.params(config)
        assert space.config(params) == config
        for name, value in params.items():
            assert value in space.dimensions[name], name


@EVERY_MODEL
def test_of_each_size_a_16_bit_kv_cache_and_split_experts_come_first(model):
    for size in default_configs(models()[model], find_engine("trtllm"), 8):
        first = next(size)
        assert first.precision.kv_cache == "bf16"
        assert first.layout.expert == 1


def test_gpt_oss_is_fed_mxfp8_activations_before_16_bit_ones():
    weights = [config.precision.weights for config in flat("gpt-oss-120b", "trtllm", 1)]
    assert weights == ["mxfp4_mxfp8", "mxfp4", "mxfp4_mxfp8", "mxfp4"]


def test_the_sizes_are_those_that_the_gpus_hold():
    sizes = [next(size).layout.tensor for size in default_configs(models()["llama-3.3-70b"], find_engine("vllm"), 6)]
    assert sizes == [1, 2, 4]
