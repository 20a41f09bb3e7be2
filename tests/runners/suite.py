"""What every runner must do. Inherit from RunnerSuite in a class named Test..., and give the fixture `case`."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import get_args, get_type_hints

import pytest

from runners.measurement import METRICS, Measurement
from runners.runner import Metered, RunFailedError, Runner
from runners.workload.workload import Workload
from search_spaces.config import ServingConfig
from search_spaces.errors import InfeasibleError

SOURCES = get_args(get_type_hints(Measurement)["source"])


@dataclass(frozen=True)
class Case:
    """A runner with a configuration that it serves and two loads; one that it cannot serve."""

    runner: Runner
    config: ServingConfig
    workload: Workload
    loads: tuple[float, float]
    impossible: ServingConfig


class OwnError(Exception):
    """Raised by whoever uses a server."""


class RunnerSuite:
    def test_what_it_gives_is_a_with_that_measures(self, case):
        server = case.runner.serve(case.config)
        assert isinstance(server, AbstractContextManager)
        with server as measure:
            assert isinstance(measure(case.workload.at(case.loads[0])), Measurement)

    def test_one_server_takes_any_number_of_loads_and_says_which(self, case):
        with case.runner.serve(case.config) as measure:
            levels = [measure(case.workload.at(load)) for load in (*case.loads, case.loads[0])]
        assert [level.load for level in levels] == [*case.loads, case.loads[0]]
        assert {level.gpus for level in levels} == {case.config.gpus}
        assert {level.source for level in levels} < set(SOURCES)

    def test_what_is_counted_fits_what_was_asked(self, case):
        level = self.measured(case)
        inputs, outputs = case.workload.input_tokens, case.workload.output_tokens
        assert level.requests > 0
        assert level.failed_requests == 0
        assert level.duration_s > 0
        assert inputs.low - 1 <= level.input_tokens / level.requests <= inputs.high + outputs.high
        assert 0.5 * outputs.low <= level.output_tokens / level.requests <= outputs.high

    def test_latencies_are_seconds_in_order(self, case):
        level = self.measured(case)
        for metric in METRICS:
            distribution = level.latency(metric)
            assert 0 <= distribution.mean < 3600
            assert list(distribution.values) == sorted(distribution.values)
        assert level.ttft.at(50) <= level.e2e.at(50)
        assert 0 <= level.kv_cache_peak <= 1

    def test_what_its_user_raises_passes_through_it(self, case):
        with pytest.raises(OwnError), case.runner.serve(case.config):
            raise OwnError

    def test_it_serves_again_after_it_has_ended(self, case):
        first, second = self.measured(case), self.measured(case)
        assert first.output_tokens / first.requests == pytest.approx(second.output_tokens / second.requests, rel=0.2)

    def test_what_cannot_be_served_raises_before_anything_is_measured(self, case):
        with pytest.raises((InfeasibleError, RunFailedError)) as caught, case.runner.serve(case.impossible):
            pytest.fail("it came up")
        assert caught.value.cause
        assert str(caught.value).startswith(caught.value.cause)

    def test_gpus_that_are_held_are_metered(self, case):
        if not isinstance(case.runner, Metered):
            pytest.skip("holds no GPUs")
        before = case.runner.gpu_seconds
        self.measured(case)
        assert case.runner.gpu_seconds > before

    def measured(self, case):
        with case.runner.serve(case.config) as measure:
            return measure(case.workload.at(case.loads[0]))
