"""What a benchmark ran on, in one line."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path


def processor() -> str:
    """What the processor is called, with its family and model where they are stated: generations share a name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    about = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = about.get("model name") or platform.processor() or platform.machine()
    return f"{name} (family {about['cpu family']}, model {about['model']})" if "cpu family" in about else name


def machine(*packages: str) -> str:
    """Processor, cores, their vector instructions, and the versions of Python and of `packages`."""
    # Here, since a measured command's peak begins with what this process holds.
    import torch

    from volseg.machine import native_bf16

    vectors = torch.backends.cpu.get_cpu_capability() + (" and bf16" if native_bf16() else "")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("volseg", *packages)]
    python = f"Python {platform.python_version()}"
    return ", ".join([processor(), f"{os.cpu_count()} cores with {vectors}", python, *versions])
