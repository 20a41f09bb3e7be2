"""Hypothesis looks for new counterexamples on a developer's machine and repeats the same examples in CI."""

import os

from hypothesis import settings

settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
