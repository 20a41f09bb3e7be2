"""Published recipes of disaggregated runs, against the files themselves as a person reads them."""

from runners.recorded.recipes import Recipe, recipe
from runners.recorded.sample import recordings
from search_spaces.config import Layout


def gb200_recipe(concurrency, *, workers=4):
    """recipes/trtllm/gb200-fp4/1k1k/stp/ctx1_gen4_tep8_batch32_eplb0_mtp0.yaml, concurrencies 12x24x48x96x192."""
    return recipe(
        "trtllm",
        model="deepseek-r1",
        system="gb200-nvl72",
        weights="nvfp4",
        lengths=(1024, 1024),
        concurrency=concurrency,
        prefill=Layout(attention_dp=4, expert=4),
        decode=Layout(tensor=8, expert=8, replicas=workers),
    )


def test_a_recipe_holds_the_limits_that_the_published_file_holds():
    found = gb200_recipe(192)
    assert found is not None
    assert found.decode_sequences == 32
    assert found in {
        Recipe(prefill_sequences=16, prefill_tokens=16384, decode_sequences=32),
        Recipe(prefill_sequences=None, prefill_tokens=None, decode_sequences=32),
    }


def test_a_concurrency_or_a_number_of_workers_that_no_recipe_names_has_none():
    assert gb200_recipe(193) is None
    assert gb200_recipe(192, workers=3) is None


def test_a_recorded_run_is_limited_as_its_recipe_limits_it():
    (row,) = [
        row
        for row in recordings().clean
        if (row.system, row.concurrency, row.release) == ("gb200-nvl72", 192, "0.8.1.post2")
        and row.config.precision.weights == "nvfp4"
        and row.workload.input_tokens.high == 1024
    ]
    assert row.config.batching.max_sequences == 32
