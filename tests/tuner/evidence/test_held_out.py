"""What was set aside before the physics was worked on: one model of each engine, and the last quarter."""

from collections import defaultdict

from runners.recorded.sample import recordings
from tuner.evidence.held_out import LATE_FROM, held_out


def test_each_engine_has_one_model_or_one_format_of_its_only_model_set_aside():
    early = [row for row in recordings().clean if row.date is None or row.date < LATE_FROM]
    aside = defaultdict(set)
    for row in filter(held_out, early):
        aside[row.config.engine.name].add((row.model, row.config.precision.weights))
    assert aside == {
        "sglang": {("deepseek-r1", "fp8_block")},
        "trtllm": {("gpt-oss-120b", "mxfp4"), ("gpt-oss-120b", "mxfp4_mxfp8")},
        "vllm": {("kimi-k2.5", "nvfp4")},
    }
    for engine in aside:
        assert any(row.config.engine.name == engine and not held_out(row) for row in early)


def test_whatever_was_measured_late_is_set_aside():
    late = [row for row in recordings().clean if row.date and row.date >= LATE_FROM]
    assert len(late) > 300
    assert all(map(held_out, late))
