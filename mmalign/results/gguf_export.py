"""GGUF files from merged models, by llama.cpp's own converter: it alone keeps up with new architectures."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from pathlib import Path

from mmalign.errors import ConfigError

CONVERTER = "convert_hf_to_gguf.py"


def find_converter(folder: Path) -> str:
    """Finds the converter on the PATH; installations of llama.cpp put it there.

    Args:
        folder: that will hold the merged model, for the message.

    Raises:
        ConfigError: there is none; says what to run instead.
    """
    found = shutil.which(CONVERTER)
    if found is None:
        raise ConfigError(
            f"--gguf: llama.cpp's {CONVERTER} is not on the PATH; install llama.cpp, or run `mmalign export RUN "
            f"--merged --output {folder}`, then `python llama.cpp/{CONVERTER} {folder} --outfile {folder}.gguf`"
        )
    return found


def convert_to_gguf(converter: str, folder: Path, output: Path) -> None:
    """Converts a merged model; the file is whole or absent.

    Raises:
        ConfigError: the file exists, or the converter refuses the model; with the last line that it wrote.
    """
    if output.exists():
        raise ConfigError(f"--gguf: {output} exists; give another --output, or remove it")
    partial = output.with_name(f".{secrets.token_hex(4)}.{output.name}")
    try:
        done = subprocess.run(
            [converter, str(folder), "--outfile", str(partial)], capture_output=True, text=True, check=False
        )
        if done.returncode or not partial.is_file():
            reason = (done.stderr.strip().splitlines() or ["it wrote no file"])[-1]
            raise ConfigError(f"--gguf: {CONVERTER} failed on {folder}, which is complete: {reason}")
        partial.rename(output)
    finally:
        partial.unlink(missing_ok=True)
