"""A stand-in for an inference server that is a real process: answers completions, and fails in the way it is told.

`python fake_server.py --port P [--fail HOW] [--stranger]`; standard library only, so it starts at once.
"""

# ruff: noqa: T201 its output is the log

import argparse
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN_S = 0.002
SHORT = 10
"""A first prompt of fewer tokens kills the server that fails by `short_prompt`."""
FAILURES = (
    "",
    "flag",
    "combination",
    "memory_at_start",
    "hang_at_start",
    "silent_worker_death",
    "port_in_use",
    "no_module",
    "disk_full_at_start",
    "disk_full_under_load",
    "memory_under_load",
    "hang_under_load",
    "crash_under_load",
    "crash_with_code_0",
    "broken_stream",
    "errors",
    "errors_at_start",
    "orphans",
    "daemon",
    "ignores_term",
    "short_prompt",
    "core_at_start",
    "core_under_load",
)
COMBINATION = """\
pydantic_core._pydantic_core.ValidationError: 1 validation error for SchedulerConfig
  Value error, max_num_batched_tokens (4) must be greater than or equal to max_num_seqs (8). [type=value_error]"""
MEMORY = """\
(EngineCore pid=7) ERROR 11-21 05:00:00 [core.py:1] EngineCore failed to start.
(EngineCore pid=7) ERROR 11-21 05:00:00 [core.py:1] torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 9 GiB.
RuntimeError: Engine core initialization failed. See root cause above."""
WORDS = {
    "flag": ("usage: fake [-h]\nfake: error: unrecognized arguments: --no-such-flag", 2),
    "combination": (COMBINATION, 1),
    "memory_at_start": (MEMORY, 1),
    "port_in_use": ("OSError: [Errno 98] Address already in use", 1),
    "no_module": ("/usr/bin/python: No module named vllm", 1),
    "disk_full_at_start": ("OSError: [Errno 28] No space left on device: '/root/.cache/vllm/torch_compile_cache'", 1),
}
UNDER_LOAD = {
    "memory_under_load": ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", 1),
    "crash_under_load": ("Fatal Python error: Segmentation fault", -signal.SIGSEGV),
    "crash_with_code_0": ("(APIServer pid=1) ERROR [async_llm.py] vllm.v1.engine.exceptions.EngineDeadError", 0),
    "disk_full_under_load": ("OSError: [Errno 28] No space left on device", 1),
}


def sleep_for_ever():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(60)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    failure = ""
    model = "toy"
    stranger = False
    core = None
    core_signal = 0
    completions = 0
    lock = threading.Lock()

    def log_message(self, *args):
        pass

    def do_GET(self):
        if self.stranger:
            self.send_json(404, {"detail": "Not Found"})
        elif self.path == "/metrics":
            self.send_text(
                "# TYPE vllm:num_preemptions counter\n"
                f'vllm:num_preemptions_total{{engine="0"}} {float(Handler.completions)}\n'
                "# TYPE vllm:kv_cache_usage_perc gauge\n"
                'vllm:kv_cache_usage_perc{engine="0"} 0.25\n'
            )
        elif self.path == "/v1/models":
            self.send_json(200, {"data": [{"id": self.model}]})
        elif self.path == "/version":
            self.send_json(200, {"version": "1.2.3"})
        else:
            self.send_json(200, {})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.stranger and not self.understands(asked):
            return
        with Handler.lock:
            Handler.completions += 1
            number = Handler.completions
        if asked["model"] != self.model:
            message = f"The model `{asked['model']}` does not exist."
            self.send_json(404, {"error": {"message": message, "type": "NotFoundError", "code": 404}})
            return
        if self.failure == "short_prompt" and number == 1 and len(asked["prompt"]) < SHORT:
            os.kill(os.getpid(), signal.SIGILL)
            time.sleep(60)
        if self.failure == "core_at_start" or (self.failure == "core_under_load" and number > 20):
            self.lose_the_core()
        if self.failure == "errors_at_start":
            self.send_json(500, {"error": {"message": "something is wrong inside"}})
            return
        if number > 1:
            self.misbehave(number)
        self.answer(asked)

    def understands(self, asked):
        """Of OpenAI's API only what every server has: prompts are text, and unknown fields are refused."""
        unknown = {"ignore_eos", "min_tokens"}.intersection(asked)
        if unknown:
            self.send_json(422, {"detail": f"Unexpected fields in the request: {unknown}"})
        elif not isinstance(asked["prompt"], str):
            self.send_json(400, {"detail": "prompt must be a string."})
        else:
            asked["prompt"] = asked["prompt"].split()
            return True
        return False

    def misbehave(self, number):
        if self.failure in UNDER_LOAD and number > 20:
            words, code = UNDER_LOAD[self.failure]
            print(words, file=sys.stderr, flush=True)
            if code < 0:
                os.kill(os.getpid(), -code)
                time.sleep(60)
            os._exit(code)
        if self.failure == "hang_under_load" and number > 20:
            time.sleep(3600)

    def lose_the_core(self):
        """As vLLM's server does when its engine is gone: it reaps it, writes of no signal, and exits with 0."""
        os.kill(Handler.core.pid, Handler.core_signal)
        Handler.core.join()
        print(UNDER_LOAD["crash_with_code_0"][0], file=sys.stderr, flush=True)
        os._exit(0)

    def answer(self, asked):
        tokens = asked.get("max_tokens", 16)
        prompt = asked.get("prompt") or asked.get("messages")
        usage = {"prompt_tokens": len(prompt), "completion_tokens": tokens, "total_tokens": len(prompt) + tokens}
        if self.failure == "errors" and Handler.completions > 1:
            self.send_json(500, {"error": {"message": "something is wrong inside"}})
            return
        if not asked.get("stream"):
            self.send_json(200, {"choices": [{"text": "a" * tokens, "finish_reason": "length"}], "usage": usage})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for index in range(tokens):
            if self.failure == "broken_stream" and index == tokens // 2:
                self.close_connection = True
                return
            time.sleep(TOKEN_S)
            last = index == tokens - 1
            self.send_event({"choices": [{"index": 0, "text": "a", "finish_reason": "length" if last else None}]})
        if not self.stranger:
            self.send_event({"choices": [], "usage": usage})
            self.send_chunk(b"data: [DONE]\n\n")
        self.send_chunk(b"")

    def send_event(self, event):
        self.send_chunk(b"data: " + json.dumps(event).encode() + b"\n\n")

    def send_chunk(self, data):
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def send_text(self, text):
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_json(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512


def start_companions(failure):
    """Workers as engines have them: in the same group, and for `daemon` in a session of their own."""
    if failure in ("orphans", "crash_under_load", "ignores_term", "core_at_start", "core_under_load"):
        Handler.core = multiprocessing.get_context("fork").Process(target=sleep_for_ever)
        Handler.core.start()
    if failure == "daemon":
        code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
        subprocess.Popen([sys.executable, "-c", code], start_new_session=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", default="toy")
    parser.add_argument("--fail", choices=FAILURES, default="")
    parser.add_argument("--core-signal", type=int, default=0)
    parser.add_argument("--stranger", action="store_true")
    options, _ = parser.parse_known_args()
    failure = options.fail
    print("starting", failure, flush=True)
    if failure in WORDS:
        words, code = WORDS[failure]
        print(words, file=sys.stderr, flush=True)
        sys.exit(code)
    if failure == "silent_worker_death":
        print(*MEMORY.splitlines()[:2], sep="\n", flush=True)
    if failure in ("hang_at_start", "silent_worker_death"):
        sleep_for_ever()
    start_companions(failure)
    if failure == "ignores_term":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if failure == "orphans":
        threading.Timer(1.5, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
    Handler.failure = failure
    Handler.stranger = options.stranger
    Handler.core_signal = options.core_signal
    Handler.model = options.model
    Server(("127.0.0.1", options.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
