"""A session: what an experiment's own words become in a search."""

import pytest

from tuner.scenario.experiment.reading import read_experiment
from tuner.search.ranking import Prior
from tuner.search.session import Session, budget_of

EXPERIMENT = """\
model: gpt-oss-120b
system: b200
gpus: 8
engines: [trtllm]
workload: {arrivals: closed_loop, input_tokens: 256, output_tokens: 64, requests: 50}
sla: {ttft_ms_p99: 1000}
price: {usd_per_gpu_hour: 3.6}
objective: usd_per_million_output_tokens
"""


@pytest.fixture
def asked(tmp_path):
    def read(more: str = ""):
        path = tmp_path / "experiment.yaml"
        path.write_text(EXPERIMENT + more)
        return read_experiment(path)

    return read


def test_a_budget_is_in_minutes_and_hours_in_the_file_and_in_seconds_inside(asked):
    budget = budget_of(asked("budget: {wall_clock_min: 1.5, gpu_hours: 2, usd: 10, monthly_tokens: 1e9}"), None)
    assert (budget.wall_clock_s, budget.gpu_seconds, budget.usd, budget.monthly_tokens) == (90, 7200, 10, 1e9)


def test_what_a_budget_does_not_limit_is_without_limit(asked):
    budget = budget_of(asked(), 7)
    assert (budget.trials, budget.wall_clock_s, budget.gpu_seconds, budget.usd) == (7, *[float("inf")] * 3)
    assert budget.monthly_tokens is None


def test_a_simulated_search_starts_from_predictions(asked):
    assert isinstance(Session(experiment=asked()).prior, Prior)
