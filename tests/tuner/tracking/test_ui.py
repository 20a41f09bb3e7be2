"""A study in MLflow's own UI and in the Optuna dashboard, clicked through in a real browser."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest

from search_spaces.config import Layout
from search_spaces.errors import InputError
from tests.tuner.tracking.trials import CONFIG, FAILED, SCENARIO, measured
from tuner.tracking.mlflow_tracker import MlflowTracker
from tuner.tracking.ui import mlflow_page, optuna_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PICTURES = Path(__file__).parents[3] / "build" / "screenshots"
STUDY = "chat-0a1b2c3d"
SLOW_MS = 10_000

TRIALS = [
    replace(measured(number), config=replace(CONFIG, layout=Layout(tensor=2**number, replicas=8 // 2**number)))
    for number in range(4)
]

in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("store")
    address = f"sqlite:///{folder / 'mlflow.db'}"
    with MlflowTracker(SCENARIO, study=STUDY, tracking_uri=address) as tracker:
        for trial in TRIALS:
            tracker.log(trial)
        tracker.log(FAILED)
        tracker.summarize(3, "**Verdict.** Trial 3 is the cheapest.")
    assert tracker.problem is None
    return address


@contextmanager
def browser_page():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = play.chromium.launch(executable_path=CHROMIUM, args=options)
        page = browser.new_page(viewport={"width": 1900, "height": 1100})
        page.set_default_timeout(SLOW_MS)
        yield page
        browser.close()


def picture(page, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png")


@in_browser
@pytest.mark.browser
def test_a_study_opens_at_its_charts_and_leads_to_its_runs_and_their_comparison(uri):
    with mlflow_page(uri, SCENARIO, STUDY) as address, browser_page() as page:
        page.goto(address)
        page.get_by_text("4 matching runs").wait_for()
        for title in ("Parallel Coordinates", "tokens_per_s_per_user vs. usd_per", "curve.ttft_ms_p99"):
            page.get_by_text(title).first.wait_for()
        assert page.get_by_text("Sort: usd_per_million_output_tokens").is_visible()
        page.wait_for_timeout(3000)  # until the charts are drawn
        picture(page, "mlflow-study")

        cheapest = page.get_by_role("link", name=str(TRIALS[3].config))
        assert cheapest.is_visible()
        page.get_by_role("checkbox").first.click()  # all of them
        page.get_by_role("button", name="Compare").click()
        page.get_by_text("Comparing 4 Runs").first.wait_for()
        page.wait_for_timeout(2000)
        picture(page, "mlflow-compare")

        page.goto(address)
        cheapest.click()
        page.get_by_text("layout.tensor").first.wait_for()
        assert page.get_by_text("sla_met").first.is_visible()
        page.wait_for_timeout(1000)
        picture(page, "mlflow-trial")


@in_browser
@pytest.mark.browser
def test_the_study_itself_says_its_verdict(uri):
    with mlflow_page(uri, SCENARIO, STUDY) as address, browser_page() as page:
        page.goto(address)
        page.get_by_text("4 matching runs").wait_for()
        run = address.partition("viewStateShareKey=")[2].partition("&")[0]
        page.goto(f"{address.partition('/runs?')[0]}/runs/{run}")
        page.get_by_text("Trial 3 is the cheapest.").wait_for()
        picture(page, "mlflow-verdict")


@in_browser
@pytest.mark.browser
def test_the_optuna_dashboard_shows_a_copy_of_the_study(tmp_path):
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    journal = tmp_path / "chat.journal"
    study = optuna.create_study(study_name="chat", storage=JournalStorage(JournalFileBackend(str(journal))))
    study.optimize(lambda trial: trial.suggest_int("layout.tensor", 1, 8), n_trials=3)
    before = journal.read_bytes()
    with optuna_page(journal) as address, browser_page() as page:
        page.goto(address)
        page.get_by_text("chat").first.wait_for()
        picture(page, "optuna-study")
        deletion = page.request.delete(address.replace("/dashboard/", "/api/"))
        assert deletion.ok
    assert journal.read_bytes() == before


def test_the_server_is_gone_when_the_page_is_closed(uri):
    mine = psutil.Process()
    others = mine.children(recursive=True)
    with mlflow_page(uri, SCENARIO, STUDY) as address:
        servers = [child for child in mine.children(recursive=True) if child not in others]
        assert servers
        with urlopen(address.partition("#")[0], timeout=10) as answer:
            assert answer.status == 200
        listening = {item.laddr.ip for one in servers for item in one.net_connections() if item.status == "LISTEN"}
        assert listening == {"127.0.0.1"}
    assert not any(server.is_running() and server.status() != psutil.STATUS_ZOMBIE for server in servers)


def test_a_study_that_mlflow_does_not_have_is_named(uri):
    with pytest.raises(InputError, match="has no study other-1 in servetune/chat"):
        with mlflow_page(uri, SCENARIO, "other-1"):
            pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_ends_its_server_when_it_is_ended(tmp_path, number):
    command = [sys.executable, "-c", "from tuner.cli import main; main()"]
    experiment = """\
model: llama-3.1-8b
system: b200
gpus: 1
engines: [vllm]
workload: {arrivals: closed_loop, input_tokens: 64, output_tokens: 16, requests: 50}
sla: {ttft_ms_p99: 1000}
price: {usd_per_gpu_hour: 3.6}
objective: usd_per_million_output_tokens
budget: {trials: 1}
"""
    (tmp_path / "small.yaml").write_text(experiment)
    subprocess.run([*command, "tune", "small.yaml", "--no-track"], cwd=tmp_path, check=True, capture_output=True)
    ui = subprocess.Popen(
        [*command, "ui", "small", "--optuna"], cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=os.environ
    )
    assert ui.stdout is not None
    assert ui.stdout.readline().startswith("Study: http://127.0.0.1:")
    servers = psutil.Process(ui.pid).children(recursive=True)
    assert servers
    ui.send_signal(number)
    ui.communicate(timeout=20)
    _, alive = psutil.wait_procs(servers, timeout=5)
    assert not alive
