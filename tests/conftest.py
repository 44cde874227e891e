"""Shared by all tests: where real data may lie, and small sets of columns."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# programs compiled by one test serve the others of the session (its workers inherit the folder), and nobody after it
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="binn-clm5-compiled-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")

# shapes and types in annotations are checked while tests run, and cost nothing otherwise; an int may stand for a float
install_import_hook(
    ["clm5", "binn", "bayes", "comparisons"], "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
)

ROOT = Path(__file__).parent.parent


def shared_folder(name: str) -> Path:
    """`name` ("golden", "data") of the folder of outside data: $BINN_SHARED, or `shared` beside the checkout."""
    return Path(os.environ.get("BINN_SHARED", ROOT.parent / "shared")) / name


@pytest.fixture
def shared_golden() -> Path:
    folder = shared_folder("golden")
    if not folder.is_dir():
        pytest.skip(f"the full golden set is not here: {folder} does not exist (set BINN_SHARED)")
    return folder
