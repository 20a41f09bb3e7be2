"""Settings from the command line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.config import Disaggregation, Engine, Layout, ServingConfig, Speculation
from search_spaces.errors import InputError
from tuner.scenario.settings import parse_settings

TRTLLM = ServingConfig(engine=Engine(name="trtllm", version="1.3.0rc20"))


def test_settings_change_one_configuration_into_another():
    changed = parse_settings(
        ["layout.tensor=4", "layout.expert=4", "precision.weights=nvfp4", "batching.max_sequences=512"],
        TRTLLM,
    )
    assert changed.layout == Layout(tensor=4, expert=4)
    assert (changed.precision.weights, changed.batching.max_sequences) == ("nvfp4", 512)
    assert parse_settings([], TRTLLM) == TRTLLM


def test_a_prefill_setting_makes_a_deployment_disaggregated_and_the_mode_undoes_it():
    apart = parse_settings(["prefill.replicas=3"], TRTLLM)
    assert apart.disaggregation == Disaggregation(prefill_layout=Layout(replicas=3))
    assert parse_settings(["mode=disaggregated"], TRTLLM).disaggregation == Disaggregation()
    assert parse_settings(["mode=aggregated"], apart) == TRTLLM


def test_no_speculation_needs_no_draft_length():
    drafting = parse_settings(["speculation.method=mtp", "speculation.draft_length=2"], TRTLLM)
    assert drafting.speculation == Speculation(method="mtp", draft_length=2)
    assert parse_settings(["speculation.method=none"], drafting) == TRTLLM


def test_any_batch_limit_may_be_set():
    batching = parse_settings(["batching.max_sequences=37", "batching.max_batched_tokens=1234"], TRTLLM).batching
    assert (batching.max_sequences, batching.max_batched_tokens) == (37, 1234)


def test_another_engine_comes_at_its_own_default_release():
    assert parse_settings(["engine=vllm"], TRTLLM).engine == Engine(name="vllm", version="0.24.0")
    later = ["engine=vllm", "engine.version=0.27.0"]
    assert parse_settings(later, TRTLLM).engine == Engine(name="vllm", version="0.27.0")
    assert parse_settings(later[::-1], TRTLLM).engine == Engine(name="vllm", version="0.27.0")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("layout.tensr=4", "'layout.tensr=4': unknown setting 'layout.tensr'; valid: layout.tensor, "),
        ("layout.tensor", "'layout.tensor': a setting must read KEY=VALUE, such as layout.tensor=4"),
        ("layout.tensor=four", "'layout.tensor=four': must be a whole number, but got 'four'"),
        ("layout.tensor=0", "'layout.tensor=0': `layout.tensor >= 1` must hold, but got 0"),
        (
            "precision.weights=nvfp5",
            "'precision.weights=nvfp5': unknown precision.weights 'nvfp5'; valid: nvfp4, ",
        ),
        (
            "speculation.method=mtp",
            "`1 <= draft_length <= 8, or 0 with method none` must hold, but got method mtp",
        ),
        ("mode=aggregate", "'mode=aggregate': unknown mode 'aggregate'; valid: aggregated, "),
        ("mode=disaggregated prefill", "'mode=disaggregated prefill': unknown mode "),
        ("engine=vlm", "'engine=vlm': unknown engine 'vlm'; valid: vllm, "),
        ("engine=vllm@0.27.0", "'engine=vllm@0.27.0': unknown engine 'vllm@0.27.0'; valid: vllm, "),
        ("engine.name=vllm", "'engine.name=vllm': engine.name is called engine now"),
        (
            "disaggregation.prefill_layout.tensor=2",
            "'disaggregation.prefill_layout.tensor=2': disaggregation.prefill_layout.tensor is called prefill.tensor",
        ),
        (
            "batching.max_sequences=-3",
            "'batching.max_sequences=-3': `batching.max_sequences >= 1` must hold, but got -3",
        ),
        ("engine.version=9", "unknown trtllm version '9'; valid: "),
    ],
)
def test_a_setting_that_cannot_be_is_refused_with_the_reason(setting, said):
    with pytest.raises(InputError) as error:
        parse_settings([setting], TRTLLM)
    assert str(error.value).startswith(said)


def test_all_bad_settings_are_said_at_once():
    with pytest.raises(InputError) as error:
        parse_settings(["layout.tensr=4", "layout.tensor=4", "x=1"], TRTLLM)
    assert len(str(error.value).splitlines()) == 2


@given(st.text(max_size=30), st.text(max_size=30))
def test_no_setting_raises_anything_but_an_input_error(knob, text):
    for setting in (f"{knob}={text}", f"layout.tensor={text}", f"engine={text}"):
        try:
            parse_settings([setting], TRTLLM)
        except InputError:
            continue
