"""Why a request waits for its first token although there is room: looks, plans, the host, and the first burst."""

from dataclasses import replace

import pytest

from runners.simulated.scheduler import Policy, Scheduler, Sequence
from runners.simulated.silicon import Silicon, StepKey, _shorter_gemms
from runners.simulated.simulated import Simulated
from runners.simulated.step_time import Curve, StepTimes, Surface
from runners.workload.workload import Lengths, Workload
from search_spaces.config import Batching, Disaggregation, Engine, Layout, Precision, ServingConfig
from search_spaces.hardware.system import find_system
from search_spaces.models.model import find_model

STEP, PROMPT = 0.01, 0.03
FLAT = Surface((1, 64), (Curve((1, 9000), (0.0, 0.0)), Curve((1, 9000), (0.0, 0.0))))
STEPS = StepTimes(
    prefill_shared=Curve((1, 9000), (PROMPT, PROMPT)),
    decode_shared=Curve((1, 9000), (STEP, STEP)),
    prefill_attention=FLAT,
    decode_attention=FLAT,
    draft=Curve((1, 64), (0.0, 0.0)),
    verify_intensity=0.0,
)


def first_token(arrival, *, steps=STEPS, **policy):
    """Seconds from arrival to first token of a request that meets one that decodes from 0.03 s on."""
    limits = {"max_sequences": 8, "max_batched_tokens": 8192, "kv_tokens": 100_000, "mixes_prefill": False}
    scheduler = Scheduler(steps, Policy(**{**limits, **policy}))
    scheduler.submit(Sequence(arrival=0.0, prompt=100, output=101, steps=100), 0.0)
    late = Sequence(arrival=arrival, prompt=100, output=101, steps=100)
    scheduler.start(0.0)
    submitted = False
    while late.first_token != late.first_token:
        if not submitted and scheduler.block.end > arrival:
            scheduler.submit(late, arrival)
            submitted = True
        end = scheduler.block.end
        scheduler.finish()
        scheduler.start(end)
    return late.first_token - arrival


def test_an_arrival_is_seen_at_the_end_of_the_step():
    assert first_token(0.105) == pytest.approx(0.005 + PROMPT)


def test_where_the_next_step_is_planned_already_it_is_missed():
    assert first_token(0.105, overlaps=True) == pytest.approx(0.005 + STEP + PROMPT)


def test_arrivals_are_seen_after_a_whole_number_of_intervals_since_the_last_prompt():
    # The first prompt ends at 0.03 s; looks are at 0.13, 0.23, ...
    assert first_token(0.105, receive_interval=10) == pytest.approx(0.025 + PROMPT)
    assert first_token(0.135, receive_interval=10) == pytest.approx(0.095 + PROMPT)


def test_a_pass_with_prompts_is_never_shorter_than_the_host_takes_to_issue_it():
    slow_host = replace(STEPS, prefill_host=0.08)
    assert slow_host.prefill([(0, 100, 100)]) == 0.08
    assert replace(STEPS, prefill_host=0.02).prefill([(0, 100, 100)]) == PROMPT


def test_matrix_products_take_the_shorter_of_two_times_and_nothing_else_does():
    own = [("qkv_gemm", 12.0, 0, "silicon"), ("proj_gemm", 1.0, 0, "silicon"), ("moe", 5.0, 0, "silicon")]
    other = [("qkv_gemm", 0.5, 0, "silicon"), ("proj_gemm", 2.0, 0, "silicon"), ("moe", 1.0, 0, "silicon")]
    assert [(name, time) for name, time, *_ in _shorter_gemms(own, other)] == [
        ("qkv_gemm", 0.5),
        ("proj_gemm", 1.0),
        ("moe", 5.0),
    ]


@pytest.fixture(scope="module")
def minimax():
    return Silicon(find_model("minimax-m2.5"), find_system("b200"), longest_context=2048)


def test_block_scaled_fp8_in_vllm_is_not_charged_the_170_us_of_a_host_for_each_product(minimax):
    def step(engine, version):
        key = StepKey(
            engine=Engine(name=engine, version=version),
            layout=Layout(tensor=4),
            weights="fp8_block",
            kv_cache="fp8",
        )
        return minimax.step_times(key).decode(32).line(1500)[0]

    assert step("vllm", "0.24.0") < 1.5 * step("sglang", "0.5.14")


def test_a_standing_start_counts_the_burst_and_all_requests(minimax):
    config = ServingConfig(
        engine=Engine(name="vllm", version="0.24.0"),
        layout=Layout(tensor=4),
        batching=Batching(max_sequences=64),
        precision=Precision(weights="nvfp4", kv_cache="fp8"),
    )
    lengths = Lengths(low=819, high=1024)
    steady = Workload(input_tokens=lengths, output_tokens=lengths, requests=320)
    with Simulated(minimax).serve(config) as measure:
        burst = measure(replace(steady, standing_start=True).at(32))
        running = measure(steady.at(32))
    assert burst.requests == 320
    assert burst.kept_up
    assert burst.ttft.mean > 1.2 * running.ttft.mean
    assert burst.ttft.at(95) > 2 * running.ttft.at(95)
    assert burst.tpot.mean == pytest.approx(running.tpot.mean, rel=0.1)


class OneLaw:
    """Step times that every worker shares."""

    def __init__(self, steps):
        self.steps = steps
        self.model, self.system = find_model("llama-3.1-8b"), find_system("b200")

    def step_times(self, key):
        return self.steps


def first_generation(steps, layout, *, requests, prefill=None):
    """Mean TTFT of requests that are all sent to an idle server at once."""
    config = ServingConfig(
        engine=Engine(name="vllm", version="0.24.0"),
        layout=layout,
        batching=Batching(max_sequences=8192, max_batched_tokens=8192),
        disaggregation=prefill,
    )
    work = Workload(
        input_tokens=Lengths(low=100, high=100),
        output_tokens=Lengths(low=11, high=11),
        requests=requests,
        standing_start=True,
    )
    with Simulated(OneLaw(steps)).serve(config) as measure:
        return measure(work.at(requests)).ttft.mean


TOKENIZED = replace(STEPS, tokenization=0.1)  # 10 s a prompt: far longer than anything else here


def test_prompts_are_tokenized_one_after_another():
    # The n-th prompt is ready after n x 10 s and then takes one pass.
    assert first_generation(TOKENIZED, Layout(), requests=4) == pytest.approx(25 + PROMPT, abs=3 * STEP)


def test_the_ranks_of_a_worker_share_the_front_end_that_tokenizes():
    # One of two ranks is simulated: its prompts take turns with the other's, the first of them goes first.
    assert first_generation(TOKENIZED, Layout(attention_dp=2), requests=4) == pytest.approx(20 + PROMPT, abs=3 * STEP)


def test_in_front_of_disaggregated_workers_prompts_are_tokenized_side_by_side():
    pool = Disaggregation(prefill_layout=Layout())
    found = first_generation(TOKENIZED, Layout(), requests=4, prefill=pool)
    # The first that is seen starts a pass alone.
    assert 10 + PROMPT <= found <= 10 + 2 * PROMPT


def test_what_the_host_does_with_a_request_delays_each_by_the_same():
    slow = replace(STEPS, request_host=2.0)
    assert 2 + PROMPT <= first_generation(slow, Layout(), requests=4) <= 2 + 2 * PROMPT + 1e-9


def test_the_first_token_of_a_disaggregated_request_waits_for_a_seat_where_it_is_decoded():
    config = ServingConfig(
        engine=Engine(name="trtllm", version="1.3.0rc20"),
        batching=Batching(max_sequences=1),
        disaggregation=Disaggregation(prefill_layout=Layout()),
    )
    work = Workload(
        input_tokens=Lengths(low=100, high=100),
        output_tokens=Lengths(low=101, high=101),
        requests=2,
        standing_start=True,
    )
    with Simulated(OneLaw(STEPS)).serve(config) as measure:
        ttft = measure(work.at(2)).ttft
    # Both prompts share a pass; the second then waits until the first has had its 100 steps of 10 ms.
    assert ttft.at(99) - ttft.at(50) == pytest.approx(100 * STEP, rel=0.02)
