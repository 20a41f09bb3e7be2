"""What a server says of itself: metrics by hand-made pages, and a server that says nothing."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from runners.served.engine import Reply, Scrape, Watch, complete, model_served, release, scrape, watched
from search_spaces.engines.engine import engines

VLLM = engines()["vllm"].metrics
PAGE = """\
# HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{{engine="0",model_name="m"}} {usage}
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{{engine="0",model_name="m"}} 3.0
# TYPE vllm:num_preemptions counter
vllm:num_preemptions_total{{engine="0",model_name="m"}} {preemptions}
# TYPE vllm:request_queue_time_seconds histogram
vllm:request_queue_time_seconds_bucket{{engine="0",le="+Inf",model_name="m"}} {requests}
vllm:request_queue_time_seconds_count{{engine="0",model_name="m"}} {requests}
vllm:request_queue_time_seconds_sum{{engine="0",model_name="m"}} {queued}
# TYPE vllm:spec_decode_num_drafts counter
vllm:spec_decode_num_drafts_total{{engine="0",model_name="m"}} {drafts}
# TYPE vllm:spec_decode_num_accepted_tokens_per_pos counter
vllm:spec_decode_num_accepted_tokens_per_pos_total{{engine="0",position="0"}} {first}
vllm:spec_decode_num_accepted_tokens_per_pos_total{{engine="0",position="1"}} {second}
"""
BEFORE = {"usage": 0.1, "preemptions": 5, "requests": 10, "queued": 1.0, "drafts": 100, "first": 50, "second": 20}
AFTER = {"usage": 0.6, "preemptions": 9, "requests": 30, "queued": 5.0, "drafts": 300, "first": 200, "second": 70}


@pytest.fixture
def serve():
    """Serves pages by path, and gives the URL; what is not there is 404."""
    servers = []

    def start(pages):
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def do_GET(self):
                found = pages.get(self.path)
                body = (found() if callable(found) else found or "").encode()
                self.send_response(200 if found else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                self.do_GET()

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


def test_counters_are_summed_over_workers_and_gauges_are_the_highest(serve):
    one, other = serve({"/metrics": PAGE.format(**BEFORE)}), serve({"/metrics": PAGE.format(**AFTER)})
    seen = scrape([one, other], VLLM)
    assert seen.totals["vllm:num_preemptions_total"] == 14
    assert seen.highest["vllm:kv_cache_usage_perc"] == 0.6
    assert seen.by_position == {0: 250, 1: 90}


def test_a_window_counts_what_has_grown_in_it(serve):
    pages = iter([PAGE.format(**BEFORE), PAGE.format(**AFTER)])
    url = serve({"/metrics": lambda: next(pages)})
    with watched([url], VLLM, every_s=3600) as watch:
        pass
    seen = watch.observed(watts=250.0, versions=(("engine", "vllm 1"),))
    assert watch.preemptions == 4
    assert watch.kv_peak == 0.6
    assert seen.queue_time_s == pytest.approx(4.0 / 20)
    assert seen.waiting_peak == 3
    assert seen.acceptance == pytest.approx((150 / 200, 50 / 200))
    assert seen.tokens_per_step == pytest.approx(2.0)
    assert seen.prefix_cache_hits is None
    assert (seen.watts, seen.versions) == (250.0, (("engine", "vllm 1"),))


def test_an_engine_without_metrics_is_said_to_tell_nothing():
    watch = Watch(names=VLLM, before=Scrape())
    watch.look(scrape(["http://127.0.0.1:9"], VLLM))
    seen = watch.observed(watts=None, versions=())
    assert (watch.preemptions, watch.kv_peak) == (0, 0)
    assert (seen.queue_time_s, seen.acceptance, seen.tokens_per_step) == (None, (), None)


def test_names_and_releases_are_asked_for_and_may_be_missing(serve):
    told = serve({"/v1/models": '{"data": [{"id": "toy"}]}', "/version": '{"version": "0.32.0"}'})
    silent = serve({"/v1/models": "<html>"})
    assert (model_served(told), release(told)) == ("toy", "0.32.0")
    assert (model_served(silent), release(silent)) == (None, None)
    assert (model_served("http://127.0.0.1:9"), release("http://127.0.0.1:9")) == (None, None)


def test_a_completion_is_the_status_and_the_words(serve):
    url = serve({"/v1/completions": "{}"})
    assert complete(url, "toy", prompt_tokens=64, timeout_s=5).status == 200
    with pytest.raises(OSError):
        complete("http://127.0.0.1:9", "toy", prompt_tokens=64, timeout_s=5)


def test_a_server_that_takes_no_token_ids_is_asked_in_words():
    asked = []

    def answer(_url, _path, body, *, timeout_s):
        asked.append(body["prompt"])
        return Reply(status=422 if isinstance(body["prompt"], list) else 200, text="")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runners.served.engine.ask", answer)
        assert complete("http://127.0.0.1:9", "toy", prompt_tokens=300, timeout_s=5).status == 200
    ids, words = asked
    assert (len(ids), len(words.split())) == (300, 150)
