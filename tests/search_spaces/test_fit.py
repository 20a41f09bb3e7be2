"""Why a configuration cannot be served: each law at its edge, with the numbers that it names."""

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from search_spaces.config import Batching, Disaggregation, Layout, Precision, ServingConfig, Speculation
from search_spaces.engines.engine import find_engine
from search_spaces.errors import InfeasibleError
from search_spaces.fit import GIB, check, kv_capacity, memory
from search_spaces.hardware.system import System, find_system, systems
from search_spaces.models.model import Model, find_model, models
from search_spaces.space import full_space

TRTLLM = find_engine("trtllm")
ENGINES = tuple(find_engine(name) for name in ("trtllm", "vllm", "sglang"))
B200, H200 = find_system("b200"), find_system("h200")
GPT_OSS, LLAMA, DEEPSEEK = find_model("gpt-oss-120b"), find_model("llama-3.3-70b"), find_model("deepseek-r1")
NVL72 = find_system("gb200-nvl72")
ONE_GPU = Layout()


def config_of(model: Model, layout: Layout = ONE_GPU, **parts) -> ServingConfig:
    parts.setdefault("precision", Precision(weights=model.own_weights, kv_cache="fp8"))
    return ServingConfig(engine=parts.pop("engine", TRTLLM), layout=layout, **parts)


def reason(model: Model, config: ServingConfig, *, system: System = B200, gpus: int = 72, tokens: int = 2048):
    """Cause and message of what keeps `config` from being served; None when nothing does."""
    try:
        check(model, system, config, gpus=gpus, max_request_tokens=tokens)
    except InfeasibleError as error:
        return error.cause, error.detail
    return None


# What is legal is let through


@pytest.mark.parametrize(
    ("model", "system", "layout"),
    [
        ("gpt-oss-120b", "b200", Layout(replicas=8)),
        ("gpt-oss-120b", "b200", Layout(tensor=8, expert=8)),
        ("llama-3.3-70b", "h200", Layout(tensor=4, pipeline=2)),
        ("deepseek-r1", "gb200-nvl72", Layout(attention_dp=64, expert=64)),
    ],
)
def test_what_people_serve_is_legal(model, system, layout):
    model = find_model(model)
    weights = next(weights for weights in model.weights if weights == "mxfp4" or "fp4" not in weights)
    config = config_of(model, layout, precision=Precision(weights=weights, kv_cache="fp8"))
    assert reason(model, config, system=find_system(system)) is None


# Each law, with its numbers

ILLEGAL = {
    "a tensor size that splits no head": (
        (GPT_OSS, config_of(GPT_OSS, Layout(tensor=3))),
        ("divisibility", "tensor 3 does not divide query heads 64"),
    ),
    "a pipeline longer than the model": (
        (GPT_OSS, config_of(GPT_OSS, Layout(pipeline=40)), {"system": NVL72}),
        ("divisibility", "pipeline 40 exceeds 36 layers"),
    ),
    "experts on more GPUs than a stage has": (
        (GPT_OSS, config_of(GPT_OSS, Layout(tensor=2, expert=4))),
        ("divisibility", "expert 4 does not divide tensor x attention_dp 2"),
    ),
    "experts that do not divide by their GPUs": (
        (DEEPSEEK, config_of(DEEPSEEK, Layout(attention_dp=48, expert=48)), {"system": NVL72}),
        ("divisibility", "expert 48 does not divide experts 256"),
    ),
    "an expert split finer than it is wide": (
        (GPT_OSS, config_of(GPT_OSS, Layout(attention_dp=7))),
        ("divisibility", "moe_tensor 7 does not divide expert width 2880"),
    ),
    "a worker beyond its NVLink domain": (
        (GPT_OSS, config_of(GPT_OSS, Layout(tensor=8, pipeline=2))),
        ("NVLink domain", "a worker of 16 GPUs spans more than one domain of 8"),
    ),
    "prefill workers beyond their NVLink domain": (
        (GPT_OSS, config_of(GPT_OSS, disaggregation=Disaggregation(prefill_layout=Layout(tensor=16)))),
        ("NVLink domain", "a worker of 16 GPUs spans more than one domain of 8"),
    ),
    "more GPUs than there are": (
        (GPT_OSS, config_of(GPT_OSS, Layout(replicas=9)), {"gpus": 8}),
        ("GPUs", "needs 9 GPUs, 8 are there"),
    ),
    "more GPUs than there are, with those of prefill": (
        (
            GPT_OSS,
            config_of(GPT_OSS, Layout(replicas=5), disaggregation=Disaggregation(prefill_layout=Layout(tensor=4))),
            {"gpus": 8},
        ),
        ("GPUs", "needs 9 GPUs, 8 are there"),
    ),
    "experts of a dense model": (
        (LLAMA, config_of(LLAMA, Layout(tensor=8, expert=8))),
        ("dense model", "need experts"),
    ),
    "attention DP of a dense model": (
        (LLAMA, config_of(LLAMA, Layout(attention_dp=8))),
        ("dense model", "need experts"),
    ),
    "weights that the model does not come in": (
        (GPT_OSS, config_of(GPT_OSS, precision=Precision(weights="nvfp4"))),
        ("precision", "gpt-oss-120b has no nvfp4 weights (known: mxfp4, mxfp4_mxfp8)"),
    ),
    "NVFP4 on Hopper": (
        (LLAMA, config_of(LLAMA, precision=Precision(weights="nvfp4")), {"system": H200}),
        ("precision", "has no FP4 tensor cores for nvfp4"),
    ),
    "MXFP4 with MXFP8 activations on Hopper": (
        (GPT_OSS, config_of(GPT_OSS, precision=Precision(weights="mxfp4_mxfp8")), {"system": H200}),
        ("precision", "has no FP4 tensor cores for mxfp4_mxfp8"),
    ),
    "a draft head that nobody trained": (
        (GPT_OSS, config_of(GPT_OSS, speculation=Speculation(method="mtp", draft_length=1))),
        ("no draft", "gpt-oss-120b has no mtp draft (known: eagle3, ngram)"),
    ),
    "a draft longer than was measured": (
        (GPT_OSS, config_of(GPT_OSS, speculation=Speculation(method="eagle3", draft_length=8))),
        ("no acceptance data", "measured up to draft length 5, not 8"),
    ),
    "a pass too small for the drafts": (
        (
            GPT_OSS,
            config_of(
                GPT_OSS,
                batching=Batching(max_sequences=2048, max_batched_tokens=8192),
                speculation=Speculation(method="eagle3", draft_length=4),
            ),
        ),
        ("batching", "max_sequences x (draft_length + 1) = 10240 tokens must fit max_batched_tokens 8192"),
    ),
    "a pipeline that speculates": (
        (
            GPT_OSS,
            config_of(GPT_OSS, Layout(pipeline=2), speculation=Speculation(method="eagle3", draft_length=1)),
        ),
        ("engine", "eagle3 needs pipeline 1, but the workers have 2"),
    ),
    "weights that are larger than the GPU": (
        (DEEPSEEK, config_of(DEEPSEEK)),
        ("memory", "GiB leave room for 0 KV-cache tokens, but one request needs 2048"),
    ),
}


@pytest.mark.parametrize("case", ILLEGAL)
def test_it_says_why_with_the_numbers(case):
    (model, config, *more), (cause, part) = ILLEGAL[case]
    found = reason(model, config, **(more[0] if more else {}))
    assert found is not None
    assert found[0] == cause
    assert part in found[1]


def test_mxfp4_experts_with_16_bit_activations_run_on_hopper():
    config = config_of(GPT_OSS, Layout(tensor=2), precision=Precision(weights="mxfp4", kv_cache="fp8"))
    assert reason(GPT_OSS, config, system=H200) is None


def test_a_message_of_memory_adds_up():
    _, detail = reason(DEEPSEEK, config_of(DEEPSEEK, Layout(attention_dp=2, expert=2)))
    numbers = [float(word) for word in detail.replace(",", "").split() if word.replace(".", "").isdigit()]
    weights, draft, activations, runtime, capacity, room, needed = numbers
    assert weights + draft + activations + runtime > 0.8 * capacity
    assert room < needed == 2048


def test_the_longest_request_has_to_fit_alone():
    config = config_of(GPT_OSS, precision=Precision(weights="mxfp4", kv_cache="bf16"))
    held = kv_capacity(GPT_OSS, B200, config, config.layout, config.batching, 131072)
    assert reason(GPT_OSS, config, tokens=131072) is None
    assert held >= 131072
    assert reason(GPT_OSS, config, tokens=100 * held)[0] == "memory"


# Golden numbers, by hand


def test_llama_in_bf16_on_eight_gpus_holds_an_eighth_of_its_weights_on_each():
    config = config_of(LLAMA, Layout(tensor=8), precision=Precision(weights="bf16"))
    held = memory(LLAMA, B200, config, config.layout, config.batching)
    assert held.weights == pytest.approx(70.55e9 * 2 / 8, rel=1e-3)
    assert held.draft == 0
    # 8,192 tokens x 8,192 hidden elements x 10 bytes
    assert held.activations == pytest.approx(671_088_640)
    assert held.runtime == pytest.approx(3.5 * GIB + 392 * 2**20)


def test_llama_leaves_320_kib_of_16_bit_kv_cache_for_each_token():
    # 80 layers x 2 x 8 heads x 128 elements x 2 bytes; an eighth of it on each of eight GPUs
    config = config_of(LLAMA, Layout(tensor=8), precision=Precision(weights="bf16", kv_cache="bf16"))
    budget = memory(LLAMA, B200, config, config.layout, config.batching)
    held = kv_capacity(LLAMA, B200, config, config.layout, config.batching, 2048)
    assert held == int(budget.kv_cache / (327_680 / 8))


def test_trtllm_takes_its_share_of_what_is_free_and_vllm_of_the_whole():
    layout = Layout(tensor=8)
    precision = Precision(weights="bf16")
    of_free = memory(LLAMA, B200, config_of(LLAMA, layout, precision=precision), layout, Batching())
    vllm = config_of(LLAMA, layout, precision=precision, engine=find_engine("vllm"))
    of_total = memory(LLAMA, B200, vllm, layout, Batching())
    assert of_free.kv_cache == pytest.approx(0.9 * (of_free.capacity - of_free.other_than_kv))
    assert of_total.kv_cache == pytest.approx(0.92 * of_total.capacity - of_total.other_than_kv)


# Laws


@st.composite
def drawn(draw):
    """A model, a system and a configuration out of their space."""
    model = models()[draw(st.sampled_from(sorted(models())))]
    system = systems()[draw(st.sampled_from(sorted(systems())))]
    space = full_space(model, system, ENGINES, draw(st.integers(1, system.max_gpus)))
    params = {name: draw(st.sampled_from(values)) for name, values in space.dimensions.items()}
    try:
        return model, system, space.gpus, space.config(space.drawn(params))
    except InfeasibleError:
        assume(False)


def with_memory(system: System, size: float) -> System:
    return replace(system, gpu=replace(system.gpu, memory_bytes=size))


@settings(deadline=None)
@given(drawn(), st.floats(16, 400), st.floats(1, 4))
def test_what_fits_a_gpu_fits_a_larger_one(one, gib, times):
    model, system, gpus, config = one
    small, large = with_memory(system, gib * GIB), with_memory(system, times * gib * GIB)
    if reason(model, config, system=small, gpus=gpus) is None:
        assert reason(model, config, system=large, gpus=gpus) is None


@settings(deadline=None)
@given(drawn(), st.integers(1, 100_000), st.integers(1, 100_000))
def test_what_holds_a_long_request_holds_a_shorter_one(one, tokens, fewer):
    model, system, gpus, config = one
    if reason(model, config, system=system, gpus=gpus, tokens=tokens + fewer) is None:
        assert reason(model, config, system=system, gpus=gpus, tokens=tokens) is None


@settings(deadline=None)
@given(drawn())
def test_a_drawn_configuration_never_fails_for_its_number_of_gpus(one):
    model, system, gpus, config = one
    found = reason(model, config, system=system, gpus=gpus)
    assert found is None or found[0] != "GPUs"


@settings(deadline=None)
@given(drawn())
def test_the_parts_of_a_gpus_memory_are_what_it_has(one):
    model, system, _, config = one
    held = memory(model, system, config, config.layout, config.batching)
    assert min(held.weights, held.activations, held.runtime) > 0
    assert held.kv_cache + held.other_than_kv <= held.capacity or held.kv_cache < 0
