"""The proxy before prefill and decode workers, as a process, with workers that write down what they are asked."""

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from runners.served.engine import ask, model_served
from runners.served.process import free_ports, is_free, running

HANDED = {"do_remote_prefill": True, "remote_engine_id": "p", "remote_block_ids": [1, 2], "remote_port": 5600}
EXPERIMENT = {
    "model": "toy",
    "prompt": "Hello",
    "max_tokens": 3,
    "stream": True,
    "stream_options": {"include_usage": True},
}


class Worker:
    """Answers every POST with what it is given, and keeps what it was asked."""

    def __init__(self, answer, status=200, content_type="application/json"):
        asked = self.asked = []
        heard = self.headers = []

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def do_POST(self):
                asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                heard.append(self.headers["X-Request-Id"])
                self.do_GET()

            def do_GET(self):
                body = answer.encode()
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def worker():
    started = []

    def start(*args, **options):
        started.append(Worker(*args, **options))
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.fixture
def proxy(tmp_path):
    """Starts a proxy before the workers, and gives its URL."""
    servers = []

    def start(prefill, decode):
        (port,) = free_ports(1)
        argv = [sys.executable, "-P", "-m", "runners.served.proxy", "--port", str(port), "--prefill", *prefill]
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
        server = running([*argv, "--decode", *decode], log=tmp_path / "log", cwd=tmp_path, env=env)
        server.__enter__()
        servers.append(server)
        end = time.monotonic() + 30
        while is_free(port):
            assert time.monotonic() < end, (tmp_path / "log").read_text()
            time.sleep(0.02)
        return f"http://127.0.0.1:{port}"

    yield start
    for server in servers:
        server.__exit__(None, None, None)


def test_the_prompt_is_prefilled_and_its_cache_handed_to_a_decode_worker(worker, proxy):
    prefill = worker(json.dumps({"choices": [{"text": "H"}], "kv_transfer_params": HANDED}))
    decode = worker("data: {}\n\ndata: [DONE]\n\n", content_type="text/event-stream; charset=utf-8")
    reply = ask(proxy([prefill.url], [decode.url]), "/v1/completions", EXPERIMENT)
    assert (reply.status, reply.text) == (200, "data: {}\n\ndata: [DONE]\n\n")
    (first,), (second,) = prefill.asked, decode.asked
    assert (first["prompt"], first["max_tokens"], first["stream"]) == ("Hello", 1, False)
    assert first["kv_transfer_params"]["do_remote_decode"] is True
    assert "stream_options" not in first
    assert second == EXPERIMENT | {"kv_transfer_params": HANDED}
    assert prefill.headers == decode.headers, "both workers know the request by one name"


def test_a_connector_that_hands_over_by_itself_needs_no_parameters(worker, proxy):
    prefill, decode = worker('{"kv_transfer_params": null}'), worker("{}")
    ask(proxy([prefill.url], [decode.url]), "/v1/chat/completions", EXPERIMENT)
    assert decode.asked == [EXPERIMENT]


def test_workers_take_turns(worker, proxy):
    prefill, decode = [worker("{}") for _ in range(2)], [worker("{}") for _ in range(3)]
    url = proxy([one.url for one in prefill], [one.url for one in decode])
    for _ in range(6):
        ask(url, "/v1/completions", EXPERIMENT)
    assert [len(one.asked) for one in prefill] == [3, 3]
    assert [len(one.asked) for one in decode] == [2, 2, 2]


@pytest.mark.parametrize("broken", ["prefill", "decode"])
def test_an_error_of_either_worker_is_told_as_it_stands(worker, proxy, broken):
    error = worker('{"error": "no such model"}', status=404)
    sound = worker("{}")
    prefill, decode = (error, sound) if broken == "prefill" else (sound, error)
    reply = ask(proxy([prefill.url], [decode.url]), "/v1/completions", EXPERIMENT)
    assert (reply.status, reply.text) == (404, '{"error": "no such model"}')


def test_a_worker_that_is_gone_is_a_bad_gateway(worker, proxy):
    sound = worker("{}")
    reply = ask(proxy(["http://127.0.0.1:9"], [sound.url]), "/v1/completions", EXPERIMENT)
    assert reply.status == 502
    assert "cannot be reached" in reply.text


def test_names_are_asked_of_a_decode_worker(worker, proxy):
    decode = worker('{"data": [{"id": "toy"}]}')
    assert model_served(proxy([worker("{}").url], [decode.url])) == "toy"
