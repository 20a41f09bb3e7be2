"""TensorRT-LLM's command, declared with click, and its YAML, declared as a pydantic model.

Run inside TensorRT-LLM's own environment, as text: it imports nothing of servetune.
"""

from importlib import import_module
from typing import Any


def declared() -> Any:
    return import_module("tensorrt_llm.commands.serve").serve


def settings() -> list[str]:
    """The keys of its YAML file."""
    return list(import_module("tensorrt_llm.llmapi.llm_args").TorchLlmArgs.model_fields)
