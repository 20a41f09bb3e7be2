"""Causes by what engines really wrote: excerpts of vLLM 0.32.0's logs, and of CUDA builds where a GPU is needed."""

import signal

import pytest

from runners.runner import OUT_OF_MEMORY
from runners.served.failures import diagnose, failure, known_failure, says_it_is_dead, tail
from search_spaces.engines.engine import find_engine

VLLM = find_engine("vllm")
ULIMIT = (
    "(APIServer pid=9017) WARNING 11-21 05:02:14 [system_utils.py:255] Found ulimit of 20000 and failed to "
    "automatically increase. This can cause fd limit errors like `OSError: [Errno 24] Too many open files`."
)
UNKNOWN_FLAG = """\
                     [--log-level {CRITICAL,ERROR,WARNING,INFO,DEBUG,NOTSET}]
                     [model_tag]
api_server.py: error: unrecognized arguments: --no-such-flag
"""
BAD_CHOICE = "api_server.py: error: argument --kv-cache-dtype: invalid choice: 'fp9' (choose from 'auto', 'bfloat16')"
PORT = """\
  File "/env/lib/python3.11/site-packages/vllm/entrypoints/launchers/launcher.py", line 348, in create_server_socket
    sock.bind(addr)
OSError: [Errno 98] Address already in use
"""
COMBINATION = """\
pydantic_core._pydantic_core.ValidationError: 1 validation error for SchedulerConfig
  Value error, max_num_batched_tokens (4) must be greater than or equal to max_num_seqs (8). [type=value_error]
    For further information visit https://errors.pydantic.dev/2.14/v/value_error
"""
BLOCK = """\
(Worker pid=12830) ERROR 11-21 05:04:59 [multiproc_executor.py:1063]     raise ValueError(
(Worker pid=12830) ERROR 11-21 05:04:59 [multiproc_executor.py:1063] ValueError: No common block size for 16 (CPU_ATTN)
(EngineCore pid=12819) ERROR 11-21 05:04:59 [core.py:1510]     raise RuntimeError(
(EngineCore pid=12819) ERROR 11-21 05:04:59 [core.py:1510] RuntimeError: Worker failed with error 'No common block'
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}
"""
FP8 = """\
(Worker pid=11693) ERROR 11-21 05:04:35 [multiproc_executor.py:953] RuntimeError: _C::static_scaled_fp8_quant() expected
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}
"""
DRAFT = """\
(APIServer pid=8686) ERROR 11-21 05:01:32 [repo_utils.py:126] Error retrieving file list: Repo id must, retrying 1 of 2
pydantic_core._pydantic_core.ValidationError: 1 validation error for SpeculativeConfig
  Value error, Invalid repository ID or local directory specified: '/nonexistent'.
"""
CHECKPOINT = (
    "huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name' or 'namespace/repo_name'"
)
MEMORY = """\
(EngineCore pid=7) ERROR 11-21 05:00:00 [core.py:1] EngineCore failed to start.
(EngineCore pid=7) ERROR 11-21 05:00:00 [core.py:1] torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 9 GiB.
RuntimeError: Engine core initialization failed. See root cause above.
"""
CACHE = "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`."
DEAD = """\
(APIServer pid=7849) ERROR 11-21 05:01:15 [async_llm.py:906] vllm.v1.engine.exceptions.EngineDeadError: EngineCore \
encountered an issue. See stack trace (above) for the root cause.
INFO:     Application shutdown complete.
"""


@pytest.mark.parametrize(
    ("log", "cause", "said"),
    [
        (UNKNOWN_FLAG, "unsupported flag", "unrecognized arguments: --no-such-flag"),
        (BAD_CHOICE, "unsupported flag", "invalid choice: 'fp9'"),
        (PORT, "port in use", "Address already in use"),
        (COMBINATION, "invalid combination", "max_num_batched_tokens (4) must be greater than or equal"),
        (BLOCK, "invalid combination", "ValueError: No common block size for 16"),
        (FP8, "", "RuntimeError: _C::static_scaled_fp8_quant() expected"),
        (DRAFT, "no checkpoint", "Invalid repository ID or local directory specified: '/nonexistent'"),
        (CHECKPOINT, "no checkpoint", "Repo id must be in the form"),
        (MEMORY, OUT_OF_MEMORY, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 9 GiB"),
        (CACHE, OUT_OF_MEMORY, "No available memory for the cache blocks"),
        ("RuntimeError: No CUDA GPUs are available", "no GPU", "No CUDA GPUs are available"),
        ("/env/bin/python: No module named vllm", "engine not installed", "No module named vllm"),
        ("OSError: [Errno 28] No space left on device: '/cache'", "disk full", "No space left on device"),
        (DEAD, "", ""),
        ("INFO:     Application startup complete.", "", ""),
    ],
)
def test_the_first_error_of_the_engine_names_the_cause(log, cause, said):
    found, line = diagnose(f"{ULIMIT}\n{log}", VLLM)
    assert found == cause
    assert said in line


REFUSED = "(APIServer pid=1) ERROR 11-21 05:40:00 vllm.exceptions.VLLMValidationError: Token id 29762 is out of range"


def test_a_request_that_was_refused_is_not_why_a_server_died_under_load():
    assert diagnose(f"{REFUSED}\n{DEAD}", VLLM, under_load=True) == ("", "")
    assert diagnose(f"{REFUSED}\n{MEMORY}", VLLM, under_load=True)[0] == OUT_OF_MEMORY
    assert diagnose(f"{REFUSED}\n{FP8}", VLLM, under_load=True)[0] == ""
    assert (
        "AssertionError" in diagnose(f"{REFUSED}\n(EngineCore pid=1) ERROR AssertionError: x", VLLM, under_load=True)[1]
    )


def test_the_engines_death_is_seen_though_the_server_lives_on():
    assert says_it_is_dead(MEMORY, VLLM)
    assert says_it_is_dead(DEAD, VLLM)
    assert not says_it_is_dead(ULIMIT, VLLM)


def test_a_failure_says_state_path_and_the_tail_of_the_log(tmp_path):
    log = tmp_path / "serve-0.log"
    log.write_text("\n".join(f"line {number}" for number in range(100)) + "\n" + MEMORY)
    error = failure("while starting, after 3 s", engine=VLLM, log=log, exit_code=1, otherwise="crash at start")
    assert error.cause == OUT_OF_MEMORY
    assert not error.environment
    lines = error.detail.splitlines()
    assert lines[0].startswith("exit 1 while starting, after 3 s: torch.OutOfMemoryError")
    assert lines[1] == f"log: {log}"
    assert lines[2] == "line 83"
    assert lines[-1].endswith("See root cause above.")


@pytest.mark.parametrize(
    ("code", "cause", "state"),
    [
        (None, "crash under load", "still running"),
        (0, "crash under load", "exit 0"),
        (-9, "server killed", "SIGKILL, as the kernel does when the host's memory runs out"),
        (-11, "server killed", "segmentation fault (SIGSEGV)"),
        (-44, "server killed", "real-time signal 10 (signal 44)"),
    ],
)
def test_a_log_that_names_nothing_leaves_the_way_it_ended(tmp_path, code, cause, state):
    error = failure("under load", engine=VLLM, log=tmp_path / "missing", exit_code=code, otherwise="crash under load")
    assert error.cause == cause
    assert error.detail.startswith(f"{state} under load")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("Illegal instruction", "illegal instruction (SIGILL), exit 0 under load"),
        ("Bus error", "bus error (SIGBUS), exit 0 under load"),
    ],
)
def test_a_fault_that_python_wrote_down_names_the_signal(tmp_path, words, said):
    log = tmp_path / "serve-0.log"
    log.write_text(f"Fatal Python error: {words}\n\nThread 0x00007f (most recent call first):\n{DEAD}")
    error = failure("under load", engine=VLLM, log=log, exit_code=0, otherwise="crash under load", under_load=True)
    assert error.cause == "engine core killed"
    assert error.detail.startswith(said)


@pytest.mark.parametrize(
    ("log", "core_signal", "cause"),
    [
        (DEAD, signal.SIGKILL, "engine core killed"),
        (MEMORY, signal.SIGABRT, OUT_OF_MEMORY),  # an error that nobody catches aborts the process
        (FP8, signal.SIGILL, "engine core killed"),
        ("(EngineCore pid=1) ERROR RuntimeError: x", signal.SIGKILL, "crash at start"),  # by the server, at its end
    ],
)
def test_a_signal_counts_where_the_engine_gave_no_reason_of_its_own(tmp_path, log, core_signal, cause):
    path = tmp_path / "serve-0.log"
    path.write_text(log)
    error = failure(
        "while starting", engine=VLLM, log=path, exit_code=0, core_signal=core_signal, otherwise="crash at start"
    )
    assert error.cause == cause


def test_what_the_machine_lacks_is_the_environments_failure(tmp_path):
    assert known_failure("disk full", "exit 1", log=tmp_path / "missing").environment
    assert not known_failure("hang at start", "still running", log=tmp_path / "missing").environment


def test_only_the_ends_of_a_huge_log_are_read(tmp_path):
    log = tmp_path / "huge.log"
    log.write_bytes(UNKNOWN_FLAG.encode() + b"x\n" * 3_000_000 + b"the end\n")
    error = failure("while starting", engine=VLLM, log=log, exit_code=2, otherwise="crash at start")
    assert error.cause == "unsupported flag"
    assert error.detail.endswith("the end")
    assert tail("a\nb\nc", 2) == "b\nc"


def test_an_engine_s_own_words_come_before_those_that_all_share(tmp_path):
    folder = tmp_path / "my-engine"
    folder.mkdir()
    (folder / "engine.yaml").write_text(
        "title: My engine\nversions: [1.0.0]\ncommand: [my-engine, '{checkpoint}', '{port}']\n"
        "failures: {out of memory: [pool exhausted], licence missing: [no licence]}\n"
        "log: {core: '^worker:', dead: [worker gone]}\n"
    )
    engine = find_engine("./my-engine", directory=tmp_path)
    assert diagnose("RuntimeError: pool exhausted", engine) == (OUT_OF_MEMORY, "RuntimeError: pool exhausted")
    assert diagnose("Error: no licence; CUDA out of memory", engine)[0] == "licence missing"
    assert diagnose("torch.OutOfMemoryError: CUDA out of memory", engine)[0] == OUT_OF_MEMORY
    assert diagnose("worker: Error: pool exhausted\nValueError: worker gone", engine)[1] == "Error: pool exhausted"
    assert says_it_is_dead("worker gone", engine)
    assert not says_it_is_dead("EngineDeadError", engine)
