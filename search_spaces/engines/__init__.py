"""Inference engines: what each can do and how it is started. Pure: no process is started, no file is written."""
