"""Every option that is rendered is one that the engine's release accepts, by the tables read from its own parser."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.config import Disaggregation, Engine, Layout, ServingConfig
from search_spaces.engines.commands import Address, Command, commands, router
from search_spaces.engines.engine import engine_names, engines
from search_spaces.engines.laws import unsupported
from search_spaces.models.model import find_model, models
from tests.search_spaces.engines.configs import configs
from tests.search_spaces.engines.options import known

RELEASES = [Engine(name=name, version=version) for name in engine_names() for version in engines()[name].versions]
ROUTERS = {"vllm": "vllm-router-0.1.17", "sglang": "sglang-router-0.3.2", "trtllm": "trtllm-1.3.0rc20"}


def used(command: Command) -> set[str]:
    return {part for part in command.argv if part.startswith("-") and part != "-m"}


@given(model=st.sampled_from(sorted(models())), config=configs, engine=st.sampled_from(RELEASES))
def test_each_release_knows_every_option_that_is_rendered_for_it(model, config, engine):
    config = ServingConfig(
        engine=engine,
        layout=config.layout,
        batching=config.batching,
        precision=config.precision,
        speculation=config.speculation,
        disaggregation=config.disaggregation,
    )
    if unsupported(config):
        return
    for command in commands(find_model(model), config):
        assert used(command) - known(f"{engine.name}-{engine.version}") == set()


@given(model=st.sampled_from(sorted(models())), config=configs)
@pytest.mark.parametrize("release", ["1.3.1", "1.4.2", "1.5.1", "1.6.1"])
def test_dynamo_s_workers_know_every_option_that_is_rendered_for_them(release, model, config):
    if unsupported(config):
        return
    name = config.engine.name
    engine = set() if name == "trtllm" else known(f"{name}-{engines()[name].versions[-1]}")
    frontend, *workers = commands(find_model(model), config, orchestrator="dynamo")
    assert used(frontend) - known(f"dynamo-frontend-{release}") == set()
    for worker in workers:
        assert used(worker) - engine - known(f"dynamo-{name}-{release}") == set()


@pytest.mark.parametrize("engine", RELEASES, ids=str)
def test_each_router_knows_every_option_that_is_rendered_for_it(engine):
    config = ServingConfig(engine=engine, disaggregation=Disaggregation(prefill_layout=Layout(replicas=2)))
    prefill = [Address(host="p0", port=8100, bootstrap_port=8998), Address(host="p1", port=8101, bootstrap_port=8999)]
    command = router(config, prefill, [Address(host="d0", port=8200)])
    assert used(command) - known(ROUTERS[engine.name]) == set()
    everything = " ".join([*command.argv, *command.files.values()])
    for address in ("p0:8100", "p1:8101", "d0:8200"):
        assert address in everything


def test_a_table_would_notice_an_option_that_the_release_does_not_have():
    assert "--tensor-parallel-size" in known("vllm-0.24.0")
    assert "--tp-size" not in known("vllm-0.24.0")
    assert known("sglang-0.5.14") != known("sglang-0.5.16")
