"""servetune doctor: says what is here and what is not, and never what is secret."""

import json
import os
import socket
import stat
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from runners.simulated.silicon import kernel_releases
from search_spaces.errors import InputError
from search_spaces.hardware.system import find_system
from tuner.cli import app
from tuner.doctor import Check, Doctor, Gpu, nvidia_smi
from tuner.scenario.experiment.files import find_experiment
from tuner.scenario.experiment.reading import read_experiment

CHAT = "gpt-oss-120b-b200-chat"
B200 = Gpu(name="NVIDIA B200", memory="183359 MiB", driver="580.65.06")
H200 = Gpu(name="NVIDIA H200", memory="143771 MiB", driver="580.65.06")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def no_gpus() -> list[Gpu]:
    return []


def patient(**changes) -> Doctor:
    return Doctor(**({"find_gpus": no_gpus} | changes))


def check(name: str, **changes) -> Check:
    return next(check for check in patient(**changes).checks() if check.name.startswith(name))


def possible(name: str = CHAT, **changes):
    return patient(**changes).possible(read_experiment(find_experiment(name)))


def test_without_gpus_searches_still_work():
    assert check("GPUs").state == "absent"
    assert [check.name for check in patient().checks() if check.fails] == []


def test_gpus_are_counted_by_kind_with_their_driver():
    found = check("GPUs", find_gpus=lambda: [B200] * 8 + [H200])
    assert found.found == (
        "8 x NVIDIA B200 (183359 MiB, driver 580.65.06), 1 x NVIDIA H200 (143771 MiB, driver 580.65.06)"
    )


def fake_smi(folder: Path, monkeypatch, script: str) -> None:
    program = folder / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def test_the_driver_s_tool_is_read(tmp_path, monkeypatch):
    fake_smi(
        tmp_path, monkeypatch, "echo 'NVIDIA B200, 183359 MiB, 580.65.06'\necho 'NVIDIA B200, 183359 MiB, 580.65.06'"
    )
    assert nvidia_smi() == [B200, B200]


def test_a_driver_that_fails_is_broken_not_absent(tmp_path, monkeypatch):
    fake_smi(tmp_path, monkeypatch, "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18")
    found = check("GPUs", find_gpus=nvidia_smi)
    assert (found.state, found.needed) == ("broken", False)
    assert "Driver/library version mismatch" in found.found


def test_engines_are_named_with_their_versions_for_each_environment(tmp_path, monkeypatch):
    folder = tmp_path / "site" / "vllm-0.27.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.27.0\n")
    monkeypatch.setenv("PYTHONPATH", str(folder.parent))
    assert "vllm 0.27.0" in check("engines").found
    nowhere = tmp_path / "no-python"
    broken = check(f"engines in {nowhere}", pythons=(Path(sys.executable), nowhere))
    assert broken.state == "broken"
    assert "is no Python that runs" in broken.found


def test_kernel_data_is_found_release_by_release():
    found = check("kernel data")
    assert (found.state, found.needed) == ("ok", True)
    assert "trtllm 1.3.0rc20" in found.found
    assert "vllm 0.27.0" in found.found


def test_the_releases_are_those_whose_tables_can_be_opened():
    from runners.simulated.silicon import _database

    for release in kernel_releases(find_system("b200")):
        assert _database("b200_sxm", release) is not None


def test_without_the_tables_nothing_works(monkeypatch):
    monkeypatch.setattr("runners.simulated.silicon.find_spec", lambda name: None)
    assert check("kernel data").fails


def test_a_taken_port_is_named():
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 8998))
        except OSError:
            pytest.skip("port 8998 is taken by another program")
        taken.listen()
        found = check("ports")
        assert found.state == "broken"
        assert "8998" in found.found
        assert not found.needed


def test_a_folder_that_cannot_be_written_stops_searches(tmp_path):
    (tmp_path / "file").write_text("")
    found = check("studies", studies=tmp_path / "file" / "studies")
    assert found.fails
    assert "cannot be written" in found.found


def test_free_disk_is_told_where_the_files_will_lie(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub" / "not-yet"))
    assert str(tmp_path) in check("disk for checkpoints").found
    assert "GiB free" in check("disk for studies").found


# The tracking store.


class Health(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self):
        self.server.paths.append((self.path, self.headers.get("Authorization")))
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_):
        return


@pytest.fixture
def server():
    handler = type("Handler", (Health,), {})
    server = HTTPServer(("127.0.0.1", 0), handler)
    server.paths = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_default_store_is_a_file_that_need_not_exist_yet(tmp_path):
    assert check("MLflow store").found == "sqlite:///mlflow.db"
    assert not (tmp_path / "mlflow.db").exists()


def test_a_server_is_asked_for_its_health_without_credentials(server):
    uri = f"http://user:s3cret@127.0.0.1:{server.server_port}/base/"
    found = check("MLflow store", tracking_uri=uri)
    assert found.state == "ok"
    assert server.paths == [("/base/health", None)]
    assert "s3cret" not in found.found


@pytest.mark.parametrize(("status", "state"), [(401, "ok"), (403, "ok"), (404, "broken"), (500, "broken")])
def test_a_server_that_asks_who_we_are_is_there(server, status, state):
    server.RequestHandlerClass.status = status
    assert check("MLflow store", tracking_uri=f"http://127.0.0.1:{server.server_port}").state == state


@pytest.mark.parametrize(
    "uri",
    [
        "http://user:s3cret@127.0.0.1:9/",
        "https://user:s3cret@127.0.0.1:9/?token=s3cret",
        "postgresql://user:s3cret@127.0.0.1:9/mlflow?password=s3cret",
        "mysql+pymysql://user:s3cret@127.0.0.1:9/mlflow",
        "ftp://user:s3cret@127.0.0.1/",
    ],
)
def test_a_store_that_does_not_answer_is_told_without_its_secrets(uri):
    found = check("MLflow store", tracking_uri=uri)
    assert found.fails
    assert "s3cret" not in found.found


# Experiments.


def test_without_gpus_an_experiment_is_recorded_or_simulated():
    here = possible()
    assert here.answers == ("recorded", "simulated")
    assert here.reason == "not served: it takes 8 b200 GPUs, and 0 are here"


def test_gpus_of_another_kind_serve_nothing():
    assert "0 are here, but 8 of another kind" in possible(find_gpus=lambda: [H200] * 8).reason


def test_gpus_without_an_engine_serve_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("tuner.doctor.installed_engines", lambda *_: {})
    assert "is not installed" in possible(find_gpus=lambda: [B200] * 8).reason


def test_an_engine_on_the_right_gpus_serves(monkeypatch):
    monkeypatch.setattr("tuner.doctor.installed_engines", lambda *_: {"trtllm": "1.3.0rc20"})
    here = possible(find_gpus=lambda: [B200] * 8)
    assert here.answers == ("served", "recorded", "simulated")
    assert here.reason == ""


def test_an_experiment_that_serves_on_the_cpu_needs_its_engine_only(tmp_path, monkeypatch):
    text = find_experiment(CHAT).read_text() + "\nserve: {device: cpu, python: its/python}\n"
    path = tmp_path / "own.yaml"
    path.write_text(text)
    asked = []
    monkeypatch.setattr(
        "tuner.doctor.installed_engines", lambda python, *_: asked.append(python) or {"trtllm": "1.3.0rc20"}
    )
    assert patient().possible(read_experiment(path)).answers[0] == "served"
    assert asked == [Path("its/python")]


def test_what_nobody_published_is_not_recorded():
    assert "other lengths were published: 1024 / 1024" in possible("deepseek-r1-gb200-nvl72-mlperf-server").reason
    assert "no trace was recorded" in possible("gpt-oss-120b-b200-azure-conv").reason


def test_without_any_way_the_answer_is_nothing(monkeypatch):
    monkeypatch.setattr("runners.simulated.silicon.find_spec", lambda name: None)
    here = possible("gpt-oss-120b-b200-azure-conv")
    assert here.answers == ("nothing",)
    assert "no kernel data for" in here.reason


# The command.


def run(*arguments):
    return CliRunner().invoke(app, ["doctor", *arguments])


def test_the_command_shows_both_tables():
    done = run(CHAT)
    assert done.exit_code == 0, done.output
    assert "kernel data" in done.output
    assert CHAT in done.output


def test_the_command_speaks_json():
    done = run(CHAT, "--json")
    said = json.loads(done.output)
    assert said["works"] is True
    assert [one["experiment"] for one in said["experiments"]] == [CHAT]
    assert {"name", "state", "found", "needed"} == set(said["checks"][0])


def test_the_command_fails_where_searches_would():
    done = run(CHAT, "--json", "--tracking-uri", "http://user:s3cret@127.0.0.1:9")
    assert done.exit_code == 1
    assert json.loads(done.output)["works"] is False
    assert "s3cret" not in done.output


def test_an_unknown_experiment_is_answered_with_the_nearest():
    done = run("gpt-oss-120b-b200-chatt")
    assert isinstance(done.exception, InputError)
    assert CHAT in str(done.exception)
