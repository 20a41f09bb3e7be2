"""The runs of gpt-oss-120b that were recorded on B200, as an experiment."""

from tuner.scenario.experiment.reading import read_experiment
from tuner.scenario.recorded import experiment_text, recorded_cases

GPT_OSS = "gpt-oss-120b-b200-1024-1024"


def asked(folder, **changes):
    """The experiment of gpt-oss-120b on B200, some of its lines changed."""
    lines = experiment_text(recorded_cases()[GPT_OSS]).splitlines()
    for key, value in changes.items():
        lines = [line for line in lines if not line.startswith(f"{key}:")]
        lines.append(f"{key}: {value}")
    path = folder / "experiment.yaml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_experiment(path)
