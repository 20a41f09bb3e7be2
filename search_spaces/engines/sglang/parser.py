"""SGLang's argument parser. Run inside SGLang's own environment, as text: it imports nothing of servetune."""

import argparse
from importlib import import_module


def declared() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    import_module("sglang.srt.server_args").ServerArgs.add_cli_args(parser)
    return parser
