"""An answer as Markdown."""

from tests.scenarios import CONFIG, answer_of, level, measured
from tuner.search.trial import Trial
from tuner.show.markdown import to_markdown


def test_the_description_begins_with_the_experiment_and_gives_the_verdict():
    text = to_markdown(answer_of(measured(1, level(4000)), baseline=measured(0, level(2000))))
    assert text.startswith("**Experiment.** The cheapest way to serve gpt-oss-120b on 8 GPUs of ")
    assert "$2.00 ($/M output tokens), trial 1, meets the SLA" in text
    assert "50% cheaper" in text


def test_the_description_says_when_no_configuration_meets_the_sla():
    missed = measured(2, level(8000, tpot_ms=22))
    failed = Trial(number=4, ending="failed", config=CONFIG, cause="died")
    assert "comes nearest, but no configuration meets the SLA" in to_markdown(answer_of(missed))
    assert "No configuration could be served" in to_markdown(answer_of(failed))
