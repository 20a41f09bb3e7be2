"""Experiment files: what they mean, and what is said about a file that cannot be used."""

import datetime as dt
import json
import math
from copy import deepcopy
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runners.workload.workload import Lengths
from search_spaces.config import Engine, Speculation
from search_spaces.errors import InputError
from search_spaces.models.model import find_model
from tuner.scenario.experiment.experiment import Experiment
from tuner.scenario.experiment.files import find_experiment
from tuner.scenario.experiment.reading import read_experiment
from tuner.scenario.sla import Slo

ROOT = Path(__file__).parents[4]

EXPERIMENT = {
    "model": "gpt-oss-120b",
    "system": "b200",
    "gpus": 8,
    "engines": ["trtllm"],
    "workload": {
        "arrivals": "closed_loop",
        "input_tokens": {"low": 819, "high": 1024},
        "output_tokens": 1024,
    },
    "sla": {"ttft_ms_p99": 1000},
    "price": {"list": "hyperscaler", "date": dt.date(2026, 7, 31)},
    "objective": "usd_per_million_output_tokens",
}
MISSING = object()

TRACE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
"""


def as_yaml(value) -> str:
    """A value in YAML's flow style."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{as_yaml(key)}: {as_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_yaml, value)) + "]"
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else f"{'-' if value < 0 else ''}.inf"
    return json.dumps(value)


def changed(changes: dict) -> dict:
    """The experiment with values at dotted paths (`/` between the parts) replaced, added or left out."""
    experiment = deepcopy(EXPERIMENT)
    for path, value in changes.items():
        *parents, last = path.split("/")
        part = experiment
        for parent in parents:
            part = part[parent]
        if value is MISSING:
            del part[last]
        else:
            part[last] = value
    return experiment


@pytest.fixture
def experiment(tmp_path):
    def write_and_read(changes: dict) -> Experiment:
        path = tmp_path / "experiment.yaml"
        path.write_text(as_yaml(changed(changes)), encoding="utf-8")
        return read_experiment(path)

    return write_and_read


@pytest.fixture
def complaint(tmp_path, experiment):
    """What is said about the experiment with some changes, without the file's name."""

    def refuse(changes: dict) -> list[str]:
        with pytest.raises(InputError) as error:
            experiment(changes).scenario()
        lines = str(error.value).splitlines()
        start = f"{tmp_path / 'experiment.yaml'}: "
        assert all(line.startswith(start) for line in lines)
        return [line.removeprefix(start) for line in lines]

    return refuse


@pytest.fixture
def complaint_about_text(tmp_path):
    def refuse(text: str | bytes) -> str:
        path = tmp_path / "experiment.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(InputError) as error:
            read_experiment(path)
        return str(error.value).removeprefix(f"{path}: ")

    return refuse


def test_an_experiment_becomes_the_scenario_that_it_describes(experiment):
    read = experiment({"space": {"layout.tensor": [1, 2], "speculation.method": ["none"]}, "seed": 7})
    scenario = read.scenario()
    assert scenario.name == "experiment"
    assert (scenario.model.name, scenario.system.name, scenario.gpus) == ("gpt-oss-120b", "b200", 8)
    assert scenario.space.engines[0].name == "trtllm"
    assert scenario.space.dimensions["layout.tensor"] == (1, 2)
    assert scenario.space.dimensions["speculation.method"] == ("none",)
    assert scenario.workload.input_tokens == Lengths(low=819, high=1024)
    assert scenario.workload.output_tokens == Lengths(low=1024, high=1024)
    assert scenario.workload.seed == 7
    assert scenario.sla.slos == (Slo(metric="ttft", statistic="p99", limit_s=1.0),)
    assert scenario.objective == "usd_per_million_output_tokens"


def test_what_is_left_out_has_a_default(experiment):
    read = experiment({})
    assert (read.runner, read.seed, read.budget.trials, read.budget.wall_clock_min) == (
        "simulated",
        0,
        48,
        None,
    )
    assert (read.workload.requests, read.workload.shared_prefix_tokens) == (400, 0)


def test_several_slos_on_any_percentile_are_all_kept(experiment):
    sla = {"ttft_ms_p99": 1000, "tpot_ms_p50": 20.5, "itl_ms_p99.9": 80, "e2e_ms_mean": 30000}
    slos = experiment({"sla": sla}).scenario().sla.slos
    assert {slo.key: slo.limit_s * 1000 for slo in slos} == pytest.approx(sla)


def test_the_list_price_of_a_date_comes_from_the_table(experiment):
    # search_spaces/hardware/prices.csv, rows of 2026-07-24 and 2026-07-31 for b200.
    of_july = experiment({"price": {"list": "hyperscaler", "date": dt.date(2026, 7, 30)}}).scenario().price
    latest = experiment({"price": {"list": "rental", "usd_per_kwh": 0.1}}).scenario().price
    assert of_july.usd_per_gpu_hour == 1.95
    assert (latest.usd_per_gpu_hour, latest.usd_per_kwh) == (2.6, 0.1)


def test_a_price_of_ones_own_takes_the_power_from_the_table_unless_it_is_given(experiment):
    own = experiment({"price": {"usd_per_gpu_hour": 1.5}}).scenario().price
    hot = experiment({"price": {"usd_per_gpu_hour": 1.5, "all_in_watts_per_gpu": 3000}}).scenario().price
    assert (own.usd_per_gpu_hour, own.all_in_watts_per_gpu) == (1.5, 1710)
    assert hot.all_in_watts_per_gpu == 3000


def test_an_engine_can_be_given_at_a_release(experiment):
    assert experiment({"engines": ["vllm@0.27.0", "trtllm"]}).scenario().space.engines[0] == Engine(
        name="vllm", version="0.27.0"
    )


def test_acceptance_measured_on_the_workload_replaces_the_models_own(experiment):
    acceptance = {"eagle3": [1.5, 1.75]}
    model = experiment({"workload/acceptance": acceptance}).scenario().model
    own = find_model("gpt-oss-120b")
    assert model.tokens_per_step(Speculation(method="eagle3", draft_length=2)) == 1.75
    assert model.drafts["eagle3"].parameters == own.drafts["eagle3"].parameters
    assert model.drafts["ngram"] == own.drafts["ngram"]


def test_measured_acceptance_opens_its_draft_lengths_to_the_search(experiment):
    changes = {"workload/acceptance": {"eagle3": [1.9, 2.0, 2.1, 2.2, 2.3, 2.4]}}
    assert 6 in experiment(changes).scenario().space.dimensions["speculation.draft_length"]
    assert 6 not in experiment({}).scenario().space.dimensions["speculation.draft_length"]


def test_the_acceptance_of_a_draft_that_nobody_has_is_refused_where_it_would_draft_for_nothing(complaint, experiment):
    changes = {"workload/acceptance": {"mtp": [1.9], "ngram": [1.2]}}
    (line,) = complaint(changes)
    assert line == (
        "workload.acceptance.mtp: gpt-oss-120b has no mtp draft to predict the time of; valid: eagle3, ngram"
    )
    assert experiment({**changes, "runner": "served"}).scenario().model.drafts["mtp"].tokens_per_step == (1.9,)


def test_a_trace_is_found_beside_the_experiment_that_names_it(experiment, tmp_path):
    (tmp_path / "traces").mkdir()
    (tmp_path / "traces" / "two.csv").write_text(TRACE)
    workload = experiment({"workload": {"arrivals": "trace", "trace": "traces/two.csv"}}).scenario().workload
    assert workload.trace is not None
    assert workload.trace.arrival.tolist() == pytest.approx([0, 4.314579])
    assert (workload.input_tokens, workload.output_tokens) == (
        Lengths(low=374, high=396),
        Lengths(low=44, high=109),
    )


@pytest.mark.parametrize(
    ("changes", "key", "text"),
    [
        ({"gpu": 4}, "gpu", "unknown key 'gpu'; valid: gpus, "),
        (
            {"workload/input_token": 4},
            "workload.input_token",
            "unknown key 'input_token'; valid: input_tokens, ",
        ),
        (
            {"workload/input_tokens": {"low": 1, "high": 2, "hi": 3}},
            "workload.input_tokens.hi",
            "valid: high, low",
        ),
        ({"budget": {"trails": 4}}, "budget.trails", "unknown key 'trails'; valid: trials, "),
        ({"sampler": {"name": "tpee"}}, "sampler.name", "unknown sampler 'tpee'; valid: tpe, "),
        ({"sampler": {"nam": "tpe"}}, "sampler.nam", "unknown key 'nam'; valid: name, "),
        ({"price/dat": "x"}, "price.dat", "unknown key 'dat'; valid: date, "),
        ({"model": "gpt-oss-121b"}, "model", "unknown model 'gpt-oss-121b'; valid: gpt-oss-120b, "),
        ({"system": "b20"}, "system", "unknown system 'b20'; valid: b200, "),
        ({"engines": ["trtlm"]}, "engines[0]", "unknown engine 'trtlm'; valid: trtllm, "),
        ({"engines": ["vllm@0.26.0"]}, "engines[0]", "unknown vllm version '0.26.0'; valid: 0.24.0, 0.27.0"),
        ({"sla": {"ttft_ms_p98": 1}}, "sla.ttft_ms_p98", "unknown SLO 'ttft_ms_p98'; valid: ttft_ms_p9"),
        ({"sla": {"ttft_s_p99": 1}}, "sla.ttft_s_p99", "unknown SLO 'ttft_s_p99'; valid: ttft_ms_p99, "),
        ({"workload/arrivals": "poison"}, "workload.arrivals", "valid: poisson, "),
        ({"workload/acceptance": {"mpt": [1.5]}}, "workload.acceptance.mpt", "valid: mtp, "),
        ({"price/list": "hyper"}, "price.list", "unknown price list 'hyper'; valid: hyperscaler, "),
        ({"objective": "usd_per_million"}, "objective", "valid: usd_per_million_"),
        ({"runner": "simulate"}, "runner", "unknown runner 'simulate'; valid: simulated, estimated"),
        ({"space": {"layout.tensr": [1]}}, "space.layout.tensr", "valid: layout.tensor, "),
        (
            {"space": {"layout.tensor": [3]}},
            "space.layout.tensor",
            "unknown value of layout.tensor '3'; valid: ",
        ),
    ],
)
def test_an_unknown_name_is_shown_with_the_valid_ones_the_nearest_first(complaint, changes, key, text):
    (line,) = complaint(changes)
    assert line.startswith(f"{key}: ")
    assert text in line


@pytest.mark.parametrize(
    ("changes", "key", "text"),
    [
        (
            {"workload/trace": "x.csv"},
            "workload.trace",
            "does not go with `arrivals: closed_loop or poisson`",
        ),
        (
            {"workload": {"arrivals": "trace", "trace": "x.csv", "input_tokens": 5}},
            "workload.input_tokens",
            "does not go with `arrivals: trace`; valid: ",
        ),
        ({"price/usd_per_gpu_hour": 2}, "price.usd_per_gpu_hour", "does not go with `list`; valid: "),
    ],
)
def test_keys_that_exclude_each_other_are_told_apart_from_unknown_ones(complaint, changes, key, text):
    (line,) = complaint(changes)
    assert line.startswith(f"{key}: {text}")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"gpus": 16}, "gpus: `gpus <= 8` must hold on b200, but got 16"),
        ({"gpus": 0}, "gpus: `gpus >= 1` must hold, but got 0"),
        ({"gpus": "8"}, "gpus: must be a whole number, but got '8'"),
        ({"gpus": True}, "gpus: must be a whole number, but got True"),
        ({"gpus": 8.0}, "gpus: must be a whole number, but got 8.0"),
        ({"sla": {"ttft_ms_p99": -5}}, "sla.ttft_ms_p99: `ttft_ms_p99 >= 0.001` must hold, but got -5"),
        ({"sla": {"ttft_ms_p99": math.inf}}, "sla.ttft_ms_p99: must be a finite number, but got inf"),
        ({"sla": {"ttft_ms_p99": "1 s"}}, "sla.ttft_ms_p99: must be a number, but got '1 s'"),
        ({"sla": {}}, "sla: must have at least 1, but got a mapping of 0"),
        ({"engines": []}, "engines: must have at least 1, but got a list of 0"),
        ({"engines": "trtllm"}, "engines: must be a list, but got 'trtllm'"),
        (
            {"engines": ["vllm", "vllm@0.27.0"]},
            "engines: each engine must be listed once, but got vllm 2 times",
        ),
        ({"budget": {"trials": 0}}, "budget.trials: `trials >= 1` must hold, but got 0"),
        (
            {"budget": {"wall_clock_min": 0}},
            "budget.wall_clock_min: `wall_clock_min > 0` must hold, but got 0",
        ),
        ({"seed": -1}, "seed: `seed >= 0` must hold, but got -1"),
        ({"sampler": "tpe"}, "sampler: must be a mapping, but got 'tpe'"),
        ({"sampler": {"name": 3}}, "sampler.name: must be one of surrogate, tpe, gp, nsga2, random, but got 3"),
        (
            {"sampler": {"name": "tpe", "startup_trials": 0}},
            "sampler.startup_trials: `startup_trials >= 1` must hold, but got 0",
        ),
        (
            {"sampler": {"name": "random", "startup_trials": 5}},
            "sampler: startup_trials goes with name: tpe or gp, but got name: random",
        ),
        (
            {"sampler": {"population_size": 5}},
            "sampler: population_size goes with name: nsga2, but got name: surrogate",
        ),
        ({"workload": 3}, "workload: must be a mapping, but got 3"),
        ({"workload/requests": 10}, "workload.requests: `requests >= 50` must hold, but got 10"),
        (
            {"workload/input_tokens": {"low": 5, "high": 3}},
            "workload.input_tokens: `low <= high` must hold, but got 5 and 3",
        ),
        (
            {"workload/input_tokens": {"low": 0, "high": 3}},
            "workload.input_tokens.low: `low >= 1` must hold, but got 0",
        ),
        (
            {"workload/input_tokens": "1k"},
            "workload.input_tokens: must be a whole number, or a mapping with `low` and `high`, but got '1k'",
        ),
        (
            {"workload/acceptance": {"mtp": [1.5, 3.1]}},
            "workload.acceptance.mtp: `1 <= tokens per step <= 3` must hold at draft length 2, but got 3.1",
        ),
        (
            {"workload/acceptance": {"mtp": [1.5] * 9}},
            "workload.acceptance.mtp: must have at most 8, but got a list of 9",
        ),
        ({"price/date": "31.7.2026"}, "price.date: must be a date such as 2026-07-31, but got '31.7.2026'"),
        (
            {"price": {"usd_per_gpu_hour": 0}},
            "price.usd_per_gpu_hour: `usd_per_gpu_hour > 0` must hold, but got 0",
        ),
        ({"space": {"layout.tensor": 4}}, "space.layout.tensor: must be a list, but got 4"),
        ({"space": {"layout.tensor": []}}, "space.layout.tensor: must list at least one value"),
        (
            {"space": {"layout.tensor": [1.5]}},
            "space.layout.tensor[0]: must be a whole number or a name, but got 1.5",
        ),
        ({"gpus": MISSING}, "gpus: missing (the GPUs at hand, all charged, held or left over)"),
        ({"workload/arrivals": MISSING}, "workload.arrivals: missing (closed_loop, poisson or trace)"),
        (
            {"price": {}},
            "price.list: missing (hyperscaler, neocloud, rental; or give `usd_per_gpu_hour` instead)",
        ),
    ],
)
def test_a_value_that_breaks_a_law_is_shown_with_its_key_and_the_law(complaint, changes, line):
    assert complaint(changes) == [line]


def test_a_request_longer_than_the_models_context_is_refused(complaint):
    (line,) = complaint({"workload/input_tokens": 131_072})
    law = "`input_tokens + output_tokens <= 131072` (the context of gpt-oss-120b)"
    assert line == f"workload.output_tokens: {law} must hold, but got 132096"


def test_a_shared_prefix_must_leave_something_of_the_shortest_prompt(complaint):
    (line,) = complaint({"workload/shared_prefix_tokens": 819})
    law = "`shared_prefix_tokens < 819` (the shortest input)"
    assert line == f"workload.shared_prefix_tokens: {law} must hold, but got 819"


def test_a_number_too_large_to_print_is_refused(complaint_about_text):
    said = complaint_about_text(f"gpus: 0x{'f' * 6000}")
    assert "gpus: `gpus <= 1000000` must hold, but got a number of 24000 bits" in said


def test_a_quoted_date_is_a_date(experiment):
    asked = [
        experiment({"price": {"list": "hyperscaler", "date": date}}) for date in ("2026-07-30", dt.date(2026, 7, 30))
    ]
    assert asked[0].scenario().price == asked[1].scenario().price


def test_a_folder_in_place_of_an_experiment_is_called_one(tmp_path):
    with pytest.raises(InputError, match="is a folder; name an experiment file in it"):
        find_experiment(str(tmp_path))


def test_a_date_before_the_first_price_says_which_dates_there_are(complaint):
    (line,) = complaint({"price/date": dt.date(2020, 1, 1)})
    assert line.startswith("price: no hyperscaler price for b200 on or before 2020-01-01; valid dates: 2026-03-18")


def test_everything_that_is_wrong_is_said_at_once(complaint):
    lines = complaint({"gpu": 8, "gpus": MISSING, "model": "gpt", "sla": {"ttft_ms_p99": 0}, "seed": -1})
    assert [line.split(":")[0] for line in lines] == ["model", "gpus", "sla.ttft_ms_p99", "seed", "gpu"]


def test_laws_between_keys_are_said_together_too(complaint):
    lines = complaint({"gpus": 9, "workload/shared_prefix_tokens": 900, "space": {"layout.tensor": [3]}})
    assert [line.split(":")[0] for line in lines] == [
        "gpus",
        "space.layout.tensor",
        "workload.shared_prefix_tokens",
    ]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("2023-11-16 18:15:51.2,37O,44\n", "line 4: invalid literal for int() with base 10: '37O'"),
        ("2023-11-16 18:15:51.2,0,44\n", "line 4: token counts must be >= 1"),
        ("2023-11-16 18:15:51.2,5\n", "line 4: "),
        ("2023-11-16 18:15:40.0,374,44\n", "line 4: arrivals must not go back in time"),
        ("yesterday,374,44\n", "line 4: "),
    ],
)
def test_a_broken_line_of_a_trace_is_named(complaint, tmp_path, broken, said):
    (tmp_path / "broken.csv").write_text(TRACE + broken)
    (line,) = complaint({"workload": {"arrivals": "trace", "trace": "broken.csv"}})
    assert line.startswith(f"workload.trace: {tmp_path / 'broken.csv'}: {said}")


@pytest.mark.parametrize("name", ["none.csv", ".", "\0"])
def test_a_trace_that_is_no_file_is_named(complaint, name):
    (line,) = complaint({"workload": {"arrivals": "trace", "trace": name}})
    assert line.startswith("workload.trace: no such file: ")


def test_a_trace_longer_than_the_models_context_is_refused(complaint, tmp_path):
    (tmp_path / "long.csv").write_text(TRACE + "2023-11-16 18:15:51.2,131000,100\n")
    (line,) = complaint({"workload": {"arrivals": "trace", "trace": "long.csv"}})
    assert line == (
        "workload.trace: `input_tokens + output_tokens <= 131072` (the context of gpt-oss-120b) must hold, "
        "but got 131100"
    )


@pytest.mark.parametrize("key", ["tpot_ms_p99", "itl_ms_mean"])
@pytest.mark.parametrize("lengths", [1, {"low": 1, "high": 1}])
def test_time_between_tokens_cannot_be_asked_of_answers_of_one(complaint, key, lengths):
    lines = complaint({"workload/output_tokens": lengths, "sla": {"ttft_ms_p99": 500, key: 20}})
    metric = key.partition("_")[0].upper()
    law = f"`output_tokens >= 2` must hold for {metric}, a time between tokens, but got 1"
    assert lines == [f"sla.{key}: {law}"]


def test_time_between_tokens_cannot_be_asked_of_a_trace_of_answers_of_one(complaint, tmp_path):
    (tmp_path / "short.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n0,10,1\n1,10,1\n")
    (line,) = complaint({"workload": {"arrivals": "trace", "trace": "short.csv"}, "sla": {"tpot_ms_p99": 20}})
    assert line.startswith("sla.tpot_ms_p99: `output_tokens >= 2` must hold")


def test_answers_of_one_token_may_have_every_other_slo_and_some_longer_answers_any(experiment):
    for lengths, slo in ((1, "ttft_ms_p99"), (1, "e2e_ms_p99"), ({"low": 1, "high": 2}, "tpot_ms_p99")):
        assert experiment({"workload/output_tokens": lengths, "sla": {slo: 20}}).scenario().sla.slos


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: a\nmodel: b\n", 'line 2, column 1: found duplicate key "model"'),
        ("budget:\n  trials: 1\n  trials: 2\n", 'line 3, column 3: found duplicate key "trials"'),
        ("engines: [a\nsla: 3\n", "line 2, column 4: expected ',' or ']', but got ':'"),
        ("a: 1\n---\nb: 2\n", "line 2, column 1: "),
        (
            "price:\n  date: 2026-02-30\n",
            "line 2, column 9: '2026-02-30' cannot be read as a timestamp: day is out of range",
        ),
        ("model: !!python/object:os.system x\n", "line 1, column 8: could not determine a constructor"),
        ("", "must be a mapping with the keys model, system, gpus, engines, workload, "),
        ("# nothing but a comment\n", "must be a mapping with the keys model, "),
        ("- model: a\n", "must be a mapping with the keys model, "),
        (b"model: \xff\n", "must be UTF-8 text, but byte 7 is not"),
        ("model: \0", "unacceptable character #x0000"),
        ("[" * 1000, "nested too deeply to be read"),
    ],
)
def test_a_file_that_is_no_yaml_mapping_says_where(complaint_about_text, text, said):
    assert complaint_about_text(text).startswith(said)


def test_a_key_that_is_no_text_is_named(complaint_about_text):
    assert "[3]: keys must be text, but got 3" in complaint_about_text("3: 4")


def test_a_directory_or_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read_experiment(tmp_path)
    with pytest.raises(InputError, match=r"none\.yaml: cannot be read: No such file or directory"):
        read_experiment(tmp_path / "none.yaml")


KEYS = st.sampled_from(
    ["model", "gpus", "workload", "arrivals", "input_tokens", "low", "list", "trials", "ttft_ms_p99", "mtp"]
)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=10**15, max_value=10**400),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["trace", "closed_loop", "b200", "rental", "\ud800", "\0"]),
    st.dates(),
)

VALUES = st.recursive(
    SCALARS,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(KEYS | st.text(max_size=4), values, max_size=3),
    max_leaves=6,
)

PATHS = st.sampled_from(
    [
        *EXPERIMENT,
        "workload/arrivals",
        "workload/input_tokens",
        "workload/output_tokens",
        "workload/acceptance",
        "workload/shared_prefix_tokens",
        "workload/requests",
        "workload/trace",
        "sla/ttft_ms_p99",
        "price/list",
        "price/date",
        "price/usd_per_gpu_hour",
        "space",
        "runner",
        "sampler",
        "budget",
        "seed",
    ]
)


def only_input_errors(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8", errors="surrogatepass"))
    said = ""
    try:
        read_experiment(path).scenario()
    except InputError as error:
        said = str(error)
    assert all(line.startswith(f"{path}: ") for line in said.splitlines())
    assert "\0" not in said


@pytest.fixture(scope="module")
def scratch(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "experiment.yaml"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(path=PATHS, key=KEYS, value=VALUES)
def test_no_value_in_any_place_raises_anything_but_an_input_error(scratch, path, key, value):
    only_input_errors(scratch, as_yaml(changed({path: value})))
    only_input_errors(scratch, as_yaml(EXPERIMENT | {key: value, path.split("/")[0]: {key: value}}))


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=st.sampled_from("abm:- \n\t[]{}&*!|>'\"%#,?0129.<=~\\\ud800\0"), max_size=40))
def test_no_text_raises_anything_but_an_input_error(scratch, text):
    only_input_errors(scratch, text)


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(["int", "float", "bool", "null", "timestamp", "binary", "set", "omap", "pairs", "map"]),
    VALUES,
)
def test_no_yaml_tag_raises_anything_but_an_input_error(scratch, tag, value):
    only_input_errors(scratch, f"gpus: !!{tag} {as_yaml(value)}")


def test_a_confidence_stands_beside_the_slos(experiment):
    sla = experiment({"sla/confidence": 0.9}).scenario().sla
    assert sla.confidence == 0.9
    assert [slo.key for slo in sla.slos] == ["ttft_ms_p99"]


@pytest.mark.parametrize("value", [0.3, 1])
def test_a_confidence_is_a_probability_above_one_half(complaint, value):
    assert complaint({"sla/confidence": value}) == [f"sla: `0.5 <= confidence < 1` must hold, but got {value:g}"]


def test_a_confidence_alone_asks_for_nothing(complaint):
    assert complaint({"sla": {"confidence": 0.9}}) == [
        "sla: confidence needs an SLO beside it, such as ttft_ms_p99: 1000"
    ]
