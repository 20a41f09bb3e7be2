"""The simulation, against queueing theory, against work by hand and against its own laws."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runners.measurement import METRICS, Measurement
from runners.simulated.requests import Acceptance
from runners.simulated.simulated import Simulated, _Simulation
from runners.simulated.step_time import Curve, StepTimes, Surface
from runners.workload.workload import Lengths, Trace, Workload
from search_spaces.config import (
    Batching,
    Disaggregation,
    Engine,
    Layout,
    ServingConfig,
    Speculation,
)
from search_spaces.errors import InfeasibleError
from search_spaces.hardware.system import find_system
from search_spaces.models.model import Attention, Draft, Model

PASS, PROMPT_TOKEN = 0.004, 0.00002
STEP, QUERY, CONTEXT = 0.005, 0.0001, 0.0000005
ENGINES = {
    name: Engine(name=name, version=version)
    for name, version in (("trtllm", "1.3.0rc20"), ("vllm", "0.24.0"), ("sglang", "0.5.14"))
}
TRTLLM = ENGINES["trtllm"]

TOY = Model(
    name="toy",
    checkpoint="toy",
    silicon_name="toy",
    layers=1,
    hidden_size=64,
    query_heads=8,
    attention=Attention(kv_heads=8, head_dim=64, layers_by_ratio={1: 1}),
    dense_parameters=1e6,
    expert_parameters=0,
    embedding_parameters=0,
    experts=0,
    experts_per_token=0,
    expert_width=64,
    max_context=1 << 20,
    weights=("bf16",),
    source="made up",
    drafts={"mtp": Draft(parameters=1e3, tokens_per_step=(1.8, 2.3, 2.5), source="made up")},
)
LARGE = replace(TOY, layers=1, attention=Attention(kv_heads=8, head_dim=64, layers_by_ratio={1: 100_000}))
"""A model of which the b200 keeps so little that the KV cache is soon full."""


def linear(law) -> Curve:
    return Curve((0, 1024), (law(0), law(1024)))


STEPS = StepTimes(
    prefill_shared=linear(lambda tokens: PASS + PROMPT_TOKEN * tokens),
    decode_shared=linear(lambda queries: STEP + QUERY * queries),
    prefill_attention=Surface((1, 2), (linear(lambda _: 0.0), linear(lambda _: 0.0))),
    decode_attention=Surface((1, 2), tuple(linear(lambda context, n=n: n * CONTEXT * context) for n in (1, 2))),
    draft=linear(lambda sequences: 0.0002 + 0.000001 * sequences),
    verify_intensity=0.0,
)


class FakeSilicon:
    def __init__(self, model: Model = TOY) -> None:
        self.model = model
        self.system = find_system("b200")

    def step_times(self, key) -> StepTimes:
        return STEPS


def config(engine: str = "trtllm", *, sequences: int = 256, tokens: int = 8192, **parts) -> ServingConfig:
    batching = Batching(max_sequences=sequences, max_batched_tokens=tokens)
    return ServingConfig(engine=ENGINES[engine], batching=batching, **parts)


def lengths(low: int, high: int | None = None) -> Lengths:
    return Lengths(low=low, high=high or low)


def workload(input_tokens: int | Lengths, output_tokens: int | Lengths, **parts) -> Workload:
    ins, outs = (x if isinstance(x, Lengths) else lengths(x) for x in (input_tokens, output_tokens))
    return Workload(input_tokens=ins, output_tokens=outs, **parts)


def simulate(served: ServingConfig, work: Workload, load: float, model: Model = TOY) -> Measurement:
    with Simulated(FakeSilicon(model)).serve(served) as measure:
        return measure(work.at(load))


def trace(arrivals, inputs, outputs) -> Trace:
    return Trace(
        path="made-up.csv",
        arrival=np.asarray(arrivals, dtype=float),
        input_tokens=np.asarray(inputs, dtype=np.int64),
        output_tokens=np.asarray(outputs, dtype=np.int64),
    )


def replay(recorded: Trace, **parts) -> Workload:
    return workload(1, 1, shape="trace", trace=recorded, **parts)


def mean_step(sequences: int, first_context: float, steps: int) -> float:
    return STEP + QUERY * sequences + CONTEXT * sequences * (first_context + (steps - 1) / 2)


# Closed loop


@pytest.mark.parametrize("engine", ENGINES)
def test_one_request_in_flight_sees_its_prompt_and_then_its_steps(engine):
    measured = simulate(config(engine), workload(1000, 101), 1)
    prompt, step = PASS + 1000 * PROMPT_TOKEN, mean_step(1, 1000, 100)
    assert measured.ttft.mean == pytest.approx(prompt)
    assert measured.ttft.at(99.9) == pytest.approx(prompt)
    assert measured.tpot.mean == pytest.approx(step)
    assert measured.itl.mean == pytest.approx(step)
    assert measured.e2e.at(50) == pytest.approx(prompt + 100 * step)
    assert measured.request_rate == pytest.approx(1 / (prompt + 100 * step))
    assert measured.output_rate == pytest.approx(101 * measured.request_rate)
    assert measured.total_rate == pytest.approx(1101 * measured.request_rate)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("concurrency", [1, 5, 64, 130, 333])
@pytest.mark.parametrize("spread", [lengths(400), lengths(320, 400)], ids=["fixed", "spread"])
def test_littles_law_holds_within_a_percent(engine, concurrency, spread):
    measured = simulate(config(engine), workload(spread, spread, requests=1000), concurrency)
    assert measured.request_rate * measured.e2e.mean == pytest.approx(concurrency, rel=0.01)


def test_littles_law_holds_on_average_where_lengths_are_far_apart():
    """A short request completes more often, a long one is found running more often: neither may bias the rate."""
    work = workload(lengths(50, 500), lengths(50, 500), requests=400)
    found = []
    for seed in range(12):
        measured = simulate(config(), replace(work, seed=seed), 200)
        found.append(measured.request_rate * measured.e2e.mean / 200)
    assert np.mean(found) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("concurrency", [1, 7, 64, 300])
def test_a_run_of_a_few_requests_agrees_with_a_run_of_many(concurrency):
    few, many = (
        simulate(config(), workload(lengths(320, 400), lengths(320, 400), requests=requests), concurrency)
        for requests in (400, 10_000)
    )
    assert few.output_rate == pytest.approx(many.output_rate, rel=0.03)
    assert few.tpot.at(99) == pytest.approx(many.tpot.at(99), rel=0.03)


def test_a_full_batch_decodes_as_fast_as_its_steps():
    measured = simulate(config(sequences=64), workload(1, 2001, requests=640), 64)
    assert measured.tpot.mean == pytest.approx(mean_step(64, 1, 2000), rel=0.02)


def test_requests_beyond_the_seats_wait_before_their_first_token():
    seats, queue = 32, 96
    measured = simulate(config(sequences=seats), workload(100, 101), seats + queue)
    served = measured.e2e.mean - measured.ttft.mean
    assert measured.ttft.mean == pytest.approx(served * queue / seats, rel=0.1)
    assert measured.tpot.at(50) == pytest.approx(simulate(config(), workload(100, 101), seats).tpot.at(50), rel=0.02)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("concurrency", [1, 3, 50])
def test_requests_of_a_single_token_are_prefilled_and_nothing_else(engine, concurrency):
    measured = simulate(config(engine, sequences=1), workload(1000, 1), concurrency)
    assert measured.request_rate == pytest.approx(1 / (PASS + 1000 * PROMPT_TOKEN))
    assert measured.e2e == measured.ttft
    assert measured.tpot.mean == measured.itl.mean == 0


def test_at_least_the_requests_asked_for_are_counted():
    assert simulate(config(), workload(100, 10, requests=123), 4).requests >= 123


def test_what_the_warm_up_saw_is_forgotten():
    """A closed loop begins with its requests part-way: no latency of those may show."""
    measured = simulate(config(), workload(lengths(100, 2000), lengths(2, 1000), requests=500), 100)
    assert measured.ttft.values[0] > PASS
    assert min(measured.itl.values) >= STEP


# Open loop


@pytest.mark.parametrize("engine", ENGINES)
def test_in_light_load_nobody_waits(engine):
    prompt, steps = PASS + 1000 * PROMPT_TOKEN, 20 * mean_step(1, 1000, 20)
    rate = 0.01 / (prompt + steps)
    measured = simulate(config(engine), workload(1000, 21, shape="poisson", requests=3000), rate)
    assert measured.ttft.at(95) == pytest.approx(prompt)
    assert measured.e2e.at(50) == pytest.approx(prompt + steps)
    assert measured.request_rate == pytest.approx(rate, rel=0.05)
    assert measured.kept_up


@pytest.mark.parametrize("busy", [0.3, 0.6, 0.8])
def test_one_prompt_at_a_time_queues_as_an_m_d_1_server(busy):
    service = PASS + 1000 * PROMPT_TOKEN
    work = workload(1000, 1, shape="poisson", requests=40_000)
    measured = simulate(config(sequences=1), work, busy / service)
    wait = busy * service / (2 * (1 - busy))
    assert measured.ttft.mean - service == pytest.approx(wait, rel=0.05)
    assert measured.request_rate * service == pytest.approx(busy, rel=0.02)


def test_prompts_of_different_length_queue_as_an_m_g_1_server():
    spread = lengths(1, 3999)
    services = PASS + PROMPT_TOKEN * np.arange(spread.low, spread.high + 1)
    rate = 0.6 / services.mean()
    work = workload(spread, 1, shape="poisson", requests=40_000)
    measured = simulate(config(sequences=1), work, rate)
    wait = rate * (services**2).mean() / (2 * (1 - 0.6))
    assert measured.ttft.mean - services.mean() == pytest.approx(wait, rel=0.05)


def busiest_rate(served: ServingConfig, work: Workload) -> float:
    closed = replace(work, shape="closed_loop", requests=2000)
    return simulate(served, closed, served.batching.max_sequences).request_rate


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("share", "keeps_up"), [(0.5, True), (0.9, True), (1.3, False), (3, False), (1e5, False)])
def test_a_server_keeps_up_until_more_comes_than_it_can_serve(engine, share, keeps_up):
    served = config(engine, sequences=32)
    work = workload(lengths(100, 300), lengths(50, 150), shape="poisson", requests=1000)
    measured = simulate(served, work, share * busiest_rate(served, work))
    assert measured.kept_up is keeps_up


def test_an_overloaded_server_completes_no_more_than_it_can():
    served = config(sequences=32)
    work = workload(200, 100, shape="poisson", requests=1000)
    most = busiest_rate(served, work)
    assert simulate(served, work, 3 * most).request_rate == pytest.approx(most, rel=0.05)


def test_a_trace_is_replayed_in_its_order_and_with_its_lengths():
    rng = np.random.default_rng(0)
    recorded = trace(
        np.concatenate([[0], np.cumsum(rng.exponential(0.05, 299))]),
        rng.integers(1, 900, 300),
        rng.integers(1, 90, 300),
    )
    simulation = _Simulation(FakeSilicon(), config(), STEPS, None, replay(recorded).at(2))
    simulation.run()
    seen = sorted(simulation.warm_up + simulation.counted, key=lambda sequence: sequence.arrival)
    seen = [sequence for sequence in seen if sequence.arrival * 2 <= recorded.arrival[-1]]
    numbers = [int(np.searchsorted(recorded.arrival, sequence.arrival * 2 - 1e-9)) for sequence in seen]
    assert numbers == sorted(set(numbers))
    assert len(numbers) > 250
    assert [sequence.prompt for sequence in seen] == list(recorded.input_tokens[numbers])
    assert [sequence.output for sequence in seen] == list(recorded.output_tokens[numbers])


def test_the_pace_of_a_trace_scales_its_rate():
    recorded = trace(np.arange(2000) * 2.0, [500] * 2000, [20] * 2000)
    slow, fast = (simulate(config(), replay(recorded), speed) for speed in (1, 4))
    assert slow.request_rate == pytest.approx(0.5, rel=0.01)
    assert fast.request_rate == pytest.approx(2.0, rel=0.01)
    assert fast.ttft.at(99) == pytest.approx(slow.ttft.at(99))


def test_a_trace_that_comes_too_fast_is_not_kept_up_with():
    recorded = trace(np.arange(3000) * 0.5, [500] * 3000, [200] * 3000)
    served = config(sequences=8)
    assert simulate(served, replay(recorded), 1).kept_up
    assert not simulate(served, replay(recorded), 100).kept_up


@pytest.mark.parametrize("count", [2, 3, 10])
@pytest.mark.parametrize("pause", [0.05, 60.0])
@pytest.mark.parametrize("replicas", [1, 8])
def test_a_short_trace_is_replayed_until_enough_requests_are_counted(count, pause, replicas):
    recorded = trace(np.arange(count) * pause, [100] * count, [10] * count)
    measured = simulate(config(layout=Layout(replicas=replicas)), replay(recorded, requests=200), 1)
    assert measured.requests >= 200
    assert measured.kept_up


# Replicas


def test_eight_replicas_at_eight_times_the_load_are_eight_times_as_fast():
    work = workload(lengths(80, 100), lengths(80, 100))
    one, eight = (simulate(config(layout=Layout(replicas=n)), work, 40 * n) for n in (1, 8))
    assert eight.request_rate == pytest.approx(8 * one.request_rate)
    assert eight.output_rate == pytest.approx(8 * one.output_rate)
    assert [eight.latency(metric) for metric in METRICS] == [one.latency(metric) for metric in METRICS]
    assert (one.gpus, eight.gpus) == (1, 8)


def test_a_replica_without_a_request_serves_none():
    measured = simulate(config(layout=Layout(replicas=8)), workload(100, 100), 4)
    assert measured.request_rate * measured.e2e.mean == pytest.approx(4, rel=0.01)


def test_replicas_share_an_open_loop():
    work = workload(1000, 21, shape="poisson", requests=3000)
    one, four = (simulate(config(layout=Layout(replicas=n)), work, 1.5 * n) for n in (1, 4))
    assert four.request_rate == pytest.approx(6.0, rel=0.05)
    assert one.request_rate == pytest.approx(1.5, rel=0.05)


# Disaggregation


def disaggregated(
    prefills: int, decodes: int, *, sequences: int = 256, prefill_sequences: int = 1, **parts
) -> ServingConfig:
    return config(
        sequences=sequences,
        layout=Layout(replicas=decodes),
        disaggregation=Disaggregation(
            prefill_layout=Layout(replicas=prefills),
            prefill_batching=Batching(max_sequences=prefill_sequences, max_batched_tokens=8192),
        ),
        **parts,
    )


def transfer(tokens: int, model: Model = TOY) -> float:
    system = find_system("b200")
    # The b200 has one NVLink domain; bf16 keys and values of 8 heads x 64, in each layer.
    layers = model.attention.layers_by_ratio[1]
    return system.network_latency_s + 2 * 2 * 8 * 64 * layers * tokens / system.nvlink_bandwidth


@pytest.mark.parametrize("model", [TOY, LARGE], ids=["small cache", "large cache"])
def test_the_first_token_comes_after_the_transfer_of_the_cache(model):
    measured = simulate(disaggregated(1, 1), workload(100, 11), 1, model)
    assert measured.ttft.mean == pytest.approx(PASS + 100 * PROMPT_TOKEN + transfer(100, model))
    assert measured.tpot.mean == pytest.approx(mean_step(1, 100, 10))


def test_decoding_is_never_held_up_by_prompts():
    """The first gap may hold the rest of the step under way, no gap a prompt."""
    prompt, step = PASS + 8000 * PROMPT_TOKEN, mean_step(8, 8000, 200)
    assert 2 * step < prompt
    assert simulate(disaggregated(4, 1), workload(8000, 100), 8).itl.at(99.9) <= 2 * step
    assert simulate(config(), workload(8000, 100), 8).itl.at(99.9) > prompt


@pytest.mark.parametrize(("prefills", "decodes"), [(1, 1), (2, 3), (5, 2), (1, 20), (1, 40), (40, 1)])
def test_prefill_workers_bound_the_rate(prefills, decodes):
    measured = simulate(disaggregated(prefills, decodes), workload(2000, 2), 40 * (prefills + decodes))
    most = prefills / (PASS + 2000 * PROMPT_TOKEN)
    assert measured.request_rate <= 1.01 * most
    if prefills <= 2 * decodes:
        assert measured.request_rate == pytest.approx(most, rel=0.03)


@pytest.mark.parametrize(("prefills", "decodes"), [(1, 1), (3, 2), (1, 4)])
def test_decode_workers_bound_the_rate(prefills, decodes):
    measured = simulate(disaggregated(prefills, decodes, sequences=8), workload(10, 200), 30 * decodes)
    step = mean_step(8, 10, 199)
    assert measured.request_rate == pytest.approx(8 * decodes / (199 * step), rel=0.03)


@pytest.mark.parametrize(("prefills", "decodes"), [(13, 20), (13, 18), (33, 34), (9, 14), (4, 23), (3, 3)])
def test_a_disaggregated_deployment_is_sent_the_load_of_its_trace(prefills, decodes):
    """13P20D served 561 requests/s of a trace of 392, and 13P18D 318."""
    recorded = trace(np.arange(40_000) / 392, [100] * 40_000, [20] * 40_000)
    measured = simulate(disaggregated(prefills, decodes), replay(recorded, requests=2000), 1)
    assert measured.request_rate == pytest.approx(392, rel=0.02)


def test_no_request_is_lost_or_counted_twice():
    recorded = trace(np.arange(900) / 100, np.arange(100, 1000), [20] * 900)
    simulation = _Simulation(FakeSilicon(), disaggregated(13, 20), STEPS, STEPS, replay(recorded, requests=300).at(1))
    simulation.run()
    ended = [sequence.prompt for sequence in simulation.warm_up + simulation.counted]
    sent = list(simulation.requests.prompts[: simulation.sent])
    assert len(ended) == len(set(ended))
    assert set(ended) <= set(sent)
    assert len(sent) - len(ended) == simulation.in_flight


def test_prompts_that_end_together_are_spread_over_the_decode_workers():
    served = disaggregated(1, 8, prefill_sequences=8)
    measured = simulate(served, workload(100, 400), 8)
    assert measured.tpot.at(99) <= mean_step(2, 100, 399)


def test_a_disaggregated_overload_is_not_kept_up_with():
    work = workload(2000, 20, shape="poisson")
    most = 1 / (PASS + 2000 * PROMPT_TOKEN)
    assert simulate(disaggregated(1, 1), work, 0.5 * most).kept_up
    assert not simulate(disaggregated(1, 1), work, 2 * most).kept_up
    assert not simulate(disaggregated(1, 1, prefill_sequences=2048), work, 1e5 * most).kept_up


# Memory


def test_a_model_without_room_for_one_request_is_infeasible():
    with pytest.raises(InfeasibleError) as raised:
        simulate(config(), workload(1000, 1000), 1, LARGE)
    assert raised.value.cause == "memory"


def test_an_engine_that_preempts_counts_no_token_twice():
    measured = simulate(config("vllm"), workload(100, 100, requests=300), 20, LARGE)
    assert measured.preemptions > 0
    assert measured.input_tokens == 100 * measured.requests
    assert measured.output_tokens == 100 * measured.requests
    assert measured.kv_cache_peak <= 1


def test_an_engine_that_reserves_queues_instead():
    measured = simulate(config("trtllm"), workload(100, 100, requests=300), 20, LARGE)
    assert measured.preemptions == 0
    assert measured.ttft.at(50) > 10 * (PASS + 100 * PROMPT_TOKEN)


def test_a_preemption_shows_in_the_gap_between_tokens():
    measured = simulate(config("vllm"), workload(100, 100, requests=300), 20, LARGE)
    assert measured.itl.at(99.9) > 10 * measured.itl.at(50)


# Prefixes


def test_a_shared_prefix_shortens_the_prompt_and_nothing_else():
    without = simulate(config(), workload(1000, 100), 1)
    cached = simulate(config(), workload(1000, 100, shared_prefix_tokens=600), 1)
    assert cached.ttft.mean == pytest.approx(PASS + 400 * PROMPT_TOKEN)
    assert without.ttft.mean == pytest.approx(PASS + 1000 * PROMPT_TOKEN)
    assert cached.tpot == without.tpot
    assert cached.input_tokens == without.input_tokens


def test_a_shared_prefix_leaves_room_for_more_requests():
    few, more = (
        simulate(config(), workload(100, 100, shared_prefix_tokens=prefix, requests=300), 20, LARGE)
        for prefix in (0, 90)
    )
    assert more.ttft.at(50) < few.ttft.at(50)


# Chance


@pytest.mark.parametrize("shape", ["closed_loop", "poisson"])
def test_the_seed_decides_everything(shape):
    work = workload(lengths(80, 100), lengths(80, 100), shape=shape)
    one, again, other = (simulate(config(), replace(work, seed=seed), 20) for seed in (1, 1, 2))
    assert one == again
    assert one.ttft != other.ttft


# Speculation


@pytest.mark.parametrize("length", [1, 2, 3])
def test_the_mean_tokens_of_a_step_are_reproduced(length):
    speculation = Speculation(method="mtp", draft_length=length)
    expected = TOY.drafts["mtp"].tokens_per_step[length - 1]
    measured = simulate(config(speculation=speculation), workload(1, 1001), 1)
    queries = length + 1
    drafting = length * (0.0002 + 0.000001)
    step = STEP + QUERY * queries + CONTEXT * (1 + 1000 / 2) + drafting
    assert measured.tpot.mean == pytest.approx(step / expected, rel=0.01)
    assert measured.itl.mean == pytest.approx(step, rel=0.01)


def test_acceptance_that_varies_makes_some_requests_slower():
    speculation = Speculation(method="mtp", draft_length=3)
    measured = simulate(config(speculation=speculation), workload(1, 101, requests=2000), 1)
    assert measured.tpot.at(99) > 1.1 * measured.tpot.at(50)


SERIES = st.lists(st.floats(0.02, 0.98), min_size=1, max_size=8).map(
    lambda chances: tuple(1 + float(total) for total in np.cumsum(np.cumprod(chances)))
)


def accepted_tokens(tokens_per_step: tuple[float, ...], rng: np.random.Generator, size) -> np.ndarray:
    """Tokens of so many steps, one draft after the other: each is accepted only if the one before was."""
    shares = np.diff((1.0, *tokens_per_step))
    chances = shares / np.concatenate([[1.0], shares[:-1]])
    alive = np.ones(size, dtype=bool)
    tokens = np.ones(size, dtype=np.int64)
    for chance in chances:
        alive &= rng.random(size) < chance
        tokens += alive
    return tokens


@settings(max_examples=30, deadline=None)
@given(tokens_per_step=SERIES)
def test_mean_and_variance_of_a_step_are_those_of_drafts_drawn_one_by_one(tokens_per_step):
    drawn = accepted_tokens(tokens_per_step, np.random.default_rng(0), 200_000)
    acceptance = Acceptance.of(tokens_per_step)
    squares = (drawn - drawn.mean()) ** 2
    five_errors = 5 / np.sqrt(drawn.size)
    assert acceptance.mean == pytest.approx(drawn.mean(), rel=0.001, abs=five_errors * drawn.std())
    assert acceptance.variance == pytest.approx(drawn.var(), rel=0.01, abs=five_errors * squares.std())


@pytest.mark.parametrize("tokens_per_step", [(1.8,), (1.79, 2.27, 2.49, 2.54, 2.55), (1.23, 1.3)])
def test_the_steps_of_a_request_are_those_of_a_renewal_process(tokens_per_step):
    """Drawn step by step until 800 tokens are there, for 4,000 requests."""
    rng = np.random.default_rng(0)
    committed = accepted_tokens(tokens_per_step, rng, (4000, 800)).cumsum(axis=1)
    needed = (committed < 800).sum(axis=1) + 1
    steps = Acceptance.of(tokens_per_step).steps(np.full(4000, 800), rng)
    assert steps.mean() == pytest.approx(needed.mean(), rel=0.003)
    assert steps.std() == pytest.approx(needed.std(), rel=0.06)


def test_without_drafts_every_token_is_a_step():
    steps = Acceptance.of(()).steps(np.array([0, 1, 7, 1000]), np.random.default_rng(0))
    assert list(steps) == [0, 1, 7, 1000]


# Laws


@settings(max_examples=60, deadline=None)
@given(
    engine=st.sampled_from(list(ENGINES)),
    load=st.floats(0.5, 500),
    ins=st.integers(1, 3000),
    outs=st.integers(1, 300),
    sequences=st.sampled_from([1, 4, 64]),
    tokens=st.sampled_from([64, 512, 8192]),
    shape=st.sampled_from(["closed_loop", "poisson"]),
    draft=st.integers(0, 3),
    split=st.booleans(),
)
def test_whatever_is_served_makes_a_sound_measurement(engine, load, ins, outs, sequences, tokens, shape, draft, split):
    speculation = Speculation(method="mtp", draft_length=draft) if draft else Speculation()
    served = config(engine, sequences=sequences, tokens=tokens, speculation=speculation)
    if split:
        served = replace(served, disaggregation=Disaggregation(prefill_layout=Layout(replicas=2)))
    work = workload(lengths(max(1, ins // 2), ins), lengths(max(1, outs // 2), outs), shape=shape, requests=50)
    measured = simulate(served, work, load)
    assert measured.requests >= 50
    assert measured.duration_s > 0
    assert 0 < measured.ttft.mean <= measured.e2e.mean
    assert measured.ttft.values[0] >= PASS
    assert all(low <= high for low, high in pairwise(measured.ttft.values))
    assert work.input_tokens.low * measured.requests <= measured.input_tokens <= ins * measured.requests
    assert work.output_tokens.low * measured.requests <= measured.output_tokens <= outs * measured.requests
    assert 0 <= measured.kv_cache_peak <= 1
