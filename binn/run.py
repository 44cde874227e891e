"""A trained network with its record, and the folder that holds one."""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from flax import nnx
from jaxtyping import Float, Float32

import clm5
from binn import files
from binn.config import Config
from binn.features import Features
from binn.losses import log_soc_errors
from binn.network import ParameterNetwork
from binn.objective import all_parameters, build_network, network_inputs, read_data
from binn.skill import skill_table
from clm5._atomic import write_atomically

if TYPE_CHECKING:
    import xarray as xr

BLOCK = 8192  # sites that are encoded together
PACKAGES = ("binn-clm5", "jax", "flax", "optax", "numpy")  # their versions are recorded


@dataclass(frozen=True)
class Run:
    """A trained network, or several (`members`), with all that is needed to use it and to know where it came from."""

    config: Config
    seed: int
    features: Features
    split: pd.DataFrame  # index site id; columns label, lon, lat (degrees), distance (km to the nearest training site)
    weights: tuple[Any, ...]  # one nnx state per member, float32
    history: pd.DataFrame  # member, epoch, train_loss, validation_loss, validation_nse
    best_epoch: tuple[int, ...]
    sites_fingerprint: str
    n_solves: int  # columns solved while training
    n_gradients: int  # columns differentiated while training
    wall_time: float  # s, compilation included

    def network(self, member: int = 0) -> ParameterNetwork:
        """The trained network of a member."""
        fresh = build_network(self.config, self.features, jax.random.key(0))
        return nnx.merge(nnx.split(fresh)[0], self.weights[member])

    def best_member(self) -> "Run":
        """The run with the one member whose best validation loss is lowest: of several starts, the one that got far."""
        best = int(self.history.groupby("member").validation_loss.min().argmin())
        history = self.history[self.history.member == best].assign(member=0).reset_index(drop=True)
        return replace(
            self,
            config=replace(self.config, members=1),
            weights=(self.weights[best],),
            best_epoch=(self.best_epoch[best],),
            history=history,
        )

    def inputs(self, sites: "xr.Dataset") -> Float32[np.ndarray, "site input"]:
        """What the network reads at `sites`: covariates, and with `config.profile` their forcing and profile."""
        if not self.config.profile:
            return self.features.matrix(sites)
        with jax.enable_x64(True):
            blocks = range(0, sites.sizes["site"], BLOCK)
            parts = [read_data(sites.isel(site=slice(start, start + BLOCK)), self.features) for start in blocks]
            return np.concatenate([np.asarray(network_inputs(part, self.config)) for part in parts])

    def weights_fingerprint(self) -> str:
        """SHA-256, as hex, of the weights of all members."""
        digest = hashlib.sha256()
        for path, leaf in jax.tree.leaves_with_path(self.weights):
            values = np.asarray(leaf)
            digest.update(f"{jax.tree_util.keystr(path)}{values.shape}{values.dtype}".encode() + values.tobytes())
        return digest.hexdigest()

    def dropout_rates(self) -> Float[np.ndarray, "member layer"]:
        """The share of every hidden layer that is switched off: as chosen, or as learned."""
        if not self.config.learn_dropout:
            return np.full((len(self.weights), self.config.depth), self.config.dropout)
        learned = [self.network(member).rates for member in range(len(self.weights))]
        return np.stack([np.asarray(nnx.sigmoid(rates[...])) for rates in learned if rates is not None])

    def predict(self, sites: "xr.Dataset") -> Float[np.ndarray, "site 21"]:
        """Unit parameters without dropout, averaged over members; float64, in (0, 1)."""
        return all_parameters(self.answers(self.inputs(sites)), self.config).mean(axis=0)

    def answers(self, x: Float32[np.ndarray, "site input"]) -> Float[np.ndarray, "member site free"]:
        """What every member answers to rows of inputs, without dropout: its free unit parameters, float64."""
        graph = nnx.split(self.network())[0]
        rows = jnp.asarray(x)
        return np.stack([np.asarray(_answer(weights, rows, graph=graph), np.float64) for weights in self.weights])

    def skill(self, sites: "xr.Dataset") -> pd.DataFrame:
        """How the network without dropout does on measured sites, per label of the split; see `binn.skill_table`."""
        labels, distance = self.labels(sites), self.split.distance.reindex(np.asarray(sites.site.values, dtype=str))
        with jax.enable_x64(True):
            observations = clm5.Observations.from_sites(sites)
            theta = self.config.model.space.physical(jnp.asarray(self.predict(sites)))
            forcing = clm5.Forcing.from_sites(sites, dtype=jnp.float64)
            soc = clm5.simulate(theta, forcing, rules=self.config.model.rules).soc
            error, observed = map(np.asarray, log_soc_errors(soc, observations, self.config.model))
            return skill_table(error, observed, labels, distance.to_numpy(float))

    def labels(self, sites: "xr.Dataset") -> np.ndarray:
        """ "train", "validation" or "test" as in this run, "new" where the site was not in it; (site,) of str.

        Raises ValueError where a site of the run turns up in another place: it would pass as held out, or as seen.
        """
        known = self.split.reindex(np.asarray(sites.site.values, dtype=str))
        inside = known.label.notna().to_numpy()
        for name in ("lon", "lat"):
            moved = inside & ~np.isclose(known[name].to_numpy(float), sites[name].values, atol=1e-4, rtol=0)
            if moved.any():
                at = int(np.argmax(moved))
                raise ValueError(
                    f"site {sites.site.values[at]}: {name} is {sites[name].values[at]:g} here and was "
                    f"{known[name].iloc[at]:g} when the network was trained, as at {moved.sum()} sites. If it is "
                    "another site, give it another id; otherwise correct its place"
                )
        return np.where(inside, known.label.to_numpy(object), "new").astype(str)


@partial(jax.jit, static_argnames="graph")
def _answer(weights, x, *, graph):
    return nnx.merge(graph, weights)(x)


def load(out: str | Path) -> Run:
    """Read a finished run from its folder."""
    folder = Path(out)
    if not (folder / "run.json").exists():
        raise FileNotFoundError(f"{folder} holds no run: it has no run.json, which binn.fit(..., out=...) writes")
    record = _read(folder)
    if "result" not in record:
        raise ValueError(f"{folder} holds an unfinished run; binn.fit with the same arguments finishes it")
    config, features = Config.from_json(record["config"]), Features.from_json(record["features"])
    template = nnx.split(build_network(config, features, jax.random.key(0)))[1]
    saved = files.read_record(folder / "weights.msgpack")
    return Run(
        config=config,
        seed=record["seed"],
        features=features,
        split=pd.DataFrame(record["split"]).set_index("site"),
        weights=tuple(
            jax.tree.map(np.asarray, files.restore(template, saved[str(member)])) for member in range(config.members)
        ),
        history=_read_history(folder / "history.csv"),
        sites_fingerprint=record["sites_fingerprint"],
        **{**record["result"], "best_epoch": tuple(record["result"]["best_epoch"])},
    )


def claim(folder: Path, identity: dict, *, resume: bool) -> bool:
    """Make `folder` the home of the run with this identity (config, seed, data); whether it is finished there already.

    Raises FileExistsError where a run is there and `resume` is false; ValueError where it is another run.
    """
    path = folder / "run.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        files.write_json(path, _record(identity))
        return False
    if not resume:
        raise FileExistsError(f"{folder} holds a run already; give another folder, or resume=True to continue it")
    record = _read(folder)
    before, now = _fields(record), _fields(identity)
    different = [name for name in sorted(before | now) if before.get(name) != now.get(name)]
    if different:
        changes = "; ".join(f"{name} was {before.get(name)!r}, is {now.get(name)!r}" for name in different)
        raise ValueError(f"{folder} holds another run: {changes}. Give another folder, or the arguments of that run")
    return "result" in record


def save(run: Run, folder: Path, identity: dict) -> None:
    """Write weights and history, and last the record that calls the run finished."""
    members = {str(member): files.flat(weights) for member, weights in enumerate(run.weights)}
    files.write_record(folder / "weights.msgpack", members)
    write_atomically(folder / "history.csv", lambda part: run.history.to_csv(part, index=False))
    record = _record(identity) | {
        "features": run.features.to_json(),
        "split": run.split.reset_index().to_dict("list"),
        "result": {
            "best_epoch": list(run.best_epoch),
            "n_solves": run.n_solves,
            "n_gradients": run.n_gradients,
            "wall_time": run.wall_time,
        },
    }
    files.write_json(folder / "run.json", record)


def _read_history(path: Path) -> pd.DataFrame:
    """Numbers by way of text: Python reads a float back exactly, pandas does not in every version."""
    text = pd.read_csv(path, dtype=str)
    return text.astype({name: int if name in ("member", "epoch") else float for name in text.columns})


def _record(identity: dict) -> dict:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # used from a checkout, not installed
            continue
    return {"format": files.FORMAT, **identity, "versions": versions}


def _read(folder: Path) -> dict:
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    if record.get("format") != files.FORMAT:
        raise ValueError(f"{folder} was written in format {record.get('format')}; this version reads {files.FORMAT}")
    return record


def _fields(record: dict) -> dict:
    """What makes a run that run, one value per name; what an earlier version did not know yet is as by default."""
    return {
        "seed": record["seed"],
        "sites_fingerprint": record["sites_fingerprint"],
        **flat_config(Config.from_json(record["config"])),
    }


def flat_config(config: Config) -> dict:
    """One value per name, those of the model as "model.name"."""
    fields = config.to_json()
    return {
        **{name: value for name, value in fields.items() if name != "model"},
        **{f"model.{name}": value for name, value in fields["model"].items()},
    }
