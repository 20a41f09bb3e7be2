"""The schema that editors complete experiments from."""

import json
import subprocess
import sys
from pathlib import Path

from tuner.scenario.experiment.schema import schema

ROOT = Path(__file__).parents[4]


def test_the_schema_in_the_repository_is_that_of_the_reader():
    command = [sys.executable, "-m", "tuner.scenario.experiment.schema"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    assert printed == schema()
    committed = (ROOT / "experiments" / "experiment.schema.json").read_text(encoding="utf-8")
    assert committed == printed, "run: python -m tuner.scenario.experiment.schema > experiments/experiment.schema.json"


def test_the_schema_completes_names():
    properties = json.loads(schema())["properties"]
    assert "gpt-oss-120b" in properties["model"]["anyOf"][0]["enum"]
    assert "gb300-nvl72" in properties["system"]["anyOf"][0]["enum"]
    assert "vllm@0.27.0" in properties["engines"]["items"]["anyOf"][0]["enum"]
    assert "ttft_ms_p99" in properties["sla"]["properties"]
    assert "layout.tensor" in properties["space"]["properties"]
