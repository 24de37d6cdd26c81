"""What every benchmark writes beside its figures, and how."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch


def environment() -> dict[str, str | int]:
    """Return what the figures depend on besides the code."""
    return {
        "python": platform.python_version(),
        "torch": version("torch"),
        "machine": platform.machine(),
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
