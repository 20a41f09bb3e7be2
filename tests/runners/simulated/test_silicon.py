"""Step times from the silicon database, against AIConfigurator's own answers."""

import random
from dataclasses import replace
from functools import cache

import pytest
from aiconfigurator_core.sdk.engine import EngineHandle

from runners.simulated.silicon import KV_MODES, QUANT_MODES, Silicon, StepKey, _handle
from runners.simulated.step_time import StepTimes
from search_spaces.config import Engine, Layout
from search_spaces.errors import InfeasibleError
from search_spaces.hardware.system import find_system
from search_spaces.models.model import find_model

TRTLLM = Engine(name="trtllm", version="1.3.0rc20")
VLLM = Engine(name="vllm", version="0.24.0")


def key(engine: Engine, weights: str, **layout: int) -> StepKey:
    return StepKey(engine=engine, layout=Layout(**layout), weights=weights, kv_cache="fp8")


WORKERS = {
    "gpt-oss tp1": ("gpt-oss-120b", "b200", key(TRTLLM, "mxfp4_mxfp8")),
    "deepseek tp8 ep8": ("deepseek-r1", "gb200-nvl72", key(TRTLLM, "nvfp4", tensor=8, expert=8)),
    "deepseek dp8 ep8": ("deepseek-r1", "gb200-nvl72", key(TRTLLM, "nvfp4", attention_dp=8, expert=8)),
    "llama tp4": ("llama-3.3-70b", "b200", key(VLLM, "nvfp4", tensor=4)),
    "llama tp2 pp2": ("llama-3.3-70b", "b200", key(VLLM, "nvfp4", tensor=2, pipeline=2)),
}
WORKER = pytest.mark.parametrize("worker", WORKERS)
EVERY_MODEL = pytest.mark.parametrize("worker", ["gpt-oss tp1", "deepseek tp8 ep8", "llama tp4"])


@cache
def silicon(model: str, system: str) -> Silicon:
    return Silicon(find_model(model), find_system(system), longest_context=8192)


@cache
def peer(worker: str) -> EngineHandle:
    """The same worker, compiled by AIConfigurator itself."""
    model_name, system_name, step_key = WORKERS[worker]
    model, layout = find_model(model_name), step_key.layout
    gemm, moe = QUANT_MODES[step_key.weights]
    return EngineHandle.compile(
        model.silicon_name,
        find_system(system_name).silicon_name,
        step_key.engine.name,
        backend_version=step_key.engine.version,
        tp_size=layout.tensor,
        pp_size=layout.pipeline,
        attention_dp_size=layout.attention_dp,
        moe_tp_size=layout.tensor * layout.attention_dp // layout.expert if model.is_moe else 1,
        moe_ep_size=layout.expert,
        gemm_quant_mode=gemm,
        moe_quant_mode=moe if model.is_moe else None,
        kvcache_quant_mode=KV_MODES[step_key.kv_cache],
        # DeepSeek's context attention was measured in bfloat16 only.
        fmha_quant_mode="bfloat16" if model_name == "deepseek-r1" else None,
    )


def step_times(worker: str) -> StepTimes:
    model, system, step_key = WORKERS[worker]
    return silicon(model, system).step_times(step_key)


@WORKER
@pytest.mark.parametrize("sequences", [1, 4, 16, 64, 256, 1024, 2048])
@pytest.mark.parametrize("context", [16, 256, 1024, 8192])
def test_a_decode_step_takes_what_aiconfigurator_says(worker, sequences, context):
    seconds, _ = step_times(worker).decode(sequences).line(context)
    # Its query stands at isl + osl / 2.
    assert seconds == pytest.approx(peer(worker).decode_step_latency(sequences, context - 1, 2) / 1000, rel=1e-9)


@WORKER
@pytest.mark.parametrize(
    ("prompts", "length"), [(1, 16), (1, 256), (1, 1024), (1, 8192), (4, 64), (4, 1024), (8, 512), (16, 1024)]
)
def test_a_prefill_pass_takes_what_aiconfigurator_says(worker, prompts, length):
    """The host's time to issue it is not in AIConfigurator's."""
    seconds = replace(step_times(worker), prefill_host=0.0).prefill([(0, length, length)] * prompts)
    assert seconds == pytest.approx(peer(worker).predict_prefill_latency(prompts, length) / 1000, rel=1e-9)


@WORKER
@pytest.mark.parametrize(("done", "now"), [(1024, 1024), (4096, 4096), (6144, 2048)])
def test_a_later_chunk_of_a_prompt_takes_what_aiconfigurator_says_within_two_percent(worker, done, now):
    seconds = replace(step_times(worker), prefill_host=0.0).prefill([(done, now, done + now)])
    assert seconds == pytest.approx(peer(worker).predict_prefill_latency(1, done + now, done) / 1000, rel=0.02)


@WORKER
def test_between_the_grid_points_the_typical_error_is_two_percent_and_the_worst_twenty(worker):
    """Measured kernels jump where a tile is full; a straight line between grid points does not."""
    times, rng = step_times(worker), random.Random(0)
    errors = []
    for _ in range(150):
        sequences, context = int(2 ** rng.uniform(0, 11)), int(2 ** rng.uniform(4, 13))
        expected = peer(worker).decode_step_latency(sequences, context - 1, 2) / 1000
        errors.append(abs(times.decode(sequences).line(context)[0] / expected - 1))
    errors.sort()
    assert errors[len(errors) // 2] < 0.02
    assert errors[-1] < 0.20


@EVERY_MODEL
def test_the_fast_handle_compiles_to_the_same_bytes(worker):
    model, system, step_key = WORKERS[worker]
    attention = "bfloat16" if model == "deepseek-r1" else None
    ours = _handle(find_model(model), find_system(system), step_key, attention)
    assert ours.spec_bytes == peer(worker).spec_bytes


@WORKER
def test_step_times_grow_with_the_batch_and_with_the_context(worker):
    times = step_times(worker)
    by_batch = [times.decode(sequences).line(1024)[0] for sequences in (1, 64, 512, 2048)]
    by_context = [times.decode(256).line(context)[0] for context in (16, 1024, 4096, 8192)]
    assert by_batch == sorted(by_batch)
    assert by_context == sorted(by_context)
    assert 1e-4 < by_batch[0] < 0.05


def test_pipeline_stages_pass_a_batch_on_instead_of_sharing_it():
    """A step passes through all stages: no faster than one stage of all layers; the stages hold one batch each."""
    step_key = WORKERS["llama tp2 pp2"][2]
    one_stage = replace(step_key, layout=Layout(tensor=2))
    model = silicon("llama-3.3-70b", "b200")
    two, one = (model.step_times(each).decode(64).line(1024)[0] for each in (step_key, one_stage))
    assert two >= one
    assert two == pytest.approx(one, rel=0.1)


def test_drafting_costs_a_small_part_of_a_step():
    for worker in WORKERS:
        times = step_times(worker)
        assert 0 < times.draft(16) < times.decode(16).line(1024)[0] / 4


def test_step_times_are_built_once():
    assert step_times("gpt-oss tp1") is step_times("gpt-oss tp1")


@pytest.mark.parametrize(
    ("model", "system", "step_key"),
    [
        ("gpt-oss-120b", "b200", key(VLLM, "mxfp4_mxfp8")),
        ("llama-3.3-70b", "h200", key(TRTLLM, "nvfp4")),
        ("deepseek-v4-pro", "b300", key(TRTLLM, "fp8_mxfp4", tensor=8, expert=8)),
    ],
    ids=["engine without that format", "GPU without that format", "release before the model"],
)
def test_a_kernel_that_was_never_measured_is_infeasible_and_says_which(model, system, step_key):
    for _ in range(2):
        with pytest.raises(InfeasibleError) as raised:
            silicon(model, system).step_times(step_key)
        assert raised.value.cause == "no kernel data"
        assert model in raised.value.detail
        assert step_key.engine.version in raised.value.detail


def test_a_release_that_was_never_measured_is_infeasible():
    unknown = replace(key(TRTLLM, "mxfp4_mxfp8"), engine=Engine(name="trtllm", version="0.20"))
    with pytest.raises(InfeasibleError) as raised:
        silicon("gpt-oss-120b", "b200").step_times(unknown)
    assert raised.value.cause == "no kernel data"
    assert "0.20" in raised.value.detail


def test_a_system_that_was_never_measured_is_infeasible():
    elsewhere = Silicon(
        find_model("gpt-oss-120b"), replace(find_system("b200"), silicon_name="b9000_sxm"), longest_context=8192
    )
    with pytest.raises(InfeasibleError) as raised:
        elsewhere.step_times(key(TRTLLM, "mxfp4_mxfp8"))
    assert raised.value.cause == "no kernel data"
    assert "b9000_sxm" in raised.value.detail


def test_a_layout_that_aiconfigurator_refuses_is_infeasible():
    uneven = key(TRTLLM, "nvfp4", tensor=8, expert=3)
    with pytest.raises(InfeasibleError) as raised:
        silicon("deepseek-r1", "gb200-nvl72").step_times(uneven)
    assert raised.value.cause == "no kernel data"
