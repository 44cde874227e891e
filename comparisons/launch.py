"""How a command starts JAX: one device per core, and compiled programs that are kept for the next command."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, Token

MOST_DEVICES = 16
VARIABLE = "BINN_COMPILE_CACHE"


def _folder_or_none(_: Any, tokens: Sequence[Token]) -> Path | None:
    """A variable that is set to nothing asks for nothing; `Path("")` would be the working directory."""
    return Path(tokens[0].value) if tokens[0].value else None


@Parameter(name="*", group="Compiling")
@dataclass
class Launch:
    """How a command starts JAX."""

    compile_cache: Annotated[Path | None, Parameter(env_var=VARIABLE, converter=_folder_or_none)] = None
    """folder that keeps compiled programs (made if it is missing): a later command with the same model, sizes and
    number of sites takes them from there and need not compile, which is half of the time of `binn demo`. They serve one
    type of CPU, number of cores and version of JAX; others compile anew. Keep the folder to yourself: what lies in it
    is run"""

    def start(self) -> None:
        """Set JAX up. A command calls it before anything is compiled.

        Raises:
            ValueError: the folder of compiled programs cannot be made or written.
        """
        folder = None if self.compile_cache is None else _writable(self.compile_cache)
        flag = "--xla_force_host_platform_device_count"
        if flag not in os.environ.get("XLA_FLAGS", ""):  # sites are sampled side by side
            devices = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            flags = f"{os.environ.get('XLA_FLAGS', '')} {flag}={min(devices, MOST_DEVICES)}"
            os.environ["XLA_FLAGS"] = flags.strip()
        if folder is not None:
            _keep_programs(folder)


def _writable(folder: Path) -> Path:
    """`folder` as an absolute path, made for its owner alone if it was not there."""
    try:
        folder = folder.expanduser().absolute()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (OSError, RuntimeError) as error:  # RuntimeError: ~name of nobody
        found = "it is a file" if folder.is_file() else getattr(error, "strerror", None) or str(error).rstrip(".")
        raise ValueError(
            f"--compile-cache (or {VARIABLE}): {folder} must be a folder that can be made and written, but: {found}. "
            "Name another one, or none: then every command compiles for itself"
        ) from error


def _keep_programs(folder: Path) -> None:
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    jax.config.update("jax_compilation_cache_dir", str(folder))
    # small ones too: there are about a hundred, a second to compile in all
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    compilation_cache.reset_cache()  # JAX looks at the folder once: for a process that has compiled before
