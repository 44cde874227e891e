"""The folder of a sampling run: what it was asked for, one file per finished batch, so that a killed run goes on."""

import hashlib
import json
import os
from importlib.metadata import version
from pathlib import Path

import numpy as np

from clm5._atomic import write_atomically

FORMAT = 1
REQUEST = "run.json"
POSTERIOR = "posterior.nc"


class RunFolder:
    """A folder in which finished batches are kept.

    Args:
        path: the folder; made if it is not there.
        request: everything that the draws depend on, JSON-like. A folder that was made for another request is refused.
        resume: go on with what is there. Otherwise a folder that holds a run is refused.

    Raises:
        ValueError: the folder holds the batches of another request; the message names what differs.
        FileExistsError: `resume` is False and the folder holds a run.
    """

    def __init__(self, path: str | os.PathLike, request: dict, *, resume: bool = True):
        self.path = Path(path)
        request = json.loads(json.dumps({"format": FORMAT, **request}))
        recorded = self.path / REQUEST
        if recorded.exists():
            if not resume:
                raise FileExistsError(
                    f"{self.path} holds a sampling run. Pass resume=True to go on with it, or choose another folder."
                )
            _refuse_other(self.path, _read_request(recorded), request)
        else:
            versions = {name: version(name) for name in ("jax", "numpyro", "numpy")}
            text = json.dumps({"request": request, "versions": versions}, indent=2, ensure_ascii=False)
            write_atomically(recorded, lambda part: part.write_text(text, encoding="utf-8"))

    @property
    def posterior(self) -> Path:
        """Where the finished posterior file belongs."""
        return self.path / POSTERIOR

    def _file(self, ids: list[str]) -> Path:
        """A batch is named by its sites: the first one for people, a hash of all for certainty."""
        digest = hashlib.sha256("\n".join(ids).encode()).hexdigest()[:12]
        readable = "".join(c if c.isalnum() or c in "-_" else "_" for c in ids[0])[:40]
        return self.path / "batches" / f"{readable}-{digest}.npz"

    def load(self, ids: list[str]) -> dict[str, np.ndarray] | None:
        """The arrays of a finished batch of these sites, or None."""
        file = self._file(ids)
        if not file.exists():
            return None
        with np.load(file, allow_pickle=False) as stored:
            return dict(stored)

    def save(self, ids: list[str], arrays: dict[str, np.ndarray]) -> None:
        """Keep a finished batch; the file appears complete or not at all."""
        write_atomically(self._file(ids), lambda part: np.savez_compressed(part, allow_pickle=False, **arrays))


def _read_request(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["request"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the record of a sampling run ({error}); choose another folder") from error


def _refuse_other(path: Path, found: dict, wanted: dict) -> None:
    found, wanted = _flat(found), _flat(wanted)
    names = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    if names:
        listed = "; ".join(f"{name}: {found.get(name)!r} there, {wanted.get(name)!r} now" for name in names)
        raise ValueError(f"{path} holds a run that was asked for something else ({listed}). Choose another folder.")


def _flat(tree: dict, prefix: str = "") -> dict:
    """{"a": {"b": 1}} → {"a.b": 1}."""
    flat: dict = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
