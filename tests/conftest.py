"""Shared by all tests: where real data may lie, and small sets of columns."""

import os
from pathlib import Path

import pytest

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
