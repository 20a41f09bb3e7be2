"""The report: what it says of a study whose figures are known by hand, in every format."""

import csv
import io
import json
from dataclasses import replace

import pytest

from search_spaces.errors import InputError
from tests.scenarios import CONFIG, level, measured
from tests.studies import CHAT, FAILED, INFEASIBLE, OTHER, WINNER, study_of
from tuner.show.report.binding import what_binds
from tuner.show.report.contender import Contender
from tuner.show.report.economics import FIFTEENFOLD, Demand, energy, month
from tuner.show.report.render import FORMATS, to_csv, to_html, to_json, to_markdown
from tuner.show.report.report import Report
from tuner.show.report.sections.order import sections
from tuner.show.report.shadow_prices import menu, nearest_cheaper, shadow_prices
from tuner.study.finished_study import FinishedStudy, open_finished


@pytest.fixture
def finished(tmp_path) -> FinishedStudy:
    study_of(tmp_path, WINNER, OTHER, INFEASIBLE, FAILED)
    return open_finished(tmp_path, CHAT)


@pytest.fixture
def missed(tmp_path) -> FinishedStudy:
    study_of(tmp_path, measured(0, level(100_000, tpot_ms=30)))
    return open_finished(tmp_path, CHAT)


def usd(finished: FinishedStudy, tokens_per_s: float) -> float:
    return 8 * finished.scenario.price.usd_per_gpu_hour / 3600 / tokens_per_s * 1e6


def test_the_shadow_price_is_the_saving_over_the_extra_milliseconds(finished):
    ttft, tpot = shadow_prices(finished)
    assert tpot.measured == pytest.approx((usd(finished, 100_000) - usd(finished, 125_000)) / 5)
    assert tpot.cheaper.limit_s == 0.025
    assert ttft.measured == pytest.approx((usd(finished, 100_000) - usd(finished, 160_000)) / 2000)


def test_the_nearest_cheaper_slo_is_the_one_that_is_missed_least(finished):
    assert nearest_cheaper(finished).measurement == WINNER.levels[1]


def test_a_slo_that_is_not_met_has_no_price(missed):
    assert [price.measured for price in shadow_prices(missed)] == [None, None]
    assert nearest_cheaper(missed) is None


def test_the_menu_shows_what_other_limits_cost(finished):
    slo = finished.scenario.sla.slos[1]
    costs = {item.factor: item.objective for item in menu(finished, slo)}
    assert costs[0.5] == pytest.approx(usd(finished, 80_000))  # the default's
    assert costs[1.0] == pytest.approx(usd(finished, 100_000))
    assert costs[1.25] == pytest.approx(usd(finished, 125_000))


def test_the_slo_that_broke_first_binds(finished):
    found = what_binds(finished)
    assert found.limit == "the SLO TPOT p99 <= 20 ms"
    assert [limit.use for limit in found.limits[:2]] == pytest.approx([0.1, 0.99])


def test_a_full_cache_binds_where_every_slo_has_room(tmp_path):
    study_of(tmp_path, measured(0, level(100_000, kv_cache_peak=1.0, preemptions=7)))
    found = what_binds(open_finished(tmp_path, CHAT))
    assert found.limit == "KV-cache capacity"
    assert "at most 100% full, 7 preemptions" in [limit.evidence for limit in found.limits]


def test_shares_of_a_worker_s_time_sum_to_one(tmp_path):
    config = replace(CONFIG, layout=replace(CONFIG.layout, expert=2))  # there are kernel times for it
    study_of(tmp_path, measured(0, level(100_000), config=config))
    shares = {limit.name: limit.use for limit in what_binds(open_finished(tmp_path, CHAT)).limits}
    parts = ("Prefill compute", "Decode bandwidth", "Decode compute", "Interconnect")
    assert sum(shares[name] for name in parts) == pytest.approx(1)
    assert all(shares[name] >= 0 for name in parts)


def test_a_month_is_worked_out_by_hand(finished):
    price = replace(finished.scenario.price, usd_per_gpu_hour=2.0, usd_per_kwh=0.0)
    scenario = replace(finished.scenario, price=price)
    found = month(scenario, level(1000), Demand(tokens_per_month=3e9, usd_per_million=10))
    assert found.capacity == 1000 * 3600 * 730  # 2.628e9
    assert found.deployments == 2
    assert found.cost == pytest.approx(2 * 8 * 2.0 * 730)
    assert found.revenue == pytest.approx(30_000)
    assert found.return_on_cost == pytest.approx(30_000 / 23_360)
    assert found.utilisation == pytest.approx(3e9 / 5.256e9)


def test_energy_is_worked_out_by_hand(finished):
    price = replace(finished.scenario.price, all_in_watts_per_gpu=2000)
    found = energy(replace(finished.scenario, price=price), level(1000))
    assert found.watts == 16_000
    assert found.output_tokens_per_s_per_mw == pytest.approx(62_500)
    assert found.wh_per_million_output_tokens == pytest.approx(16_000 * 1000 / 3600)
    assert found.wh_per_million_total_tokens == pytest.approx(16_000 * 500 / 3600)


def test_gpus_left_over_cost_and_draw_power_too(finished):
    assert month(finished.scenario, level(1000, gpus=5), Demand()) == month(finished.scenario, level(1000), Demand())
    assert energy(finished.scenario, level(1000, gpus=5)) == energy(finished.scenario, level(1000))


def test_the_report_says_how_many_gpus_are_left_over(tmp_path):
    study_of(tmp_path, measured(0, level(100_000, gpus=5)), measured(1, level(90_000)))
    report = Report(finished=open_finished(tmp_path, CHAT))
    assert "3 of the 8 GPUs are left over, and charged too." in to_markdown(report)
    found = json.loads(to_json(report))
    assert (found["winner"]["gpus"], found["winner"]["gpus_left_over"]) == (5, 3)
    assert found["winner"]["output_tokens_per_s_per_gpu"] == 12_500


def test_the_published_fifteenfold_implies_its_price_of_a_token():
    assert FIFTEENFOLD.multiple == 15
    assert FIFTEENFOLD.tokens == pytest.approx(6.81e13, rel=0.001)
    assert FIFTEENFOLD.usd_per_million == pytest.approx(1.10, abs=0.005)


def test_sections_come_in_the_order_in_which_they_are_read(finished):
    found = [section.anchor for section in sections(Report(finished=finished))]
    assert found == [
        *("comparison", "pareto", "load", "binding", "importance"),
        *("shadow-prices", "infeasible", "money", "energy", "reproduce"),
    ]


def test_the_page_holds_its_script_once_and_loads_nothing(finished):
    page = to_html(Report(finished=finished))
    assert page.count("plotly.js (basic - minified)") == 1
    own = page.replace(page[page.index("/**\n* plotly.js") :], "")
    assert "src=" not in own
    assert "http://" not in own
    assert 'href="http' not in own
    assert "NaN" not in own


def test_a_text_cannot_end_a_script_or_begin_a_tag(tmp_path):
    study_of(tmp_path, WINNER, replace(FAILED, detail="</script><script>alert(1)</script>"))
    page = to_html(Report(finished=open_finished(tmp_path, CHAT)))
    assert "<script>alert" not in page


def test_markdown_tells_the_verdict_the_causes_and_that_it_is_a_prediction(finished):
    text = to_markdown(Report(finished=finished))
    assert "**Verdict.** Serve with TensorRT-LLM" in text
    assert "> Prediction, not a measurement. Median errors:" in text
    assert "| infeasible: memory | 1 |" in text
    assert "| failed: died | 1 |" in text
    assert "servetune tune gpt-oss-120b-b200-chat.yaml --trials 4" in text


def test_a_missed_sla_is_the_verdict(missed):
    text = to_markdown(Report(finished=missed))
    assert "**Verdict.** No configuration tried meets the SLA: TPOT p99 ≤ 20 ms binds." in text
    assert "The nearest that could be met: TTFT p99 1,000 ms, TPOT p99 30.0 ms." in text


def test_an_unfinished_study_says_so(tmp_path):
    path = study_of(tmp_path, WINNER)
    with path.open("a") as journal:
        journal.write(path.read_text().splitlines()[0][:5])  # a line that a killed process never ended
    study_of(tmp_path / "other", WINNER, summary=False)
    assert "The study is unfinished" in to_markdown(Report(finished=open_finished(tmp_path / "other", CHAT)))


def test_the_champion_is_compared_when_there_is_one(finished):
    champion = Contender(role="champion", label="Champion", config=CONFIG, measurement=level(90_000))
    text = to_markdown(Report(finished=finished, champion=champion))
    assert "| Winner (predicted) | Default (predicted) | Champion (predicted) |" in text


def test_json_has_every_figure_as_a_number(finished):
    found = json.loads(to_json(Report(finished=finished, demand=Demand(usd_per_million=1))))
    assert found["winner"]["usd_per_million_output_tokens"] == pytest.approx(usd(finished, 100_000))
    assert found["verdict"]["meets_sla"] is True
    assert found["ended"] == {"met the SLA": 2, "infeasible: memory": 1, "failed: died": 1}
    assert found["winner"]["ttft_ms"]["p99"] == 100


def test_csv_has_a_row_for_each_trial(finished):
    rows = list(csv.DictReader(io.StringIO(to_csv(Report(finished=finished)))))
    assert [row["ending"] for row in rows] == ["measured", "measured", "infeasible", "failed"]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_study_without_a_measurement_is_refused_with_its_causes(tmp_path, kind):
    study_of(tmp_path, INFEASIBLE)
    finished = open_finished(tmp_path, CHAT)
    with pytest.raises(InputError, match="none of its 1 trials was measured: infeasible: memory"):
        FORMATS[kind](Report(finished=finished))
