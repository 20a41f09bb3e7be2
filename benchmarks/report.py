"""How long `servetune report` takes for a study of 300 trials, and how large its page is.

    python benchmarks/report.py [--trials 300] [--experiment gpt-oss-120b-b200-chat]

Tunes into a temporary folder, then runs the command as a user does, each time in a new process. Prints wall and CPU
seconds and bytes. The page is to take under 5 s and 5 MB.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMAND = [sys.executable, "-c", "from tuner.cli import main; main()"]


def run(*arguments: str) -> tuple[float, float]:
    """Wall and CPU seconds of a servetune command."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(
        [*COMMAND, *arguments], check=True, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - began, cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--experiment", default="gpt-oss-120b-b200-chat")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        where = ["--studies", folder]
        wall, _ = run("tune", options.experiment, "--no-track", "--trials", str(options.trials), *where)
        print(f"tuned {options.trials} trials in {wall:.1f} s (load average {os.getloadavg()[0]:.1f})")
        for kind in ("html", "md", "json", "csv"):
            page = Path(folder) / f"report.{kind}"
            taken = [
                run("report", options.experiment, "-o", str(page), "--force", *where) for _ in range(options.repeats)
            ]
            wall, cpu = (sorted(values)[len(values) // 2] for values in zip(*taken, strict=True))
            print(
                f"{kind:5} {wall:5.2f} s wall, {cpu:5.2f} s CPU (medians of {options.repeats}), "
                f"{page.stat().st_size / 1e6:.2f} MB"
            )


if __name__ == "__main__":
    main()
