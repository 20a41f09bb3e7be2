"""Inference engines: what each can do and how it is told. Pure: no process is started, no file is written."""
