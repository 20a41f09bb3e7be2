"""Estimated: AIConfigurator's own steady-state estimate as a runner, to judge this project's answers by its peer's."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from runners.measurement import Measurement, Percentiles
from runners.runner import Measure
from runners.simulated.silicon import Silicon
from runners.simulated.steady_state import step_key
from runners.workload.workload import ClosedLoop, LoadedWorkload
from search_spaces.config import ServingConfig
from search_spaces.errors import InfeasibleError, InputError


class Estimated:
    """AIConfigurator's `run_agg` for one closed-loop load: means only, so every percentile is the mean.

    A batch that its memory model refuses counts as a load that was not kept up with. Lengths are taken at their
    longest, as the peer takes them. Where the requests in flight do not go round, some schedulers have none. Its
    speculation has one cost law (each draft token a share of a layer, attention
    for every query token) and takes the mean accepted tokens from this project's tables. Disaggregated configurations
    are not estimated: InfeasibleError. A pass takes prompts up to max_batched_tokens, or with `one_prompt` up to the
    length of one: the default of its own `cli estimate`.
    """

    def __init__(self, silicon: Silicon, *, one_prompt: bool = False) -> None:
        self.silicon = silicon
        self.one_prompt = one_prompt

    @contextmanager
    def serve(self, config: ServingConfig) -> Iterator[Measure]:
        """Raises InfeasibleError for what AIConfigurator cannot estimate, for lack of memory too."""
        if config.disaggregation is not None:
            raise InfeasibleError("not estimated", "the estimated runner takes aggregated deployments only")
        accepted = self.silicon.model.tokens_per_step(config.speculation) - 1
        estimate = self.silicon.peer_estimate(
            step_key(config, config.layout),
            draft_length=config.speculation.draft_length,
            accepted=accepted,
        )

        def measure(loaded: LoadedWorkload) -> Measurement:
            if not isinstance(loaded.arrivals, ClosedLoop):
                raise InputError("the estimated runner knows closed-loop arrivals only; valid: closed_loop")
            workload = loaded.workload
            batch = math.ceil(loaded.arrivals.concurrency / config.layout.schedulers)
            busy = loaded.arrivals.concurrency / (batch * config.layout.schedulers)
            longest = workload.input_tokens.high
            context = longest if self.one_prompt else config.batching.max_batched_tokens
            point = estimate(batch, longest, workload.output_tokens.high, context)
            rate = point.output_rate * config.layout.replicas * busy
            requests = workload.requests
            output = requests * workload.output_tokens.high
            return Measurement(
                load=loaded.load,
                gpus=config.gpus,
                duration_s=output / rate,
                requests=requests,
                input_tokens=requests * workload.input_tokens.high,
                output_tokens=output,
                ttft=_constant(point.ttft),
                tpot=_constant(point.tpot),
                itl=_constant(point.tpot),
                e2e=_constant(point.ttft + point.tpot * (workload.output_tokens.high - 1)),
                backlog_growth=0 if point.fits else requests,
                source="estimated",
            )

        yield measure


def _constant(seconds: float) -> Percentiles:
    return Percentiles.of([seconds])
