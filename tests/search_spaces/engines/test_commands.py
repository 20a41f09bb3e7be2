"""The commands that start an engine: against lines worked by hand from its documentation and its parser."""

import json
import re
import shlex
from dataclasses import replace
from itertools import product
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from search_spaces.config import (
    METHODS,
    Batching,
    Disaggregation,
    Engine,
    EngineName,
    KvCache,
    Layout,
    Precision,
    ServingConfig,
    Speculation,
    Weights,
)
from search_spaces.engines.commands import Address, Command, Placement, commands, router
from search_spaces.engines.engine import engine_names, engines, find_engine
from search_spaces.engines.laws import unsupported
from search_spaces.errors import InfeasibleError
from search_spaces.models.model import find_model, models
from tests.search_spaces.engines.configs import configs

EVERY_ENGINE = pytest.mark.parametrize("engine", engine_names())
EVERY_MODEL = pytest.mark.parametrize("model", models().values(), ids=list(models()))
ONE_GPU = Layout()
R1 = Precision(weights="nvfp4", kv_cache="fp8")
MXFP4 = Precision(weights="mxfp4", kv_cache="fp8")
MXFP8 = Precision(weights="mxfp4_mxfp8", kv_cache="fp8")
ATTENTION_DP = Layout(attention_dp=8, expert=8)


def started(name: str, engine: EngineName, layout: Layout = ONE_GPU, **parts) -> tuple[Command, ...]:
    return commands(find_model(name), ServingConfig(engine=find_engine(engine), layout=layout, **parts))


def line(name: str, engine: EngineName, layout: Layout = ONE_GPU, **parts) -> str:
    (command,) = started(name, engine, layout, **parts)
    return command.shell


def settings(command: Command) -> dict:
    """The TensorRT-LLM settings that a command reads."""
    ((name, text),) = command.files.items()
    assert name == option(command, "--config")
    return YAML(typ="safe", pure=True).load(text)


def option(command: Command, name: str) -> str | None:
    return command.argv[command.argv.index(name) + 1] if name in command.argv else None


def test_tensorrt_llm_serves_a_dense_model_over_four_gpus():
    (command,) = started(
        "llama-3.3-70b",
        "trtllm",
        Layout(tensor=4, replicas=2),
        precision=Precision(weights="fp8", kv_cache="fp8"),
        batching=Batching(max_sequences=128, max_batched_tokens=4096),
    )
    assert command.shell == (
        "trtllm-serve nvidia/Llama-3.3-70B-Instruct-FP8 --host 127.0.0.1 --port 8000 --tp_size 4 "
        "--max_batch_size 128 --max_num_tokens 4096 --config trtllm-serve.yaml"
    )
    assert (
        command.files["trtllm-serve.yaml"]
        == """\
enable_attention_dp: false
enable_chunked_prefill: true
kv_cache_config:
  dtype: fp8
  free_gpu_memory_fraction: 0.9
cuda_graph_config:
  enable_padding: true
  max_batch_size: 128
"""
    )
    assert (command.role, command.copies, command.gpus, command.env) == ("serve", 2, 4, {})
    assert "Start 2 of these, each with 4 GPUs of its own" in command.note
    assert "load balancer" in command.note


def test_vllm_serves_a_dense_model_over_four_gpus():
    assert line(
        "llama-3.3-70b",
        "vllm",
        Layout(tensor=4),
        precision=Precision(weights="fp8", kv_cache="fp8"),
        batching=Batching(max_sequences=128, max_batched_tokens=4096),
    ) == (
        "vllm serve meta-llama/Llama-3.3-70B-Instruct --host 127.0.0.1 --port 8000 --tensor-parallel-size 4 "
        "--max-num-seqs 128 --max-num-batched-tokens 4096 --max-model-len auto --gpu-memory-utilization 0.92 "
        "--quantization fp8 --kv-cache-dtype fp8"
    )


def test_sglang_serves_a_dense_model_over_four_gpus():
    assert line(
        "llama-3.3-70b",
        "sglang",
        Layout(tensor=4),
        precision=Precision(weights="fp8", kv_cache="fp8"),
        batching=Batching(max_sequences=128, max_batched_tokens=4096),
    ) == (
        "python -m sglang.launch_server --model-path meta-llama/Llama-3.3-70B-Instruct --host 127.0.0.1 "
        "--port 8000 --tp-size 4 --max-running-requests 128 --chunked-prefill-size 4096 "
        "--cuda-graph-max-bs-decode 128 --mem-fraction-static 0.88 --quantization fp8 "
        "--kv-cache-dtype fp8_e4m3"
    )


def test_tensorrt_llm_counts_attention_dp_as_tensor_parallelism():
    (command,) = started("gpt-oss-120b", "trtllm", ATTENTION_DP, precision=MXFP8)
    assert command.shell == (
        "trtllm-serve openai/gpt-oss-120b --host 127.0.0.1 --port 8000 --tp_size 8 --ep_size 8 "
        "--max_batch_size 256 --max_num_tokens 8192 --config trtllm-serve.yaml"
    )
    assert settings(command)["enable_attention_dp"] is True
    assert command.env == {"OVERRIDE_QUANT_ALGO": "W4A8_MXFP4_MXFP8"}


def test_vllm_counts_attention_dp_as_data_parallelism():
    assert line("gpt-oss-120b", "vllm", ATTENTION_DP, precision=MXFP8) == (
        "vllm serve openai/gpt-oss-120b --host 127.0.0.1 --port 8000 --tensor-parallel-size 1 "
        "--data-parallel-size 8 --enable-expert-parallel --max-num-seqs 256 --max-num-batched-tokens 8192 "
        "--max-model-len auto --gpu-memory-utilization 0.92 "
        """--quantization-config '{"moe": {"activation": "mxfp8"}}' --kv-cache-dtype fp8"""
    )


def test_sglang_counts_attention_dp_as_part_of_tensor_parallelism_and_its_limits_over_all_ranks():
    assert line("gpt-oss-120b", "sglang", Layout(tensor=2, attention_dp=4, expert=2), precision=MXFP8) == (
        "python -m sglang.launch_server --model-path openai/gpt-oss-120b --host 127.0.0.1 --port 8000 "
        "--tp-size 8 --dp-size 4 --enable-dp-attention --ep-size 2 --max-running-requests 1024 "
        "--chunked-prefill-size 32768 --cuda-graph-max-bs-decode 256 --mem-fraction-static 0.88 "
        "--kv-cache-dtype fp8_e4m3 --moe-runner-backend flashinfer_mxfp4"
    )


def test_sglang_and_tensorrt_llm_are_told_for_how_long_arrivals_wait():
    waits = Batching(receive_interval=30)
    assert "--scheduler-recv-interval 30" in line("llama-3.3-70b", "sglang", Layout(tensor=4), batching=waits)
    (trtllm,) = started("llama-3.3-70b", "trtllm", Layout(tensor=4), batching=waits)
    assert settings(trtllm)["batch_wait_timeout_iters"] == 30
    (ranks,) = started("deepseek-r1", "trtllm", Layout(attention_dp=8, expert=8), batching=waits)
    assert settings(ranks)["attention_dp_config"]["timeout_iters"] == 30


def test_a_pipeline_multiplies_the_limits_that_count_all_of_its_batches():
    layout = Layout(tensor=2, pipeline=2)
    (trtllm,) = started("llama-3.3-70b", "trtllm", layout)
    (vllm,) = started("llama-3.3-70b", "vllm", layout)
    (sglang,) = started("llama-3.3-70b", "sglang", layout)
    assert (option(trtllm, "--pp_size"), option(trtllm, "--max_batch_size")) == ("2", "256")
    assert (option(vllm, "--pipeline-parallel-size"), option(vllm, "--max-num-seqs")) == ("2", "512")
    assert (option(sglang, "--pp-size"), option(sglang, "--max-running-requests")) == ("2", "512")
    assert option(vllm, "--max-num-batched-tokens") == option(sglang, "--chunked-prefill-size") == "8192"
    assert [command.gpus for command in (trtllm, vllm, sglang)] == [4, 4, 4]


@pytest.mark.parametrize(
    ("name", "speculation", "expected"),
    [
        (
            "deepseek-r1",
            Speculation(method="mtp", draft_length=3),
            {"decoding_type": "MTP", "max_draft_len": 3, "num_nextn_predict_layers": 3},
        ),
        (
            "llama-3.1-8b",
            Speculation(method="eagle3", draft_length=2),
            {
                "decoding_type": "Eagle3",
                "max_draft_len": 2,
                "speculative_model": "yuhuili/EAGLE3-LLaMA3.1-Instruct-8B",
            },
        ),
        (
            "llama-3.1-8b",
            Speculation(method="ngram", draft_length=5),
            {"decoding_type": "NGram", "max_draft_len": 5, "max_matching_ngram_size": 4},
        ),
    ],
    ids=["mtp", "eagle3", "ngram"],
)
def test_tensorrt_llm_is_told_to_speculate_in_its_settings(name, speculation, expected):
    (command,) = started(name, "trtllm", speculation=speculation)
    assert settings(command)["speculative_config"] == expected
    assert settings(command).get("disable_overlap_scheduler", False) == (speculation.method == "ngram")


@pytest.mark.parametrize(
    ("name", "speculation", "expected"),
    [
        (
            "deepseek-r1",
            Speculation(method="mtp", draft_length=3),
            {"method": "mtp", "num_speculative_tokens": 3},
        ),
        (
            "gpt-oss-120b",
            Speculation(method="eagle3", draft_length=2),
            {"method": "eagle3", "num_speculative_tokens": 2, "model": "nvidia/gpt-oss-120b-Eagle3-v2"},
        ),
        (
            "llama-3.1-8b",
            Speculation(method="ngram", draft_length=5),
            {"method": "ngram", "num_speculative_tokens": 5, "prompt_lookup_min": 1, "prompt_lookup_max": 4},
        ),
    ],
    ids=["mtp", "eagle3", "ngram"],
)
def test_vllm_is_told_to_speculate_in_json(name, speculation, expected):
    (command,) = started(name, "vllm", speculation=speculation)
    assert json.loads(option(command, "--speculative-config")) == expected


@pytest.mark.parametrize(
    ("name", "speculation", "expected"),
    [
        (
            "deepseek-r1",
            Speculation(method="mtp", draft_length=3),
            (
                "--speculative-algorithm EAGLE --speculative-num-steps 3 --speculative-eagle-topk 1 "
                "--speculative-num-draft-tokens 4"
            ),
        ),
        (
            "llama-3.3-70b",
            Speculation(method="eagle3", draft_length=2),
            (
                "--speculative-algorithm EAGLE3 "
                "--speculative-draft-model-path nebius/EAGLE3-Llama-3.3-70B-Instruct "
                "--speculative-num-steps 2 --speculative-eagle-topk 1 --speculative-num-draft-tokens 3"
            ),
        ),
        (
            "llama-3.1-8b",
            Speculation(method="ngram", draft_length=5),
            ("--speculative-algorithm NGRAM --speculative-num-draft-tokens 6 --speculative-ngram-max-bfs-breadth 1"),
        ),
    ],
    ids=["mtp", "eagle3", "ngram"],
)
def test_sglang_is_told_to_speculate_in_a_chain_with_one_token_more_than_it_drafts(name, speculation, expected):
    assert line(name, "sglang", speculation=speculation).endswith(expected)


@EVERY_ENGINE
def test_a_draft_that_nobody_published_is_a_placeholder_that_the_note_explains(engine):
    speculation = Speculation(method="eagle3", draft_length=2)
    (command,) = started("llama-3.1-405b", engine, Layout(tensor=8), speculation=speculation)
    everything = " ".join([*command.argv, *command.files.values()])
    assert "<eagle3 draft of meta-llama/Llama-3.1-405B-Instruct>" in everything
    assert "needs an EAGLE-3 draft for meta-llama/Llama-3.1-405B-Instruct" in command.note


def test_vllm_captures_graphs_for_the_whole_batch_with_its_drafts():
    speculation = Speculation(method="mtp", draft_length=3)
    assert option(started("deepseek-r1", "vllm")[0], "--max-cudagraph-capture-size") is None
    (command,) = started("deepseek-r1", "vllm", speculation=speculation)
    assert option(command, "--max-cudagraph-capture-size") == "1024"


XPYD = {
    "layout": replace(ATTENTION_DP, replicas=3),
    "precision": R1,
    "speculation": Speculation(method="mtp", draft_length=1),
    "disaggregation": Disaggregation(
        prefill_layout=Layout(tensor=4, expert=4, replicas=5),
        prefill_batching=Batching(max_sequences=32, max_batched_tokens=16384),
    ),
}


def test_tensorrt_llm_hands_the_cache_over_between_two_roles():
    prefill, decode = started("deepseek-r1", "trtllm", **XPYD)
    assert prefill.shell == (
        "trtllm-serve nvidia/DeepSeek-R1-NVFP4 --host 127.0.0.1 --port 8100 --tp_size 4 --ep_size 4 "
        "--max_batch_size 32 --max_num_tokens 16384 --config trtllm-prefill.yaml"
    )
    assert decode.shell == (
        "trtllm-serve nvidia/DeepSeek-R1-NVFP4 --host 127.0.0.1 --port 8200 --tp_size 8 --ep_size 8 "
        "--max_batch_size 256 --max_num_tokens 8192 --config trtllm-decode.yaml"
    )
    speculation = {"decoding_type": "MTP", "max_draft_len": 1, "num_nextn_predict_layers": 1}
    assert settings(prefill) == {
        "enable_attention_dp": False,
        "enable_chunked_prefill": True,
        "kv_cache_config": {"dtype": "fp8", "free_gpu_memory_fraction": 0.9},
        "speculative_config": speculation,
        "disable_overlap_scheduler": True,
        "cache_transceiver_config": {"backend": "NIXL"},
    }
    assert settings(decode) == {
        "enable_attention_dp": True,
        "enable_chunked_prefill": True,
        "kv_cache_config": {"dtype": "fp8", "free_gpu_memory_fraction": 0.9},
        "cuda_graph_config": {"enable_padding": True, "max_batch_size": 256},
        "speculative_config": speculation,
        "cache_transceiver_config": {"backend": "NIXL"},
    }
    assert "trtllm-serve disaggregated" in prefill.note
    assert "trtllm-serve disaggregated" in decode.note


def test_vllm_hands_the_cache_over_between_two_roles():
    prefill, decode = started("deepseek-r1", "vllm", **XPYD)
    assert prefill.shell == (
        "vllm serve nvidia/DeepSeek-R1-NVFP4 --host 127.0.0.1 --port 8100 --tensor-parallel-size 4 "
        "--enable-expert-parallel --max-num-seqs 32 --max-num-batched-tokens 16384 --max-model-len auto "
        "--gpu-memory-utilization 0.92 --kv-cache-dtype fp8 "
        """--speculative-config '{"method": "mtp", "num_speculative_tokens": 1}' """
        """--kv-transfer-config '{"kv_connector": "NixlConnector", "kv_role": "kv_producer"}'"""
    )
    assert decode.shell == (
        "vllm serve nvidia/DeepSeek-R1-NVFP4 --host 127.0.0.1 --port 8200 --tensor-parallel-size 1 "
        "--data-parallel-size 8 --enable-expert-parallel --max-num-seqs 256 --max-num-batched-tokens 8192 "
        "--max-model-len auto --gpu-memory-utilization 0.92 --kv-cache-dtype fp8 "
        """--speculative-config '{"method": "mtp", "num_speculative_tokens": 1}' """
        """--kv-transfer-config '{"kv_connector": "NixlConnector", "kv_role": "kv_consumer"}'"""
    )
    assert prefill.env == {"VLLM_NIXL_SIDE_CHANNEL_PORT": "5600"}
    assert decode.env == {"VLLM_NIXL_SIDE_CHANNEL_PORT": "5700"}
    assert "vllm-router" in prefill.note
    assert "vllm-router" in decode.note


def test_sglang_hands_the_cache_over_between_two_roles():
    prefill, decode = started("deepseek-r1", "sglang", **XPYD)
    assert prefill.shell == (
        "python -m sglang.launch_server --model-path nvidia/DeepSeek-R1-NVFP4 --host 127.0.0.1 --port 8100 "
        "--tp-size 4 --ep-size 4 --max-running-requests 32 --chunked-prefill-size 16384 "
        "--mem-fraction-static 0.88 --kv-cache-dtype fp8_e4m3 --speculative-algorithm EAGLE "
        "--speculative-num-steps 1 --speculative-eagle-topk 1 --speculative-num-draft-tokens 2 "
        "--disaggregation-mode prefill --disaggregation-transfer-backend nixl "
        "--disaggregation-bootstrap-port 8998"
    )
    assert decode.shell == (
        "python -m sglang.launch_server --model-path nvidia/DeepSeek-R1-NVFP4 --host 127.0.0.1 --port 8200 "
        "--tp-size 8 --dp-size 8 --enable-dp-attention --ep-size 8 --max-running-requests 2048 "
        "--chunked-prefill-size 65536 --cuda-graph-max-bs-decode 256 --mem-fraction-static 0.88 "
        "--kv-cache-dtype fp8_e4m3 --speculative-algorithm EAGLE --speculative-num-steps 1 "
        "--speculative-eagle-topk 1 --speculative-num-draft-tokens 2 --disaggregation-mode decode "
        "--disaggregation-transfer-backend nixl"
    )
    assert "sglang_router.launch_router --pd-disaggregation" in prefill.note
    assert "sglang_router.launch_router --pd-disaggregation" in decode.note


@EVERY_ENGINE
def test_n_grams_are_looked_up_while_decoding_only(engine):
    speculation = Speculation(method="ngram", draft_length=2)
    prefill, decode = started("llama-3.1-8b", engine, speculation=speculation, disaggregation=Disaggregation())
    assert "spec" not in " ".join([*prefill.argv, *prefill.files.values()])
    assert "spec" in " ".join([*decode.argv, *decode.files.values()])


@EVERY_ENGINE
def test_prefill_and_decode_workers_listen_on_different_ports(engine):
    prefill, decode = started("llama-3.1-8b", engine, disaggregation=Disaggregation())
    assert option(prefill, "--port") != option(decode, "--port")
    assert option(prefill, "--host") == option(decode, "--host") == "127.0.0.1"


@EVERY_ENGINE
def test_a_place_says_the_address_and_the_port_of_every_role(engine):
    placement = Placement(host="0.0.0.0", ports={"prefill": 9101, "decode": 9202}, bootstrap_port=9303)
    config = ServingConfig(engine=find_engine(engine), disaggregation=Disaggregation())
    prefill, decode = commands(find_model("llama-3.1-8b"), config, placement=placement)
    assert option(prefill, "--host") == option(decode, "--host") == "0.0.0.0"
    assert (option(prefill, "--port"), option(decode, "--port")) == ("9101", "9202")
    assert option(prefill, "--disaggregation-bootstrap-port") == ("9303" if engine == "sglang" else None)


def test_a_place_says_where_nixl_agents_shake_hands():
    placement = Placement(side_channels={"prefill": 7001, "decode": 7002})
    config = ServingConfig(engine=find_engine("vllm"), disaggregation=Disaggregation())
    rendered = commands(find_model("llama-3.1-8b"), config, placement=placement)
    assert [command.env["VLLM_NIXL_SIDE_CHANNEL_PORT"] for command in rendered] == ["7001", "7002"]


@EVERY_ENGINE
def test_a_local_copy_is_loaded_in_place_of_what_is_published_and_nothing_else_changes(engine):
    speculation = Speculation(method="eagle3", draft_length=2)
    config = ServingConfig(engine=find_engine(engine), precision=R1, speculation=speculation)
    (command,) = commands(find_model("kimi-k2.5"), config, placement=Placement(checkpoint="./model", draft="./draft"))
    (published,) = commands(find_model("kimi-k2.5"), config)
    copied = [part.replace("nvidia/Kimi-K2.5-NVFP4", "./model") for part in published.argv]
    assert list(command.argv) == [part.replace("nvidia/Kimi-K2.5-Thinking-Eagle3", "./draft") for part in copied]
    assert "checkpoint of" not in command.note
    assert "EAGLE-3" not in command.note


@pytest.mark.parametrize(
    ("engine", "precision", "arguments", "env"),
    [
        ("trtllm", MXFP4, set(), {"OVERRIDE_QUANT_ALGO": "W4A16_MXFP4"}),
        ("trtllm", MXFP8, set(), {"OVERRIDE_QUANT_ALGO": "W4A8_MXFP4_MXFP8"}),
        ("vllm", MXFP4, set(), {}),
        ("vllm", MXFP8, {"--quantization-config", '{"moe": {"activation": "mxfp8"}}'}, {}),
        ("sglang", MXFP4, {"--flashinfer-mxfp4-moe-precision", "bf16"}, {}),
        ("sglang", MXFP8, {"--moe-runner-backend", "flashinfer_mxfp4"}, {}),
    ],
)
def test_both_mxfp4_recipes_load_one_checkpoint_with_other_activations(engine, precision, arguments, env):
    (command,) = started("gpt-oss-120b", engine, precision=precision)
    (neither,) = started("gpt-oss-120b", engine, precision=replace(precision, weights="fp8_mxfp4"))
    assert "openai/gpt-oss-120b" in command.argv
    assert set(command.argv) - set(neither.argv) - {"openai/gpt-oss-120b"} == arguments
    assert command.env == env


@pytest.mark.parametrize(
    ("engine", "weights", "loaded", "quantization"),
    [
        ("trtllm", "bf16", "Qwen/Qwen3-235B-A22B", None),
        ("trtllm", "fp8", "<FP8 checkpoint of Qwen/Qwen3-235B-A22B>", None),
        ("trtllm", "fp8_block", "Qwen/Qwen3-235B-A22B-FP8", None),
        ("trtllm", "nvfp4", "nvidia/Qwen3-235B-A22B-NVFP4", None),
        ("vllm", "fp8", "Qwen/Qwen3-235B-A22B", "fp8"),
        ("vllm", "fp8_block", "Qwen/Qwen3-235B-A22B", "fp8_per_block"),
        ("vllm", "nvfp4", "nvidia/Qwen3-235B-A22B-NVFP4", None),
        ("sglang", "fp8", "Qwen/Qwen3-235B-A22B", "fp8"),
        ("sglang", "fp8_block", "Qwen/Qwen3-235B-A22B-FP8", None),
    ],
)
def test_the_recipe_says_what_is_loaded(engine, weights, loaded, quantization):
    (command,) = started("qwen3-235b", engine, Layout(tensor=4), precision=Precision(weights=weights))
    assert loaded in command.argv
    assert option(command, "--quantization") == quantization
    if loaded != "Qwen/Qwen3-235B-A22B":
        assert "checkpoint of Qwen/Qwen3-235B-A22B" in command.note


@EVERY_ENGINE
@EVERY_MODEL
def test_the_published_format_loads_the_published_checkpoint(engine, model):
    config = ServingConfig(engine=find_engine(engine), precision=Precision(weights=model.own_weights))
    (command,) = commands(model, config)
    assert model.checkpoint in command.argv
    assert option(command, "--quantization") is None


@pytest.mark.parametrize(
    ("engine", "name", "expected"),
    [
        ("vllm", "bf16", "bfloat16"),
        ("vllm", "fp8", "fp8"),
        ("sglang", "bf16", "bf16"),
        ("sglang", "fp8", "fp8_e4m3"),
    ],
)
def test_each_engine_has_its_own_names_for_the_cache(engine, name, expected):
    (command,) = started("llama-3.1-8b", engine, precision=Precision(kv_cache=name))
    assert option(command, "--kv-cache-dtype") == expected


def test_tensorrt_llm_takes_the_cache_s_format_from_the_checkpoint_and_says_so():
    (own,) = started("llama-3.1-8b", "trtllm")
    (other,) = started("llama-3.1-8b", "trtllm", precision=Precision(weights="nvfp4"))
    assert settings(own)["kv_cache_config"]["dtype"] == settings(other)["kv_cache_config"]["dtype"] == "auto"
    assert "FP8 in spite of bf16" in other.note
    assert "FP8 in spite of bf16" not in own.note


@EVERY_ENGINE
def test_what_the_engine_cannot_express_is_refused_with_the_reason(engine):
    speculation = Speculation(method="ngram", draft_length=1)
    config = ServingConfig(engine=find_engine(engine), layout=Layout(pipeline=2), speculation=speculation)
    with pytest.raises(InfeasibleError) as error:
        commands(find_model("llama-3.1-8b"), config)
    assert error.value.cause == "engine"
    assert error.value.detail == unsupported(config)


@EVERY_ENGINE
def test_a_release_that_nobody_checked_is_named_in_the_note(engine):
    known = ServingConfig(engine=find_engine(engine))
    unknown = replace(known, engine=Engine(name=engine, version="99.0"))
    assert "99.0" not in commands(find_model("llama-3.1-8b"), known)[0].note
    assert "not for 99.0" in commands(find_model("llama-3.1-8b"), unknown)[0].note


@EVERY_ENGINE
@pytest.mark.parametrize("version", [0, 1])
def test_both_releases_are_started_alike(engine, version):
    config = ServingConfig(engine=Engine(name=engine, version=engines()[engine].versions[version]))
    assert commands(find_model("llama-3.1-8b"), config) == started("llama-3.1-8b", engine)


@EVERY_ENGINE
def test_a_worker_of_many_gpus_says_how_it_spans_nodes(engine):
    (large,) = started("deepseek-r1", engine, Layout(attention_dp=32, expert=32), precision=R1)
    (small,) = started("deepseek-r1", engine, Layout(tensor=4, expert=4), precision=R1)
    assert "fewer than 32 GPUs" in large.note
    assert "fewer than" not in small.note


@EVERY_ENGINE
def test_a_checkpoint_with_code_of_its_own_is_trusted_openly(engine):
    (command,) = started("kimi-k2.5", engine, Layout(tensor=8), precision=R1)
    assert {"--trust-remote-code", "--trust_remote_code"} & set(command.argv)
    assert "Python code of its own" in command.note


@given(model=st.sampled_from(sorted(models())), config=configs)
def test_every_configuration_is_rendered_on_exactly_its_gpus_or_refused_for_a_reason(model, config):
    if unsupported(config):
        with pytest.raises(InfeasibleError):
            commands(find_model(model), config)
        return
    rendered = commands(find_model(model), config)
    assert sum(command.copies * command.gpus for command in rendered) == config.gpus
    assert [command.role for command in rendered] == (
        ["serve"] if config.disaggregation is None else ["prefill", "decode"]
    )


@given(model=st.sampled_from(sorted(models())), config=configs)
def test_every_engine_s_own_sizes_multiply_to_the_gpus_of_a_worker(model, config):
    if unsupported(config):
        return
    tensor = {"trtllm": "--tp_size", "vllm": "--tensor-parallel-size", "sglang": "--tp-size"}[config.engine.name]
    stages = {"trtllm": "--pp_size", "vllm": "--pipeline-parallel-size", "sglang": "--pp-size"}[config.engine.name]
    for command in commands(find_model(model), config):
        # Data parallelism adds ranks in vLLM and cuts up those of `--tp-size` in SGLang.
        sizes = [option(command, tensor), option(command, stages), option(command, "--data-parallel-size")]
        tp, pp, dp = (int(size or 1) for size in sizes)
        assert tp * pp * dp == command.gpus


PLAIN = re.compile(r"[\w./:=-]+")


@given(model=st.sampled_from(sorted(models())), config=configs)
def test_no_argument_means_anything_to_a_shell_but_json_and_placeholders(model, config):
    if unsupported(config):
        return
    for command in commands(find_model(model), config):
        assert shlex.split(command.shell) == list(command.argv)
        for argument in command.argv:
            if argument.startswith("{"):
                json.loads(argument)
            elif argument.startswith("<"):
                assert re.fullmatch(r"<[\w./ -]+>", argument)
                assert "placeholder" in command.note
            else:
                assert PLAIN.fullmatch(argument), argument


@pytest.mark.parametrize(
    ("engine", "weights", "kv_cache", "method"),
    list(product(engine_names(), get_args(Weights), get_args(KvCache), METHODS)),
    ids=str,
)
def test_every_choice_of_a_configuration_has_a_rendering(engine, weights, kv_cache, method):
    config = ServingConfig(
        engine=find_engine(engine),
        precision=Precision(weights=weights, kv_cache=kv_cache),
        speculation=Speculation(method=method, draft_length=0 if method == "none" else 1),
    )
    (command,) = commands(find_model("deepseek-r1"), config)
    everything = [*command.argv, *command.files.values()]
    assert not any("None" in text for text in everything)
    assert ("speculative" in " ".join(everything)) == (method != "none")


TWO_TO_ONE = (
    [Address(host="p0", port=8100, bootstrap_port=8998), Address(host="p1", port=8101, bootstrap_port=8999)],
    [Address(host="d0", port=8200)],
)


def routed(engine: EngineName) -> Command:
    config = ServingConfig(engine=find_engine(engine), disaggregation=Disaggregation())
    return router(config, *TWO_TO_ONE, placement=Placement(host="0.0.0.0", ports={"router": 9000}))


def test_tensorrt_llm_routes_by_a_file_of_servers():
    command = routed("trtllm")
    assert command.shell == "trtllm-serve disaggregated -c trtllm-router.yaml"
    assert YAML(typ="safe", pure=True).load(command.files["trtllm-router.yaml"]) == {
        "hostname": "0.0.0.0",
        "port": 9000,
        "context_servers": {"num_instances": 2, "urls": ["p0:8100", "p1:8101"]},
        "generation_servers": {"num_instances": 1, "urls": ["d0:8200"]},
    }


def test_vllm_routes_with_its_router():
    assert routed("vllm").shell == (
        "vllm-router --host 0.0.0.0 --port 9000 --policy round_robin --vllm-pd-disaggregation "
        "--prefill http://p0:8100 --prefill http://p1:8101 --decode http://d0:8200"
    )


def test_sglang_routes_with_its_router_and_the_bootstrap_port_of_each_prefill_worker():
    assert routed("sglang").shell == (
        "python -m sglang_router.launch_router --host 0.0.0.0 --port 9000 --policy round_robin --pd-disaggregation "
        "--prefill http://p0:8100 8998 --prefill http://p1:8101 8999 --decode http://d0:8200"
    )


@EVERY_ENGINE
def test_a_router_holds_no_gpu(engine):
    assert (routed(engine).role, routed(engine).copies, routed(engine).gpus) == ("router", 1, 0)


def under_dynamo(name: str, engine: EngineName, **parts) -> list[str]:
    config = ServingConfig(engine=find_engine(engine), **parts)
    return [command.shell for command in commands(find_model(name), config, orchestrator="dynamo")]


def test_dynamo_serves_vllm_behind_its_frontend_with_the_engine_s_own_options():
    fp8 = Precision(weights="fp8")
    frontend, worker = under_dynamo("llama-3.3-70b", "vllm", layout=Layout(tensor=4), precision=fp8)
    assert frontend == "python -m dynamo.frontend --http-host 127.0.0.1 --http-port 8000"
    assert worker == (
        "python -m dynamo.vllm --model meta-llama/Llama-3.3-70B-Instruct --tensor-parallel-size 4 --max-num-seqs 256 "
        "--max-num-batched-tokens 8192 --max-model-len auto --gpu-memory-utilization 0.92 --quantization fp8 "
        "--kv-cache-dtype bfloat16"
    )


def test_dynamo_tells_tensorrt_llm_its_sizes_and_its_role_and_leaves_the_rest_to_the_yaml():
    frontend, prefill, decode = under_dynamo("deepseek-r1", "trtllm", **XPYD)
    assert prefill == (
        "python -m dynamo.trtllm --model nvidia/DeepSeek-R1-NVFP4 --served-model-name nvidia/DeepSeek-R1-NVFP4 "
        "--tensor-parallel-size 4 --expert-parallel-size 4 --max-batch-size 32 --max-num-tokens 16384 "
        "--extra-engine-args trtllm-prefill.yaml --disaggregation-mode prefill"
    )
    assert "--tensor-parallel-size 8 --expert-parallel-size 8 --enable-attention-dp" in decode
    assert decode.endswith("--disaggregation-mode decode")
    assert frontend.startswith("python -m dynamo.frontend")


def test_dynamo_s_vllm_and_sglang_workers_know_their_role():
    vllm = under_dynamo("deepseek-r1", "vllm", **XPYD)
    sglang = under_dynamo("deepseek-r1", "sglang", **XPYD)
    assert [line.partition("--disaggregation-mode ")[2] for line in vllm[1:]] == ["prefill", "decode"]
    assert all(line.count("--disaggregation-mode") == 1 for line in [*vllm[1:], *sglang[1:]])
    assert all("--port" not in line and "--host " not in line for line in [*vllm[1:], *sglang[1:]])


def test_the_note_says_which_engine_dynamo_s_images_bring():
    exact = ServingConfig(engine=Engine(name="sglang", version="0.5.16"))
    near = ServingConfig(engine=Engine(name="vllm", version="0.27.0"))
    assert "brings" not in commands(find_model("llama-3.1-8b"), exact, orchestrator="dynamo")[1].note
    assert (
        "Dynamo 1.5.1 brings vllm 0.28.0" in commands(find_model("llama-3.1-8b"), near, orchestrator="dynamo")[1].note
    )


@given(model=st.sampled_from(sorted(models())), config=configs)
def test_dynamo_holds_exactly_the_gpus_of_the_configuration(model, config):
    if unsupported(config):
        return
    rendered = commands(find_model(model), config, orchestrator="dynamo")
    assert sum(command.copies * command.gpus for command in rendered) == config.gpus
