"""Retune: the verdict on releases whose truth is known, what old trials are used for, and what stops it."""

import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import optuna
import pytest

from runners.runner import RunFailedError
from runners.simulated.simulated import Simulated
from search_spaces.config import Engine
from search_spaces.errors import InfeasibleError, InputError
from tuner.retune.champion import candidate
from tuner.retune.change import changes, space_changes
from tuner.retune.rank_release import rank_release, same_steps
from tuner.retune.retune import retune
from tuner.retune.search_release import ENQUEUED, PRIOR, InterruptedRetuneError, Marked, enqueue_priors
from tuner.retune.sides import sides
from tuner.retune.summary import to_html, to_markdown, to_record, verdict_line
from tuner.scenario.experiment.reading import read_experiment
from tuner.search.session import Session
from tuner.search.trial import RECORD

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
from retune import CASES, shifted_case, tuned
from shifted import Shift, ShiftedSession

optuna.logging.set_verbosity(optuna.logging.ERROR)

EXPERIMENT = """\
model: gpt-oss-120b
system: b200
gpus: 4
engines: [trtllm]
workload: {arrivals: closed_loop, input_tokens: 512, output_tokens: 128, requests: 60}
sla: {ttft_ms_p99: 1000, tpot_ms_p99: 20}
price: {usd_per_gpu_hour: 3.6}
objective: usd_per_million_output_tokens
space:
  mode: [aggregated]
  layout.pipeline: [1]
  layout.attention_dp: [1]
  layout.expert: [1]
  precision.weights: [mxfp4_mxfp8]
  precision.kv_cache: [fp8]
  speculation.method: [none, eagle3]
  speculation.draft_length: [1]
  batching.max_sequences: [64, 256]
  batching.max_batched_tokens: [8192]
budget: {trials: 12}
retune: {trials: 12, minimum_effect: 0.02, repeats: 4, monthly_tokens: 1.0e+12}
"""
NEW = Engine(name="trtllm", version="1.3.0rc23")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    path = tmp_path_factory.mktemp("experiment") / "chat.yaml"
    path.write_text(EXPERIMENT)
    return read_experiment(path)


def shifted(shifts):
    return lambda asked: ShiftedSession(experiment=asked, shifts=shifts, base="1.3.0rc20")


@pytest.fixture(scope="module")
def champion(experiment):
    return tuned(shifted(lambda _key: Shift())(experiment))


def study():
    return optuna.create_study(study_name="chat-new")


def retuned(experiment, champion, make, to=NEW, **options):
    return retune(champion, sides(experiment, champion, to, make), (), study=study(), **options)


@pytest.mark.parametrize("name", list(CASES))
def test_the_verdict_is_the_one_of_an_exhaustive_search(experiment, name):
    found, outcome, best = shifted_case(experiment, CASES[name])
    assert found.verdict.outcome == outcome
    assert found.verdict.decided
    served = found.scenario.sla.met_by(found.winner.measurement)
    assert served
    assert (found.today if found.winner is found.before else found_cost(found)) == pytest.approx(best)


def found_cost(found):
    from tuner.search.search import objective

    return objective(found.scenario, found.winner)


def test_the_cases_reach_every_kind_of_verdict(experiment):
    outcomes = {shifted_case(experiment, shifts)[1] for shifts in CASES.values()}
    assert outcomes >= {"keep", "upgrade", "do_not_upgrade"}


def test_a_deterministic_runner_is_asked_for_one_block_only(experiment, champion):
    found = retuned(experiment, champion, shifted(lambda _key: Shift()))
    assert [one.arm for one in found.repeats] == ["sentinel", "old", "new", "new", "old", "sentinel"]


class Cold(Simulated):
    """The first life of every old server compiles its kernels: two windows at 1.79 times the time, kept on the disk."""

    def __init__(self, silicon, lives):
        super().__init__(silicon)
        self.lives = lives

    @contextmanager
    def serve(self, config):
        self.lives.append(config)
        cold = config.engine.version == "1.3.0rc20" and sum(one == config for one in self.lives) == 2
        with super().serve(config) as measure:
            windows = []

            def slow(loaded):
                level = measure(loaded)
                windows.append(level)
                noise = 1 + 1e-4 * (len(self.lives) % 7)  # so that repeats differ, as real ones do
                factor = (1.79 if cold else 1.0) * noise
                return replace(level, duration_s=level.duration_s * factor)

            yield slow


@dataclass(frozen=True, kw_only=True)
class ColdSession(Session):
    lives: list

    @cached_property
    def runner(self):
        return Cold(self.silicon, self.lives)


def test_the_jit_trap_end_to_end_a_cold_old_server_is_no_gain_of_the_new_release(experiment):
    champion = tuned(Session(experiment=experiment))
    experiment = experiment.model_copy(update={"retune": experiment.retune.model_copy(update={"repeats": 6})})
    found = retuned(experiment, champion, lambda asked: ColdSession(experiment=asked, lives=LIVES))
    assert found.verdict.outcome == "keep"
    assert abs(found.verdict.effect.estimate) < 0.001
    assert any("old: the first 1 of 6 repeats cost up to 1.79 times" in line for line in found.verdict.evidence)


LIVES: list = []


def test_old_trials_are_tried_first_and_marked_as_priors_never_taken_as_results(experiment, champion):
    made = study()
    session = Session(experiment=experiment.model_copy(update={"engines": ["trtllm@1.3.0rc23"]}))
    left_out = enqueue_priors(champion, session, NEW, made)
    waiting = made.get_trials(deepcopy=False)
    assert left_out == []
    assert len(waiting) == min(len(champion.others), ENQUEUED) + 1 > 2
    assert all(trial.state.name == "WAITING" for trial in waiting)
    assert all(RECORD not in trial.user_attrs for trial in waiting)
    assert "on trtllm 1.3.0rc20 (study tuned-00000000, trial" in waiting[0].user_attrs[PRIOR]
    assert waiting[0].user_attrs[PRIOR].endswith("a prior, no result")
    first = session.scenario.space.config(waiting[0].system_attrs["fixed_params"])
    assert first == replace(champion.config, engine=NEW)


def test_the_trackers_runs_are_marked_too(experiment, champion):
    logged = []

    class Kept:
        def log(self, trial):
            logged.append(trial)

    found = retuned(experiment, champion, shifted(lambda _key: Shift()), tracker=Kept())
    marked = [trial for trial in logged if trial.prior]
    assert len(marked) == min(len(champion.others), ENQUEUED) + 1
    assert len(logged) == len(found.trials)
    from tuner.tracking.record import record

    assert record(marked[0], found.scenario).tags["prior"].endswith("a prior, no result")
    assert all(trial.prior == "" for trial in found.trials)


def test_a_marked_tracker_leaves_other_trials_alone(experiment, champion):
    made = optuna.create_study()
    asked = made.ask()
    made.tell(asked, 1.0)
    kept = []
    Marked(type("Kept", (), {"log": lambda _self, trial: kept.append(trial)})(), made).log(champion.trial)
    assert kept == [champion.trial]


def test_a_value_that_the_space_no_longer_has_is_reported_not_tried(experiment, champion):
    session = Session(
        experiment=experiment.model_copy(
            update={"engines": ["trtllm@1.3.0rc23"], "space": {**experiment.space, "batching.max_sequences": [64]}}
        )
    )
    made = study()
    left_out = enqueue_priors(champion, session, NEW, made)
    assert left_out
    assert all("no batching.max_sequences=256 any more" in line for line in left_out)


def test_new_knobs_and_lost_values_are_told():
    before = {"layout.tensor": (1, 2), "old.knob": (1,)}
    after = {"layout.tensor": (2, 4), "new.knob": ("default", "other")}
    assert [str(change) for change in space_changes(before, after)] == [
        "values of layout.tensor: [1] -> [4]",
        'setting new.knob: nothing -> ["default", "other"]',
        "setting old.knob: [1] -> nothing",
    ]


def test_what_changed_in_the_experiment_is_a_diff(experiment, champion):
    other = experiment.model_copy(update={"sla": {"ttft_ms_p99": 500, "tpot_ms_p99": 20}, "gpus": 8})
    found = changes(champion, Session(experiment=other))
    assert list(map(str, found)) == ["gpus: 4 -> 8", "sla.ttft_ms_p99: 1000 -> 500"]
    assert changes(champion, Session(experiment=experiment)) == []


def test_a_price_table_that_moved_is_a_change(experiment, champion):
    dearer = replace(champion, price={**champion.price, "usd_per_gpu_hour in force": 4.2})
    assert list(map(str, changes(dearer, Session(experiment=experiment)))) == ["usd_per_gpu_hour in force: 4.2 -> 3.6"]


def test_a_champion_on_a_release_that_is_gone_says_what_there_is(experiment, champion):
    gone = replace(champion.trial, config=replace(champion.config, engine=replace(NEW, version="1.2.0")))
    with pytest.raises(InputError, match=r"trtllm 1.2.0, for which there are no .*only for 1.3.0rc20, 1.3.0rc23"):
        sides(experiment, replace(champion, trial=gone), NEW)


class Failing(Simulated):
    def __init__(self, silicon, version, error):
        super().__init__(silicon)
        self.version, self.error = version, error

    @contextmanager
    def serve(self, config):
        if config.engine.version == self.version:
            raise self.error
        with super().serve(config) as measure:
            yield measure


@dataclass(frozen=True, kw_only=True)
class FailingSession(Session):
    version: str
    error: Exception

    @cached_property
    def runner(self):
        return Failing(self.silicon, self.version, self.error)


def test_a_champion_whose_engine_is_gone_says_what_to_do(experiment, champion):
    error = RunFailedError("not installed", "no module named tensorrt_llm")
    with pytest.raises(InputError, match=r"no module named tensorrt_llm.*tune again and promote"):
        retuned(experiment, champion, lambda asked: FailingSession(experiment=asked, version="1.3.0rc20", error=error))


@pytest.mark.parametrize("error", [RunFailedError("died", "exit code 1"), InfeasibleError("engine", "flag is gone")])
def test_a_release_on_which_nothing_serves_is_not_upgraded_to(experiment, champion, error):
    found = retuned(
        experiment, champion, lambda asked: FailingSession(experiment=asked, version="1.3.0rc23", error=error)
    )
    assert found.verdict.outcome == "do_not_upgrade"
    assert str(error) in verdict_line(found)
    assert found.winner is found.before


def test_ctrl_c_in_the_search_gives_no_verdict(experiment, champion):
    with pytest.raises(InterruptedRetuneError, match="chat-new"):
        retuned(
            experiment,
            champion,
            shifted(lambda _key: Shift()),
            tracker=type("Stop", (), {"log": lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)})(),
        )


def test_a_changed_slo_is_retuned_without_a_release(experiment, champion):
    tighter = experiment.model_copy(update={"sla": {"ttft_ms_p99": 1000, "tpot_ms_p99": 6}})
    both = sides(tighter, champion, None)
    assert both.old is both.new
    found = retune(champion, both, (), study=study())
    assert found.findings.release is None
    assert found.verdict.outcome in ("keep", "switch")
    assert found.scenario.sla.met_by(found.winner.measurement)


def test_another_engines_release_leaves_the_champion_where_it_is(experiment, champion):
    both = sides(experiment, champion, Engine(name="sglang", version="0.5.16"))
    assert not both.moved
    assert (both.old.experiment.engines, both.new.experiment.engines) == (["trtllm@1.3.0rc20"], ["sglang@0.5.16"])


def test_tables_that_are_slow_but_equal_carry_the_older_ranking_over(experiment, champion):
    ticks = iter(range(10_000))
    both = sides(experiment, champion, NEW)
    ranking = rank_release(champion, both, clock=lambda: float(next(ticks)))
    assert ranking == both.old.prior.rank()


def test_tables_that_are_slow_and_differ_are_priced_from_the_best_down(experiment, champion, monkeypatch):
    ticks = iter(range(10_000))
    both = sides(experiment, champion, NEW)
    monkeypatch.setattr("tuner.retune.rank_release.same_steps", lambda *_: False)
    ranking = rank_release(champion, both, clock=lambda: float(next(ticks)))
    assert {frozenset(c.params.items()) for c in ranking.candidates} == {
        frozenset(c.params.items()) for c in both.old.prior.rank().candidates
    }


def test_shifted_step_times_are_not_taken_for_equal(experiment, champion):
    session = shifted(lambda _key: Shift(decode=1.01))(experiment)
    old = champion.config.engine
    assert same_steps(session.silicon, champion.config, old, old)
    assert not same_steps(session.silicon, champion.config, NEW, old)


@pytest.fixture(scope="module")
def upgraded(experiment, champion):
    return retuned(experiment, champion, shifted(lambda _key: Shift(prefill=0.5, decode=0.8)))


def test_the_verdict_is_one_line_with_dollars_a_million_and_a_month(upgraded):
    line = verdict_line(upgraded)
    assert "\n" not in line
    assert line.startswith(("Upgrade, and keep the configuration to trtllm 1.3.0rc23: -$", "Switch to "))
    saved = upgraded.today * upgraded.verdict.effect.estimate * 1e6
    assert f"-${-saved:,.0f} a month at 1e+03 billion tokens" in line


def test_without_monthly_tokens_a_month_is_the_champions_full_load(experiment, champion):
    plain = experiment.model_copy(update={"retune": experiment.retune.model_copy(update={"monthly_tokens": None})})
    found = retuned(plain, champion, shifted(lambda _key: Shift()))
    assert found.monthly_tokens == pytest.approx(found.before.measurement.output_rate * 730 * 3600)


def test_the_summaries_hold_verdict_evidence_and_commands(upgraded):
    markdown, page = to_markdown(upgraded), to_html(upgraded)
    assert f"**{verdict_line(upgraded)}**" in markdown
    assert "trtllm-serve" in markdown
    assert "<table>" in page
    assert "trtllm-serve" in page
    assert page.count("<h2>") == markdown.count("\n## ")
    from html.parser import HTMLParser

    stack = []

    class Balanced(HTMLParser):
        def handle_starttag(self, tag, _attrs):
            if tag != "meta":
                stack.append(tag)

        def handle_endtag(self, tag):
            assert stack.pop() == tag

    Balanced().feed(page)
    assert stack == []


def test_a_verdict_becomes_a_run_with_finite_numbers(upgraded):
    import json
    import math

    record = to_record(upgraded)
    assert json.loads(json.dumps(record)) == record
    assert all(math.isfinite(value) for value in record["metrics"].values())
    assert record["tags"]["servetune.retune"] == upgraded.verdict.outcome


def test_a_candidate_of_a_retune_can_be_promoted(upgraded):
    session = upgraded.sides.new
    made = candidate(session, upgraded.winner, study=upgraded.study, text="", others=upgraded.trials)
    assert made.config.engine == NEW
    assert made.asked == session.asked
