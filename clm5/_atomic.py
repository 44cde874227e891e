"""Writing files and folders whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a temporary name beside `path`, then rename it: an interrupted write leaves nothing there.

    Args:
        path: the final name of a file or folder; what is there already is replaced.
        write: receives the temporary path (same suffix, same folder) and writes a file or a folder there.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        temporary = scratch / path.name
        write(temporary)
        if path.is_dir():  # a folder cannot be replaced in one step: the old one goes aside first
            path.rename(scratch / "replaced")
        os.replace(temporary, path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return path
