"""The command lines and config files that start a ServingConfig on TensorRT-LLM, vLLM and SGLang.

Rendered for the releases in engines.yaml: vLLM 0.24 and 0.27, SGLang 0.5.14 and 0.5.16 after the argument
parsers in their wheels; TensorRT-LLM 1.3.0rc20 and rc23 after its documentation and sources. Hosts, ports and
file names are placeholders. What a ServingConfig does not choose stays the engine's default, except the share
of memory that the memory model assumes and CUDA graphs as large as the batch, as the step times assume.
"""

import io
import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from search_spaces.config import Batching, EngineName, KvCache, Layout, ServingConfig, Weights
from search_spaces.engine import engines
from search_spaces.engine_laws import drafts_while_prefilling, unsupported
from search_spaces.errors import InfeasibleError
from search_spaces.model import Model

Role = Literal["serve", "prefill", "decode"]

LOOPBACK = "127.0.0.1"
PORTS: Mapping[Role, int] = {"serve": 8000, "prefill": 8100, "decode": 8200}
SIDE_CHANNELS: Mapping[Role, int] = {"prefill": 5600, "decode": 5700}
NGRAM_SIZE = 4  # the longest n-gram that is looked up in the text so far
VLLM_GRAPH_TOKENS = 512  # where vLLM's CUDA graphs end by default
SMALLEST_NODE = 4  # GPUs of a GB200 or GB300 node

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

# What `--quantization` makes of a BF16 checkpoint while it is loaded.
ONLINE: dict[EngineName, dict[Weights, str]] = {
    "trtllm": {},
    "vllm": {"fp8": "fp8", "fp8_block": "fp8_per_block"},
    "sglang": {"fp8": "fp8"},
}

# How MXFP4 experts take 16-bit and how they take MXFP8 activations, where an environment variable says so.
ACTIVATIONS: dict[EngineName, dict[Weights, dict[str, str]]] = {
    "trtllm": {
        "mxfp4": {"OVERRIDE_QUANT_ALGO": "W4A16_MXFP4"},
        "mxfp4_mxfp8": {"OVERRIDE_QUANT_ALGO": "W4A8_MXFP4_MXFP8"},
    },
    "vllm": {},
    "sglang": {},
}

ROUTERS: dict[EngineName, str] = {
    "trtllm": (
        "`trtllm-serve disaggregated -c FILE`, with the prefill workers' URLs under context_servers and the "
        "decode workers' under generation_servers"
    ),
    "vllm": (
        "`vllm-router --vllm-pd-disaggregation --prefill URL --decode URL` or another proxy that hands "
        "kv_transfer_params from prefill to decode"
    ),
    "sglang": (
        "`python -m sglang_router.launch_router --pd-disaggregation --prefill URL {bootstrap_port} --decode URL`"
    ),
}

ACROSS_NODES: dict[EngineName, str] = {
    "trtllm": "start it under mpirun or srun with trtllm-llmapi-launch",
    "vllm": (
        "add --nnodes, --node-rank and --master-addr, or with attention DP --data-parallel-size-local and "
        "--data-parallel-address"
    ),
    "sglang": "add --nnodes, --node-rank and --dist-init-addr",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where workers listen, and what they load in place of the model's own checkpoint.

    `host` is the address that they bind to. `ports` are those of the HTTP servers, by role; a further copy needs a
    place of its own. `side_channels` are the ports where vLLM's NIXL agents shake hands (each attention-DP rank takes
    the next one), `bootstrap_port` the one where SGLang's decode workers find a prefill worker. `checkpoint` and
    `draft` are local copies, loaded in place of what is published under the names that would stand there.
    """

    host: str = LOOPBACK
    ports: Mapping[Role, int] = field(default_factory=lambda: PORTS)
    side_channels: Mapping[Role, int] = field(default_factory=lambda: SIDE_CHANNELS)
    bootstrap_port: int = 8998
    checkpoint: str | None = None
    draft: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What starts one kind of worker: `copies` processes of `argv`, each on `gpus` GPUs of its own.

    `files` have to lie in the working directory, by name; `env` is added to the environment. `note` says in
    sentences what else it takes.
    """

    role: Role
    copies: int
    gpus: int
    argv: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def shell(self) -> str:
        """The command as a line to read or to paste; what runs is `argv`."""
        return shlex.join(self.argv)


ANYWHERE = Place()


def commands(model: Model, config: ServingConfig, *, place: Place = ANYWHERE) -> tuple[Command, ...]:
    """One command for each kind of worker; where disaggregated, that of the prefill workers comes first.

    Raises InfeasibleError for what the engine cannot express.
    """
    reason = unsupported(config)
    if reason:
        raise InfeasibleError("engine", reason)
    return tuple(_command(worker) for worker in _workers(model, config, place))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Worker:
    """One kind of worker, with the questions that every engine's renderer asks of it."""

    model: Model
    config: ServingConfig
    role: Role
    layout: Layout
    batching: Batching
    place: Place

    @property
    def port(self) -> int:
        return self.place.ports[self.role]

    @property
    def engine(self) -> EngineName:
        return self.config.engine.name

    @property
    def weights(self) -> Weights:
        return self.config.precision.weights

    @property
    def ranks(self) -> int:
        """GPUs of one pipeline stage."""
        return self.layout.tensor * self.layout.attention_dp

    @property
    def draft_length(self) -> int:
        """Tokens that this worker drafts in a step; 0 where it carries no draft."""
        carries = self.role != "prefill" or drafts_while_prefilling(self.config)
        return self.config.speculation.draft_length if carries else 0

    @property
    def draft(self) -> str:
        """The EAGLE-3 head's checkpoint, or a placeholder that no registry resolves."""
        return self.place.draft or EAGLE3_DRAFTS.get(
            self.model.checkpoint, f"<eagle3 draft of {self.model.checkpoint}>"
        )

    @property
    def loads_own(self) -> bool:
        """Whether the model's checkpoint is in the right format; MXFP4 recipes differ in activations only."""
        one_checkpoint = {"mxfp4", "mxfp4_mxfp8"}
        return self.weights == self.model.own_weights or {self.weights, self.model.own_weights} <= one_checkpoint

    @property
    def quantization(self) -> str | None:
        """What the engine is told to make of a BF16 checkpoint."""
        if self.loads_own or self.model.own_weights != "bf16":
            return None
        return ONLINE[self.engine].get(self.weights)

    @property
    def published(self) -> str | None:
        return PUBLISHED.get((self.model.checkpoint, self.weights))

    @property
    def checkpoint(self) -> str:
        """What is loaded, or a placeholder that no registry resolves."""
        return self.place.checkpoint or self.published_checkpoint

    @property
    def published_checkpoint(self) -> str:
        if self.loads_own or self.quantization:
            return self.model.checkpoint
        return self.published or f"<{FORMATS[self.weights].split(' ', 1)[1]} checkpoint of {self.model.checkpoint}>"

    @property
    def trusts_remote_code(self) -> bool:
        return self.published_checkpoint in REMOTE_CODE

    @property
    def graph_tokens(self) -> int:
        """Tokens of the largest decode step of one scheduler."""
        return self.batching.max_sequences * (self.draft_length + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rendered:
    argv: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)


def _workers(model: Model, config: ServingConfig, place: Place) -> list[_Worker]:
    def worker(role: Role, layout: Layout, batching: Batching) -> _Worker:
        return _Worker(model=model, config=config, role=role, layout=layout, batching=batching, place=place)

    if config.disaggregation is None:
        return [worker("serve", config.layout, config.batching)]
    prefill = config.disaggregation
    return [
        worker("prefill", prefill.prefill_layout, prefill.prefill_batching),
        worker("decode", config.layout, config.batching),
    ]


def _command(worker: _Worker) -> Command:
    rendered = RENDERERS[worker.engine](worker)
    return Command(
        role=worker.role,
        copies=worker.layout.replicas,
        gpus=worker.layout.gpus_per_worker,
        argv=rendered.argv,
        files=rendered.files,
        env={**ACTIVATIONS[worker.engine].get(worker.weights, {}), **rendered.env},
        note=" ".join(_notes(worker)),
    )


def _options(options: Mapping[str, object]) -> tuple[str, ...]:
    """Options as arguments: True is a bare flag; None and False leave the option out."""
    argv: list[str] = []
    for name, value in options.items():
        if value is True:
            argv.append(name)
        elif value is not None and value is not False:
            argv += [name, str(value)]
    return tuple(argv)


def _many(size: int) -> int | None:
    """A parallel size, left out where it is the default of 1."""
    return size if size > 1 else None


def _trtllm(worker: _Worker) -> _Rendered:
    """`trtllm-serve`: the parallel sizes and limits as options, the rest as YAML.

    `--tp_size` is the whole pipeline stage, with or without attention DP, and every expert is split tp_size /
    ep_size ways. `max_batch_size` and `max_num_tokens` hold for each attention-DP rank and each micro-batch
    of a pipeline (PyTorchModelEngine.get_max_num_sequences multiplies by the stages).
    """
    name = f"trtllm-{worker.role}.yaml"
    argv = _options(
        {
            "--host": worker.place.host,
            "--port": worker.port,
            "--tp_size": worker.ranks,
            "--pp_size": _many(worker.layout.pipeline),
            "--ep_size": worker.layout.expert if worker.model.is_moe else None,
            "--max_batch_size": worker.batching.max_sequences,
            "--max_num_tokens": worker.batching.max_batched_tokens,
            "--trust_remote_code": worker.trusts_remote_code,
            "--config": name,
        }
    )
    return _Rendered(argv=("trtllm-serve", worker.checkpoint, *argv), files={name: _yaml(_trtllm_settings(worker))})


def _trtllm_settings(worker: _Worker) -> dict[str, Any]:
    """LlmArgs beyond the command line; as the cache's dtype, `auto` is what the checkpoint says."""
    kv_cache: dict[KvCache, str] = {"bf16": "auto", "fp8": "fp8"}
    settings: dict[str, Any] = {
        "enable_attention_dp": worker.layout.attention_dp > 1,
        "enable_chunked_prefill": True,
        "kv_cache_config": {
            "dtype": kv_cache[worker.config.precision.kv_cache],
            "free_gpu_memory_fraction": engines()["trtllm"].memory_fraction,
        },
    }
    if worker.batching.receive_interval > 1:
        settings |= _trtllm_waiting(worker)
    if worker.role != "prefill":
        settings["cuda_graph_config"] = {
            "enable_padding": True,
            "max_batch_size": worker.batching.max_sequences,
        }
    if worker.draft_length:
        settings["speculative_config"] = _trtllm_speculation(worker)
    if worker.role == "prefill" or worker.config.speculation.method == "ngram":
        settings["disable_overlap_scheduler"] = True
    if worker.role != "serve":
        settings["cache_transceiver_config"] = {"backend": "NIXL"}
    return settings


def _trtllm_waiting(worker: _Worker) -> dict[str, Any]:
    """Decode steps for which prompts gather: until all ranks have one, or enough for a pass."""
    steps = worker.batching.receive_interval
    if worker.layout.attention_dp > 1:
        return {"attention_dp_config": {"enable_balance": True, "timeout_iters": steps, "batching_wait_iters": 0}}
    return {"batch_wait_timeout_iters": steps, "batch_wait_max_tokens_ratio": 1.0}


def _trtllm_speculation(worker: _Worker) -> dict[str, Any]:
    """`speculative_config`. MTP names its length twice: older releases read the one, newer ones the other."""
    length = worker.draft_length
    match worker.config.speculation.method:
        case "mtp":
            return {"decoding_type": "MTP", "max_draft_len": length, "num_nextn_predict_layers": length}
        case "eagle3":
            return {"decoding_type": "Eagle3", "max_draft_len": length, "speculative_model": worker.draft}
        case _:
            return {"decoding_type": "NGram", "max_draft_len": length, "max_matching_ngram_size": NGRAM_SIZE}


def _vllm(worker: _Worker) -> _Rendered:
    """`vllm serve`: data x tensor parallel ranks, experts whole on each rank or split over all of them.

    `--max-num-batched-tokens` and `--max-num-seqs` hold for each data-parallel rank; the latter counts the
    batches of all pipeline stages. MXFP4 experts take 16-bit activations unless told otherwise (fused_moe's
    oracle/mxfp4.py). `--max-model-len auto` is the longest request that the KV cache holds.
    """
    kv_cache: dict[KvCache, str] = {"bf16": "bfloat16", "fp8": "fp8"}
    activation = {"moe": {"activation": "mxfp8"}} if worker.weights == "mxfp4_mxfp8" else None
    large_graphs = worker.role != "prefill" and worker.graph_tokens > VLLM_GRAPH_TOKENS
    argv = _options(
        {
            "--host": worker.place.host,
            "--port": worker.port,
            "--tensor-parallel-size": worker.layout.tensor,
            "--pipeline-parallel-size": _many(worker.layout.pipeline),
            "--data-parallel-size": _many(worker.layout.attention_dp),
            "--enable-expert-parallel": worker.layout.expert > 1,
            "--max-num-seqs": worker.batching.max_sequences * worker.layout.pipeline,
            "--max-num-batched-tokens": worker.batching.max_batched_tokens,
            "--max-model-len": "auto",
            "--max-cudagraph-capture-size": worker.graph_tokens if large_graphs else None,
            "--gpu-memory-utilization": engines()["vllm"].memory_fraction,
            "--quantization": worker.quantization,
            "--quantization-config": _json(activation),
            "--kv-cache-dtype": kv_cache[worker.config.precision.kv_cache],
            "--speculative-config": _json(_vllm_speculation(worker)),
            "--kv-transfer-config": _json(_vllm_transfer(worker)),
            "--trust-remote-code": worker.trusts_remote_code,
        }
    )
    channel = worker.place.side_channels.get(worker.role)
    env = {"VLLM_NIXL_SIDE_CHANNEL_PORT": str(channel)} if channel else {}
    return _Rendered(argv=("vllm", "serve", worker.checkpoint, *argv), env=env)


def _vllm_speculation(worker: _Worker) -> dict[str, Any] | None:
    """`--speculative-config`; n-grams of 1 to NGRAM_SIZE tokens, as TensorRT-LLM matches them."""
    if not worker.draft_length:
        return None
    method = worker.config.speculation.method
    config: dict[str, Any] = {"method": method, "num_speculative_tokens": worker.draft_length}
    if method == "eagle3":
        config["model"] = worker.draft
    if method == "ngram":
        config |= {"prompt_lookup_min": 1, "prompt_lookup_max": NGRAM_SIZE}
    return config


def _vllm_transfer(worker: _Worker) -> dict[str, Any] | None:
    kv_roles: dict[Role, str] = {"prefill": "kv_producer", "decode": "kv_consumer"}
    if worker.role == "serve":
        return None
    return {"kv_connector": "NixlConnector", "kv_role": kv_roles[worker.role]}


def _sglang(worker: _Worker) -> _Rendered:
    """`python -m sglang.launch_server`: `--tp-size` is the whole pipeline stage, cut into `--dp-size` parts.

    `--max-running-requests` counts all attention-DP ranks and pipeline stages, `--chunked-prefill-size` all
    ranks (ServerArgs divides it by dp_size). The share of memory is stated because SGLang would derive it
    from that undivided size. MXFP4 experts take MXFP8 activations unless told otherwise.
    """
    kv_cache: dict[KvCache, str] = {"bf16": "bf16", "fp8": "fp8_e4m3"}
    layout, batching = worker.layout, worker.batching
    schedulers = layout.attention_dp * layout.pipeline
    argv = _options(
        {
            "--model-path": worker.checkpoint,
            "--host": worker.place.host,
            "--port": worker.port,
            "--tp-size": worker.ranks,
            "--pp-size": _many(layout.pipeline),
            "--dp-size": _many(layout.attention_dp),
            "--enable-dp-attention": layout.attention_dp > 1,
            "--ep-size": _many(layout.expert),
            "--max-running-requests": batching.max_sequences * schedulers,
            "--chunked-prefill-size": batching.max_batched_tokens * layout.attention_dp,
            "--scheduler-recv-interval": _many(batching.receive_interval),
            "--cuda-graph-max-bs-decode": None if worker.role == "prefill" else batching.max_sequences,
            "--mem-fraction-static": engines()["sglang"].memory_fraction,
            "--quantization": worker.quantization,
            "--kv-cache-dtype": kv_cache[worker.config.precision.kv_cache],
            "--flashinfer-mxfp4-moe-precision": "bf16" if worker.weights == "mxfp4" else None,
            "--moe-runner-backend": "flashinfer_mxfp4" if worker.weights == "mxfp4_mxfp8" else None,
            **_sglang_speculation(worker),
            "--disaggregation-mode": None if worker.role == "serve" else worker.role,
            "--disaggregation-transfer-backend": None if worker.role == "serve" else "nixl",
            "--disaggregation-bootstrap-port": worker.place.bootstrap_port if worker.role == "prefill" else None,
            "--trust-remote-code": worker.trusts_remote_code,
        }
    )
    return _Rendered(argv=("python", "-m", "sglang.launch_server", *argv))


def _sglang_speculation(worker: _Worker) -> dict[str, object]:
    """A chain of drafts: one branch, and one token more to verify than are drafted."""
    length = worker.draft_length
    if not length:
        return {}
    if worker.config.speculation.method == "ngram":
        return {
            "--speculative-algorithm": "NGRAM",
            "--speculative-num-draft-tokens": length + 1,
            "--speculative-ngram-max-bfs-breadth": 1,
        }
    eagle3 = worker.config.speculation.method == "eagle3"
    return {
        "--speculative-algorithm": "EAGLE3" if eagle3 else "EAGLE",
        "--speculative-draft-model-path": worker.draft if eagle3 else None,
        "--speculative-num-steps": length,
        "--speculative-eagle-topk": 1,
        "--speculative-num-draft-tokens": length + 1,
    }


RENDERERS: dict[EngineName, Callable[[_Worker], _Rendered]] = {
    "trtllm": _trtllm,
    "vllm": _vllm,
    "sglang": _sglang,
}


def _notes(worker: _Worker) -> list[str]:
    """What else it takes to start this worker, in sentences."""
    return [
        *_notes_on_checkpoints(worker),
        *_notes_on_the_engine(worker),
        *_notes_on_placement(worker),
    ]


def _notes_on_checkpoints(worker: _Worker) -> list[str]:
    notes = _notes_on_the_weights(worker) if worker.place.checkpoint is None else []
    if worker.draft_length and worker.config.speculation.method == "eagle3" and worker.place.draft is None:
        placeholder = worker.model.checkpoint not in EAGLE3_DRAFTS
        notes.append(
            f"It needs an EAGLE-3 draft for {worker.model.checkpoint} in place of the placeholder."
            if placeholder
            else f"{worker.draft} is one published EAGLE-3 draft for {worker.model.checkpoint}."
        )
    if worker.trusts_remote_code:
        notes.append("The checkpoint brings Python code of its own, which is trusted.")
    return notes


def _notes_on_the_weights(worker: _Worker) -> list[str]:
    notes = []
    if worker.quantization and worker.published:
        notes.append(
            f"{worker.model.checkpoint} is quantized while it is loaded; {worker.published} is published in "
            "that format and takes less memory to load."
        )
    elif worker.quantization:
        notes.append(f"{worker.model.checkpoint} is quantized while it is loaded.")
    elif not worker.loads_own and worker.published:
        notes.append(f"{worker.published} is {FORMATS[worker.weights]} checkpoint of {worker.model.checkpoint}.")
    elif not worker.loads_own:
        notes.append(
            f"It needs {FORMATS[worker.weights]} checkpoint of {worker.model.checkpoint} in place of the placeholder."
        )
    return notes


def _notes_on_the_engine(worker: _Worker) -> list[str]:
    facts, version = engines()[worker.engine], worker.config.engine.version
    notes = []
    if version not in facts.versions:
        notes.append(f"Rendered for {facts.title} {' and '.join(facts.versions)}, not for {version or 'any'}.")
    if worker.engine == "trtllm" and worker.config.precision.kv_cache == "bf16" and not worker.loads_own:
        notes.append("The KV cache is FP8 in spite of bf16 where the quantized checkpoint says so.")
    if worker.engine == "trtllm" and worker.layout.pipeline > 1:
        notes.append("TensorRT-LLM has not tested chunked prefill with pipeline parallelism.")
    return notes


def _notes_on_placement(worker: _Worker) -> list[str]:
    copies, gpus, port = worker.layout.replicas, worker.layout.gpus_per_worker, worker.port
    notes = []
    if copies > 1:
        notes.append(
            f"Start {copies} of these, each with {gpus} GPUs of its own (CUDA_VISIBLE_DEVICES) and with "
            f"ports of its own (HTTP {port}, {port + 1}, ...)."
        )
    if copies > 1 and worker.engine == "vllm" and worker.role != "serve":
        notes.append(f"Each takes {worker.layout.attention_dp} side-channel ports, from the one in `env` on.")
    if gpus > SMALLEST_NODE:
        notes.append(f"Where a node has fewer than {gpus} GPUs, {ACROSS_NODES[worker.engine]}.")
    if worker.role == "serve" and copies > 1:
        notes.append("A load balancer has to stand in front.")
    if worker.role != "serve":
        router = ROUTERS[worker.engine].format(bootstrap_port=worker.place.bootstrap_port)
        notes.append(f"A router has to stand in front: {router}.")
    if worker.role != "serve" and worker.engine == "trtllm":
        notes.append("Set cache_transceiver_config.max_tokens_in_buffer to the longest prompt or more.")
    return notes


def _json(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else json.dumps(value)


def _yaml(settings: Mapping[str, Any]) -> str:
    from ruamel.yaml import YAML

    writer = YAML()
    writer.width = 1 << 16  # one line for each value
    text = io.StringIO()
    writer.dump(dict(settings), text)
    return text.getvalue()
