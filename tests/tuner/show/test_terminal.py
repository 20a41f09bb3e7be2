"""What a finished search looks like on a terminal, narrow or wide, and in a pipe."""

import io
import re
import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from runners.measurement import Measurement
from runners.served.shell import how_to_start
from runners.workload.workload import Lengths, Workload
from search_spaces.config import Disaggregation, Layout, Precision, ServingConfig, Speculation
from search_spaces.engines.engine import find_engine
from search_spaces.hardware.system import Price
from search_spaces.knobs import flatten
from search_spaces.space import full_space
from tests import scenarios
from tests.scenarios import MODEL, SYSTEM, TRTLLM
from tuner.scenario.settings import parse_settings
from tuner.search.ranking import Candidate, Ranking
from tuner.search.trial import Trial
from tuner.show.terminal import show_answer, show_experiment, show_measurement, show_next
from tuner.study.answer import Answer
from tuner.study.outcome import Outcome, Where

VLLM = find_engine("vllm")
SCENARIO = replace(
    scenarios.SCENARIO,
    workload=Workload(input_tokens=Lengths(low=819, high=1024), output_tokens=Lengths(low=1024, high=1024)),
    price=Price(usd_per_gpu_hour=3.6, all_in_watts_per_gpu=2000, source="by hand [not by foot]"),
    space=full_space(MODEL, SYSTEM, (TRTLLM, VLLM), 8),
)
level = partial(scenarios.level, load=640)
FP4 = Precision(weights="mxfp4_mxfp8", kv_cache="fp8")
DEFAULT = ServingConfig(engine=TRTLLM, layout=Layout(tensor=2, expert=2, replicas=4), precision=FP4)
WINNER = ServingConfig(
    engine=TRTLLM,
    layout=Layout(replicas=8),
    precision=FP4,
    speculation=Speculation(method="eagle3", draft_length=2),
)
SPLIT = replace(
    DEFAULT, layout=Layout(replicas=5), disaggregation=Disaggregation(prefill_layout=Layout(tensor=1, replicas=3))
)
WIDTHS = pytest.mark.parametrize("width", [80, 140])


def measured(number: int, one: Measurement, config: ServingConfig = WINNER, **changes) -> Trial:
    return Trial(number=number, ending="measured", config=config, levels=(one,), **changes)


def answer_of(*trials: Trial, baseline: Trial | None = None, **changes) -> Answer:
    candidates = tuple(
        Candidate(params={}, objective=1.0, excess=0.0, binding=binding) for binding in ("", "tpot_ms_p99")
    )
    ranking = Ranking(candidates=candidates, excluded={"memory": 1234, "divisibility": 56})
    return Answer(scenario=replace(SCENARIO, **changes), trials=trials, ranking=ranking, baseline=baseline)


def shown(show, *arguments, width: int = 140, **named) -> str:
    """As a pipe would get it."""
    output = io.StringIO()
    show(Console(file=output, width=width, highlight=False), *arguments, **named)
    return output.getvalue()


def words(text: str) -> str:
    """On one line, without frames."""
    return re.sub(r"[\s│╭╮╰╯─]+", " ", text)


BEST = measured(3, level(4000))
DEARER = measured(1, level(2000), DEFAULT)
MISSED = measured(2, level(8000, tpot_ms=25, ttft_ms=300), SPLIT)
BASELINE = measured(0, level(2500), DEFAULT)


# The experiment


@WIDTHS
def test_the_experiment_says_model_hardware_load_sla_and_price(width):
    text = words(shown(show_experiment, SCENARIO, width=width))
    for part in (
        "gpt-oss-120b on 8 GPUs of HGX/DGX B200, 819 to 1024 input and 1024 output tokens, closed loop",
        "SLA: TTFT p99 <= 1000 ms, TPOT p99 <= 20 ms",
        "Minimise $/M output tokens at $3.60/GPU-hour (by hand [not by foot])",
    ):
        assert part in text


def test_energy_that_is_charged_apart_is_named():
    price = replace(SCENARIO.price, usd_per_kwh=0.12)
    assert "+ $0.12/kWh" in words(shown(show_experiment, replace(SCENARIO, price=price)))


def test_what_could_not_be_had_of_a_server_is_said():
    lacking = replace(BEST, levels=(level(4000, source="measured", not_had=("its metrics", "its release")),))
    assert "Not had of this server: its metrics; its release." in words(shown(show_answer, answer_of(lacking)))
    assert "Not had" not in shown(show_answer, answer_of(BEST))


# The verdict


@WIDTHS
def test_the_verdict_comes_first(width):
    text = shown(show_answer, answer_of(DEARER, BEST, baseline=BASELINE), width=width)
    first = text.splitlines()[0]
    assert "Verdict: SLA met" in first
    assert "$2.00 for a million output tokens: TensorRT-LLM 1.3.0rc20, 8 workers of 1 GPU" in words(text)[:200]
    to_paste = how_to_start(SCENARIO.model, BEST.config).splitlines()
    assert max(len(line) for line in text.splitlines() if line not in to_paste) <= width


@WIDTHS
def test_everything_an_operator_asks_is_there(width):
    text = words(shown(show_answer, answer_of(DEARER, BEST, MISSED, baseline=BASELINE), width=width))
    for part in (
        "38% cheaper than the engine's default configuration on the same GPUs",
        "$/M output tokens $2.00 $3.20",
        "$/M total tokens $1.00 $1.60",
        "output tokens/s/GPU 500 312",
        "tokens/s/user 100 100",
        "output tokens/s/MW 250,000 156,250",
        "GPUs 8 8",
        "load (requests in flight) 640 640",
        "TTFT p99 1,000 ms 100 ms +90%",
        "TPOT p99 20.0 ms 10.0 ms +50%",
        "Start it",
        "trtllm-serve",
        "Runners-up",
        "+100.0%",
        "Cost against interactivity",
        "memory 1,234",
        "divisibility 56",
        "over tpot_ms_p99 (predicted) 1",
        "met the SLA 2",
        "over tpot_ms_p99 1",
        "Prediction, not a measurement",
    ):
        assert part in text, part


def test_no_word_of_a_verdict_is_lost_on_a_narrow_terminal():
    wide = words(shown(show_answer, answer_of(BEST, baseline=BASELINE), width=140))
    narrow = words(shown(show_answer, answer_of(BEST, baseline=BASELINE), width=80))
    verdict = wide[: wide.index("SLOs")]
    assert narrow.startswith(verdict)


def test_a_cheaper_default_is_admitted_with_what_it_would_save():
    text = words(shown(show_answer, answer_of(DEARER, baseline=measured(0, level(4000), DEFAULT))))
    assert "not dearer on the same GPUs (50% cheaper)" in text


def test_a_default_that_breaks_the_slo_is_no_saving():
    text = words(shown(show_answer, answer_of(BEST, baseline=measured(0, level(9000, tpot_ms=21), DEFAULT))))
    assert "The engine's default configuration breaks the SLA (tpot_ms_p99)" in text
    assert "cheaper than" not in text


@WIDTHS
def test_where_nothing_meets_the_sla_that_is_said_first_with_what_could_be_kept(width):
    text = shown(show_answer, answer_of(MISSED, baseline=BASELINE), width=width)
    assert "Verdict: SLA not met" in text.splitlines()[0]
    verdict = words(text)[: words(text).index("SLOs")]
    for part in (
        "No configuration meets the SLA: TPOT p99 <= 20 ms binds.",
        "Nearest: TensorRT-LLM 1.3.0rc20, 3 workers of 1 GPU for prefill and 5 workers of 1 GPU for decode",
        "This SLA could be met: ttft_ms_p99: 1000, tpot_ms_p99: 25, at $1.00.",
    ):
        assert part in verdict
    assert "cheaper" not in verdict


@pytest.mark.parametrize("tpot_ms", [20.001, 21.05, 29.9999, 99.5, 100.1, 1234.5])
def test_the_sla_that_could_be_met_is_met_by_the_nearest_configuration(tpot_ms):
    nearest = level(2000, tpot_ms=tpot_ms, ttft_ms=1000.4)
    text = words(shown(show_answer, answer_of(measured(0, nearest))))
    limits = re.search(r"could be met: ttft_ms_p99: (\S+), tpot_ms_p99: (\S+), at", text)
    ttft, tpot = (float(limit) for limit in limits.groups())
    assert 1000.4 <= ttft <= 1000.4 * 1.1
    assert tpot_ms <= tpot <= tpot_ms * 1.1


@pytest.mark.parametrize(("tpot_ms", "ttft_ms"), [(19.9, 999), (25, 300), (25, 3000), (1, 3000)])
def test_with_a_confidence_the_sla_that_could_be_met_is_met_as_surely(tpot_ms, ttft_ms):
    sure = replace(SCENARIO.sla, confidence=0.9)
    nearest = level(2000, tpot_ms=tpot_ms, ttft_ms=ttft_ms)
    text = words(shown(show_answer, answer_of(measured(0, nearest), sla=sure)))
    limits = re.search(r"could be met: ttft_ms_p99: (\S+), tpot_ms_p99: (\S+), at", text)
    slos = [replace(slo, limit_s=float(limit) / 1000) for slo, limit in zip(sure.slos, limits.groups(), strict=True)]
    assert replace(sure, slos=tuple(slos)).met_by(nearest)


def test_no_sla_is_offered_where_the_server_cannot_keep_up():
    text = words(shown(show_answer, answer_of(measured(0, level(2000, backlog_growth=90)))))
    assert "No configuration meets the SLA: the server cannot keep up." in text
    assert "could be met" not in text
    assert "keeps up with arrivals no" in text


@WIDTHS
def test_where_nothing_could_be_served_the_reasons_are_shown(width):
    failed = Trial(number=0, ending="failed", config=WINNER, cause="died", detail="exit 1")
    text = words(shown(show_answer, answer_of(failed), width=width))
    assert "No configuration could be served." in text[:120]
    assert "memory 1,234" in text
    assert "failed: died 1" in text


def test_a_search_that_was_stopped_before_its_first_trial_does_not_say_that_nothing_can_be_served():
    assert "No configuration has been tried yet." in shown(show_answer, answer_of())


def test_a_figure_that_is_a_bound_is_shown_as_one():
    bound = measured(1, level(2000), DEFAULT, exact=False)
    assert "<= $4.00" in words(shown(show_answer, answer_of(BEST, bound)))


def test_an_estimate_says_that_its_percentiles_are_means():
    estimated = measured(0, level(2000, source="estimated"))
    assert "every percentile shown is the mean" in words(shown(show_answer, answer_of(estimated)))


def test_what_was_measured_is_not_called_a_prediction():
    text = words(shown(show_answer, answer_of(measured(0, level(2000, source="measured")))))
    assert "measured" in text
    assert "redict" not in text[: text.index("Why")]


def test_a_pipe_gets_no_colours():
    assert "\x1b" not in shown(show_answer, answer_of(DEARER, BEST, MISSED, baseline=BASELINE))


@WIDTHS
def test_one_configuration_is_shown_with_its_figures(width):
    text = words(shown(show_measurement, SCENARIO, WINNER, level(4000), width=width))
    for part in ("8 workers of 1 GPU", "TPOT p99 20.0 ms 10.0 ms +50%", "$/M output tokens $2.00", "GPUs 8"):
        assert part in text


# What next


def outcome_of(answer: Answer, *, interrupted: bool = False, tried: int = 1, problem: str | None = None) -> Outcome:
    return Outcome(answer=answer, interrupted=interrupted, tried=tried, broken="", problem=problem)


HERE = Where(studies=Path("my studies"), study="chat-1", track=False)


def next_of(
    outcome: Outcome, experiment: str = "a file.yaml", where: Where = HERE, *, width: int = 80
) -> dict[str, str]:
    lines = shown(show_next, outcome, experiment=experiment, where=where, width=width).splitlines()
    return dict(line.split(": ", maxsplit=1) for line in lines)


@WIDTHS
def test_each_command_stands_on_one_line_and_is_quoted(width):
    shown_next = next_of(outcome_of(answer_of(BEST, baseline=BASELINE), interrupted=True), width=width)
    assert shown_next["Study"] == "my studies/chat-1.journal"
    go_on = shlex.split(shown_next["Go on"])
    place = ["--studies", "my studies", "--study", "chat-1"]
    assert go_on == ["servetune", "tune", "a file.yaml", *place, "--no-track"]
    assert shlex.split(shown_next["Next, try a change"])[:3] == ["servetune", "simulate", "a file.yaml"]


def test_going_on_has_the_options_that_were_given():
    outcome, where = outcome_of(answer_of(BEST), interrupted=True), replace(HERE, track=True)
    text = shown(show_next, outcome, experiment="chat", where=where, again=["--trials", "100", "--sampler", "tpe"])
    assert "servetune tune chat --studies 'my studies' --study chat-1 --trials 100 --sampler tpe\n" in text


def test_a_finished_search_has_nothing_to_go_on_with():
    assert "Go on" not in next_of(outcome_of(answer_of(BEST)))


@pytest.mark.parametrize("config", [WINNER, SPLIT, DEFAULT, replace(WINNER, engine=VLLM)], ids=str)
@pytest.mark.parametrize("has_baseline", [True, False])
def test_the_next_command_evaluates_the_best_again(config, has_baseline):
    answer = answer_of(measured(0, level(4000), config), baseline=BASELINE if has_baseline else None)
    command = shlex.split(next_of(outcome_of(answer))["Next, try a change"])
    settings = [command[place + 1] for place, word in enumerate(command) if word == "--set"]
    assert parse_settings(settings, DEFAULT) == config
    assert len(settings) <= len(flatten(config))


def test_paths_with_brackets_are_not_taken_for_colours():
    where = replace(HERE, studies=Path("[/b]"), study="[red]x")
    shown_next = next_of(outcome_of(answer_of(BEST), interrupted=True), "[/i].yaml", where)
    assert shown_next["Study"] == "[/b]/[red]x.journal"
    assert "[/i].yaml" in shown_next["Next, try a change"]


def test_where_the_runs_are_and_how_to_open_them_is_shown():
    where = replace(HERE, track=True, tracking_uri="sqlite:///runs.db")
    shown_next = next_of(outcome_of(answer_of(BEST)), where=where)
    assert "runs.db" in shown_next["MLflow runs"]
    assert shown_next["Open them"].startswith("mlflow server") or "mlflow" in shown_next["Open them"]


def test_what_is_not_in_mlflow_is_told_last():
    text = shown(
        show_next, outcome_of(answer_of(BEST), problem="3 of 9 [trials] are not in MLflow"), experiment="q", where=HERE
    )
    assert text.splitlines()[-1] == "3 of 9 [trials] are not in MLflow"


def test_after_nothing_was_measured_only_the_study_is_shown():
    assert list(next_of(outcome_of(answer_of(Trial(number=0, ending="failed", cause="died"))))) == ["Study"]


def test_a_search_that_had_nothing_left_to_run_says_so():
    said = next_of(outcome_of(answer_of(BEST, DEARER), tried=0))["Nothing left to run"]
    assert said == "the study had 2 trials already; --trials with a higher number may add some"
    assert "Nothing left to run" not in next_of(outcome_of(answer_of(BEST)))
    assert "Nothing left to run" not in next_of(outcome_of(answer_of(BEST), tried=0, interrupted=True))


# GPUs left over


@WIDTHS
def test_the_verdict_says_how_many_gpus_are_left_over(width):
    text = words(shown(show_answer, answer_of(measured(0, level(4000, gpus=7)), baseline=BASELINE), width=width))
    assert "1 of the 8 GPUs is left over, and charged too." in text
    assert "7 (+1 left over)" in text


def test_nothing_is_said_of_gpus_left_over_where_none_is():
    assert "left over" not in shown(show_answer, answer_of(BEST, baseline=BASELINE))
