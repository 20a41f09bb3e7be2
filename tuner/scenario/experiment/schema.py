"""The JSON schema of an experiment file, for editors' completion: `python -m tuner.scenario.experiment.schema`."""

import json
import sys

from tuner.scenario.experiment.experiment import Experiment


def schema() -> str:
    """JSON schema of an experiment file, for editors' completion."""
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Experiment.model_json_schema(mode="validation"),
    }
    return json.dumps(document, indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema())
