"""The machine that measures: its GPUs and their driver, as the driver tells."""

import shutil
import subprocess

LIMIT_S = 10.0


def machine() -> dict[str, str]:
    """`{"gpu": "8 x NVIDIA B200", "driver": "580.95"}`; empty where there is no NVIDIA driver that answers."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return {}
    try:
        found = subprocess.run(  # noqa: S603 an argument list
            [command, "--query-gpu=name,driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return read_machine(found.stdout) if found.returncode == 0 else {}


def read_machine(text: str) -> dict[str, str]:
    """What lines such as `NVIDIA B200, 580.95` say."""
    rows = [tuple(part.strip() for part in line.split(",")) for line in text.splitlines() if line.count(",") == 1]
    if not rows:
        return {}
    names = sorted({name for name, _ in rows})
    counted = ", ".join(f"{sum(row[0] == name for row in rows)} x {name}" for name in names)
    return {"gpu": counted, "driver": ", ".join(sorted({driver for _, driver in rows}))}
