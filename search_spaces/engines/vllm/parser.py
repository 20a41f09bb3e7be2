"""vLLM's argument parser. Run inside vLLM's own environment, as text: it imports nothing of servetune."""

import argparse
import contextlib
from importlib import import_module
from typing import Any


def declared() -> argparse.ArgumentParser:
    flexible = _first("vllm.utils.argparse_utils", "vllm.utils").FlexibleArgumentParser
    arguments = _first("vllm.entrypoints.openai.cli_args", "vllm.entrypoints.launchers.cli_args")
    made: argparse.ArgumentParser = arguments.make_arg_parser(flexible())
    return made


def _first(*names: str) -> Any:
    """The first of several modules that is there: releases move them."""
    for name in names[:-1]:
        with contextlib.suppress(ModuleNotFoundError):
            return import_module(name)
    return import_module(names[-1])
