"""Which published checkpoint holds a model in a number format, and which head drafts for it."""

from search_spaces.config import Weights
from search_spaces.models.model import Model

FORMATS: dict[Weights, str] = {
    "bf16": "a BF16",
    "fp8": "an FP8",
    "fp8_block": "a block-FP8",
    "nvfp4": "an NVFP4",
    "mxfp4": "an MXFP4",
    "mxfp4_mxfp8": "an MXFP4",
    "fp8_mxfp4": "an FP8 and MXFP4",
}

# Published checkpoints in another number format, by the checkpoint that they were made from.
PUBLISHED: dict[tuple[str, Weights], str] = {
    ("meta-llama/Llama-3.1-8B-Instruct", "fp8"): "nvidia/Llama-3.1-8B-Instruct-FP8",
    ("meta-llama/Llama-3.1-8B-Instruct", "nvfp4"): "nvidia/Llama-3.1-8B-Instruct-NVFP4",
    ("meta-llama/Llama-3.3-70B-Instruct", "fp8"): "nvidia/Llama-3.3-70B-Instruct-FP8",
    ("meta-llama/Llama-3.3-70B-Instruct", "nvfp4"): "nvidia/Llama-3.3-70B-Instruct-NVFP4",
    ("meta-llama/Llama-3.1-405B-Instruct", "fp8"): "nvidia/Llama-3.1-405B-Instruct-FP8",
    ("meta-llama/Llama-3.1-405B-Instruct", "nvfp4"): "nvidia/Llama-3.1-405B-Instruct-NVFP4",
    ("deepseek-ai/DeepSeek-R1", "nvfp4"): "nvidia/DeepSeek-R1-NVFP4",
    ("deepseek-ai/DeepSeek-V4-Pro", "fp8_block"): "sgl-project/DeepSeek-V4-Pro-FP8",
    ("Qwen/Qwen3-235B-A22B", "fp8_block"): "Qwen/Qwen3-235B-A22B-FP8",
    ("Qwen/Qwen3-235B-A22B", "nvfp4"): "nvidia/Qwen3-235B-A22B-NVFP4",
    ("Qwen/Qwen3-VL-235B-A22B-Instruct", "fp8_block"): "Qwen/Qwen3-VL-235B-A22B-Instruct-FP8",
    ("Qwen/Qwen3-VL-235B-A22B-Instruct", "nvfp4"): "nvidia/Qwen3-VL-235B-A22B-Instruct-NVFP4",
}

# Published EAGLE-3 heads, by the checkpoint that they draft for.
EAGLE3_DRAFTS = {
    "meta-llama/Llama-3.1-8B-Instruct": "yuhuili/EAGLE3-LLaMA3.1-Instruct-8B",
    "meta-llama/Llama-3.3-70B-Instruct": "nebius/EAGLE3-Llama-3.3-70B-Instruct",
    "openai/gpt-oss-120b": "nvidia/gpt-oss-120b-Eagle3-v2",
    "openai/gpt-oss-20b": "nebius/EAGLE3-gpt-oss-20b",
    "nvidia/Kimi-K2.5-NVFP4": "nvidia/Kimi-K2.5-Thinking-Eagle3",
}

# Checkpoints that bring Python code of their own.
REMOTE_CODE = {"deepseek-ai/DeepSeek-V4-Pro", "sgl-project/DeepSeek-V4-Pro-FP8", "nvidia/Kimi-K2.5-NVFP4"}


def own_formats(model: Model) -> tuple[Weights, ...]:
    """The recipes that load the model's own checkpoint as it is, the faster first; MXFP4's differ in activations."""
    return ("mxfp4_mxfp8", "mxfp4") if model.own_weights == "mxfp4" else (model.own_weights,)
