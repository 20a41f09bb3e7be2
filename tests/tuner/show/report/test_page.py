"""The page in a real browser: it draws, loads nothing, and is accessible at every width and in both schemes."""

import shutil
from pathlib import Path

import pytest

from tests.studies import CHAT, FAILED, INFEASIBLE, OTHER, WINNER, study_of
from tuner.app.library import open_study

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
]
AXE = Path(__file__).with_name("axe.min.js")
VIEWS = {"desktop": (1280, "light"), "phone": (390, "light"), "dark": (1280, "dark")}


@pytest.fixture(scope="module")
def page_file(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    study_of(folder, WINNER, OTHER, INFEASIBLE, FAILED)
    file = folder / "report.html"
    file.write_text(open_study(CHAT, studies=folder).report(price=0.1), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize("view", VIEWS)
def test_the_page_draws_loads_nothing_and_is_accessible(page_file, chromium, view):
    width, scheme = VIEWS[view]
    page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_file.as_uri())
    page.wait_for_selector(".chart .main-svg")
    charts = page.locator(".chart").count()
    assert page.locator(".chart .main-svg").count() >= charts >= 4
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    page.add_script_tag(path=str(AXE))
    found = page.evaluate("axe.run()")["violations"]
    assert [item["id"] for item in found if item["impact"] in ("serious", "critical")] == []
    assert said == []
    page.close()


def test_the_page_prints(page_file, chromium):
    page = chromium.new_page()
    page.goto(page_file.as_uri())
    page.wait_for_selector(".chart .main-svg")
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.close()
