"""Features: each knob is one, so whatever tells two configurations apart tells their features apart."""

from dataclasses import replace

import pytest
from hypothesis import given, settings

from search_spaces.config import Layout, Speculation
from search_spaces.knobs import KNOBS
from tests.search_spaces.configs import CONFIGS
from tests.tuner.search.surrogate.rows import a_config, features, with_pool
from tuner.search.surrogate.features import DERIVED, NAMES, NUMBERS, FeatureTable, features_of


def test_every_knob_is_a_feature():
    assert {*NUMBERS, *NAMES} == {*KNOBS, *DERIVED}


@settings(deadline=None)
@given(CONFIGS, CONFIGS)
def test_configurations_that_differ_have_features_that_differ(one, other):
    same_mode = (one.disaggregation is None) == (other.disaggregation is None)
    if one != other and same_mode:
        assert features_of(one, 1.0) != features_of(other, 1.0)


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        (replace(a_config(), variant="graphs"), "variant"),
        (replace(a_config(), speculation=Speculation(method="mtp", draft_length=2)), "speculation.draft_length"),
        (replace(a_config(), settings=(("made.up", 3),)), None),
    ],
)
def test_a_setting_changes_the_feature_of_its_name_only(changed, what):
    before, after = features(), features_of(changed, 64)
    names = [name for name, one, other in zip(NAMES, before.names, after.names, strict=True) if one != other]
    numbers = [name for name, one, other in zip(NUMBERS, before.numbers, after.numbers, strict=True) if one != other]
    assert (what in (*names, *numbers)) == (what is not None)


def test_without_prefill_workers_the_mode_alone_tells_from_default_ones():
    aggregated, disaggregated = features(), with_pool()
    differ = [name for name, a, b in zip(NUMBERS, aggregated.numbers, disaggregated.numbers, strict=True) if a != b]
    assert differ == ["load", "prefill.max_sequences"] or set(differ) <= {"load", "prefill share"}
    assert [name for name, a, b in zip(NAMES, aggregated.names, disaggregated.names, strict=True) if a != b] == ["mode"]


def test_the_load_is_that_of_each_gpu():
    one = features_of(a_config(1), 64)
    four = features_of(replace(a_config(1), layout=Layout(replicas=4)), 256)
    assert one.numbers[NUMBERS.index("load")] == four.numbers[NUMBERS.index("load")] == 6


def test_a_release_that_ran_takes_the_place_of_the_one_that_is_named():
    assert features_of(a_config(), 64, release="9.9").names[NAMES.index("engine.version")] == "9.9"


def test_a_table_knows_what_is_on_and_who_has_prefill_workers():
    rows = [features(), features(variant="graphs"), with_pool()]
    table = FeatureTable.of(rows)
    assert table.is_on("variant").tolist() == [False, True, False]
    assert table.has_pool.tolist() == [False, False, True]
    assert len(table.with_more(table[:2])) == 5
