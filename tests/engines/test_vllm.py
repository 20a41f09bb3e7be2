"""The real runner on a real vLLM, on the CPU: speculation, disaggregation, and deaths that are named."""

import http.client
import json
import signal
import threading
from dataclasses import replace

import psutil
import pytest
from ruamel.yaml import YAML

from runners.runner import RunFailedError
from runners.served.deployment import Installation
from runners.served.process import is_free
from runners.served.served import Served
from runners.served.time_limits import TimeLimits
from runners.workload.workload import Lengths, Workload
from search_spaces.config import Batching, Disaggregation, Engine, Layout, ServingConfig, Speculation
from search_spaces.models.model import Model
from tests.runners.served.kernel import NEEDS_MEMORY_OF_THE_REAPED
from tuner.scenario.own_facts import entry_of

pytestmark = pytest.mark.engine

FEW = Batching(max_sequences=8, max_batched_tokens=2048)
CONFIG = ServingConfig(engine=Engine(name="vllm", version="0.32.0"), batching=FEW)
LIMITS = TimeLimits(start_s=240, load_s=120, stall_s=10, errors_s=60)
WORKLOAD = Workload(input_tokens=Lengths(low=64, high=96), output_tokens=Lengths(low=12, high=20), requests=60)
BLOCK = 128
"""Tokens in a block of the KV cache on a CPU."""
PROMPT = "the quick brown fox jumps over the lazy dog " * 6


@pytest.fixture
def runner(tiny, vllm_python, engine_settings, tmp_path):
    """A runner for the tiny model, given further arguments of the engine."""
    model = entry_of(Model, tiny / "model.yaml", YAML(typ="safe").load(tiny / "model.yaml"))

    def make(*args):
        installation = Installation(
            python=vllm_python,
            checkpoint=str(tiny / "checkpoint"),
            args=(*engine_settings.args, *args),
            env={**engine_settings.env, "TEST_OF": str(tmp_path)},
        )
        return Served(model, installation, logs=tmp_path / "logs", limits=LIMITS)

    return make


def completed(url, checkpoint, tokens=24):
    server = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    body = {"model": str(checkpoint), "prompt": PROMPT, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    server.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    answer = json.loads(server.getresponse().read())
    server.close()
    return answer["choices"][0]["text"]


def url_of(measure):
    """Where the load of a server that is up goes."""
    return measure.__self__.deployment.urls[0]


def test_ngram_speculation_and_the_prefix_cache_tell_what_they_did(runner):
    config = replace(CONFIG, speculation=Speculation(method="ngram", draft_length=3))
    prompts = Lengths(low=BLOCK + 60, high=BLOCK + 80)
    workload = replace(WORKLOAD, input_tokens=prompts, shared_prefix_tokens=BLOCK + 10)
    with runner().serve(config) as measure:
        level = measure(workload.at(4))
    assert level.failed_requests == 0
    assert level.requests >= WORKLOAD.requests
    seen = level.observed
    assert seen is not None
    assert seen.versions == (("engine", "vllm 0.32.0"),)
    # A small random model soon repeats itself, which n-grams foresee: about 60 % were accepted when this was written.
    assert len(seen.acceptance) == 3
    assert 0 < seen.acceptance[2] <= seen.acceptance[1] <= seen.acceptance[0] <= 1
    assert seen.tokens_per_step == pytest.approx(1 + sum(seen.acceptance))
    assert seen.prefix_cache_hits == pytest.approx(BLOCK / prompts.mean, rel=0.1)
    assert seen.queue_time_s >= 0
    assert 0 < level.kv_cache_peak < 1


def test_a_small_kv_cache_is_seen_in_preemptions(runner):
    key_and_value, layers, heads, width, bf16 = 2, 2, 2, 32, 2
    block_bytes = BLOCK * key_and_value * layers * heads * width * bf16
    # Each request fills two blocks, and eight of them find twelve.
    tight = runner("--kv-cache-memory-bytes", str(12 * block_bytes))
    workload = replace(WORKLOAD, output_tokens=Lengths(low=110, high=150))
    with tight.serve(CONFIG) as measure:
        level = measure(workload.at(8))
    assert level.preemptions > 0
    assert level.kv_cache_peak > 0.5


def test_a_disaggregated_deployment_answers_as_an_aggregated_one_does(runner, tiny, tmp_path):
    shared = tmp_path / "kv"
    shared.mkdir()
    transfer = {
        "kv_connector": "ExampleConnector",
        "kv_role": "kv_both",
        "kv_connector_extra_config": {"shared_storage_path": str(shared)},
    }
    split = replace(CONFIG, disaggregation=Disaggregation(prefill_batching=FEW))
    with runner("--kv-transfer-config", json.dumps(transfer)).serve(split) as measure:
        handed_over = completed(url_of(measure), tiny / "checkpoint")
        assert list(shared.iterdir()), "the prefill worker has written the prompt's KV cache"
        level = measure(WORKLOAD.at(4))
    decode_log = (tmp_path / "logs" / "0000" / "decode-0.log").read_text()
    assert "External Cache Hit" in decode_log, "the decode worker has read it"
    assert level.gpus == 2
    assert level.failed_requests == 0
    assert level.source == "measured"
    with runner().serve(CONFIG) as measure:
        assert completed(url_of(measure), tiny / "checkpoint") == handed_over


def test_an_unknown_flag_is_named_with_the_parsers_own_words(runner):
    with pytest.raises(RunFailedError, match="unrecognized arguments: --no-such-flag") as caught:
        with runner("--no-such-flag").serve(CONFIG):
            pass
    assert caught.value.cause == "unsupported flag"


def test_a_combination_that_vllm_refuses_is_named(runner):
    with pytest.raises(RunFailedError, match=r"max_num_batched_tokens \(4\) must be greater than") as caught:
        with runner("--max-num-batched-tokens", "4").serve(CONFIG):
            pass
    assert caught.value.cause == "invalid combination"


def test_a_checkpoint_that_is_not_there_is_named(runner):
    with pytest.raises(RunFailedError) as caught, runner("--model", "/nowhere/at/all").serve(CONFIG):
        pass
    assert caught.value.cause == "no checkpoint"


def engine_core(tmp_path):
    """The process of the engine itself, behind the API server."""
    marked = [process for process in psutil.process_iter() if _is_of(process, tmp_path)]
    return next(process for process in marked if "EngineCore" in " ".join(process.cmdline()) + process.name())


def _is_of(process, tmp_path):
    # Engines write their title over their environment: look at their parents' too.
    try:
        family = [process, *process.parents()]
        return any(member.environ().get("TEST_OF") == str(tmp_path) for member in family)
    except psutil.Error:
        return False


@pytest.mark.parametrize(
    ("with_signal", "cause", "said"),
    [
        (signal.SIGSTOP, "hang under load", "no token for"),
        (signal.SIGILL, "engine core killed", r"illegal instruction \(SIGILL\), exit 0 under load, after"),
        pytest.param(
            signal.SIGKILL, "engine core killed", "SIGKILL, .*, exit 0 under load", marks=NEEDS_MEMORY_OF_THE_REAPED
        ),
    ],
)
def test_an_engine_that_hangs_or_dies_under_load_is_found_out(runner, tmp_path, with_signal, cause, said):
    long = replace(WORKLOAD, output_tokens=Lengths(low=400, high=500), requests=2000)
    with pytest.raises(RunFailedError, match=said) as caught, runner().serve(CONFIG) as measure:
        victim = engine_core(tmp_path)
        port = int(url_of(measure).rpartition(":")[2])
        threading.Timer(2.0, victim.send_signal, [with_signal]).start()
        measure(long.at(8))
    assert caught.value.cause == cause
    assert not victim.is_running() or victim.status() == psutil.STATUS_ZOMBIE
    assert is_free(port)


def test_replicas_share_the_machine(runner):
    with runner().serve(replace(CONFIG, layout=Layout(replicas=2))) as measure:
        assert len(measure.__self__.deployment.urls) == 2
        level = measure(WORKLOAD.at(4))
    assert level.gpus == 2
    assert level.failed_requests == 0
