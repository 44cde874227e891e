"""Train the network through the column: `fit`."""

import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import jax
import numpy as np
import pandas as pd
from flax import nnx

import clm5
from binn import files
from binn.batches import Batches
from binn.config import Config as Config
from binn.features import Features
from binn.history import plot_history
from binn.objective import build_network, columns_per_site
from binn.optimiser import optimiser
from binn.progress import training_progress
from binn.run import Run as Run
from binn.run import claim, save
from binn.run import load as load
from binn.splits import distances, split
from binn.steps import evaluate, not_finite, split_state, step

if TYPE_CHECKING:
    import xarray as xr


def fit(
    sites: "xr.Dataset",
    config: Config | None = None,
    out: str | Path | None = None,
    *,
    seed: int = 0,
    resume: bool = True,
    progress: bool = True,
    checkpoint_every: int = 10,
) -> Run:
    """Train `config.members` networks on a site data set, and keep the weights of the best validation loss.

    Args:
        sites: a site data set with covariates and observations (see `clm5.sites`); it is checked first.
        config: how to train, default `Config()`.
        out: a folder for weights, history (also as history.png) and record; None keeps the run in memory.
        seed: of first weights, batches and dropout. The split has its own, `config.split_seed`.
        resume: continue what an earlier call with the same arguments left in `out`, to the same numbers as if it had
            never stopped; a finished run is only read. False refuses a folder that holds a run.
        progress: show epochs and losses; silent where the output is not a terminal.
        checkpoint_every: epochs between two savings to `out`, 1 or more.

    Returns:
        The run: weights of the best epoch of every member, history, split and counts.

    Raises:
        ValueError: unusable sites or arguments; a folder that holds another run (other config, seed or data).
        FileExistsError: `resume` is False and `out` holds a run.
        FloatingPointError: a loss or gradient that is not finite; names sites and epoch.
    """
    config = Config() if config is None else config
    if checkpoint_every < 1:
        raise ValueError(f"binn.fit: checkpoint_every must be a whole number, 1 or more, got {checkpoint_every!r}")
    clm5.sites.check(sites, block=config.sites_in_memory or None)
    labels = split(sites, config.split, seed=config.split_seed, folds=config.folds, fold=config.fold)
    features = Features.fit(sites, labels == "train", missing=config.missing, coordinates=config.coordinates)
    identity: dict[str, Any] = {
        "config": config.to_json(),
        "seed": int(seed),
        "sites_fingerprint": clm5.sites.fingerprint(sites),
    }
    folder = None if out is None else Path(out)
    if folder is not None and claim(folder, identity, resume=resume):
        return load(folder)

    places = pd.DataFrame(
        {
            "label": labels,
            "lon": np.asarray(sites.lon, float),
            "lat": np.asarray(sites.lat, float),
            "distance": distances(sites, labels),
        },
        index=pd.Index(np.asarray(sites.site.values, dtype=str), name="site"),
    )
    with jax.enable_x64(True):  # the column in float64; the network's arrays are float32 by their own dtype
        batches = Batches(
            sites,
            features,
            np.flatnonzero(labels == "train"),
            np.flatnonzero(labels == "validation"),
            batch_size=config.batch_size,
            sites_in_memory=config.sites_in_memory,
        )
        trainer = _Trainer(config, seed, features, batches, places, folder, identity, checkpoint_every)
        members = [trainer.train(member, show=progress) for member in range(config.members)]
    run = Run(
        config=config,
        seed=int(seed),
        features=features,
        split=places,
        weights=tuple(jax.tree.map(np.asarray, member.best) for member in members),
        history=pd.DataFrame(
            [{"member": number, **row} for number, member in enumerate(members) for row in member.history]
        ),
        best_epoch=tuple(member.best_epoch for member in members),
        sites_fingerprint=identity["sites_fingerprint"],
        n_solves=sum(member.n_solves for member in members),
        n_gradients=sum(member.n_gradients for member in members),
        wall_time=sum(member.wall_time for member in members),
    )
    if folder is not None:
        save(run, folder, identity)
        plot_history(run, folder / "history.png")
    return run


@dataclass
class _Member:
    """One network on its way: all that the next epoch depends on."""

    params: Any
    state: Any
    best: Any
    best_loss: float = np.inf
    best_epoch: int = 0
    epoch: int = 0
    n_solves: int = 0
    n_gradients: int = 0
    wall_time: float = 0.0
    history: list[dict] = field(default_factory=list)

    TREES: ClassVar = ("params", "state", "best")
    NUMBERS: ClassVar = ("best_loss", "best_epoch", "epoch", "n_solves", "n_gradients", "wall_time", "history")


class _Trainer:
    """The training loop of one run, over members and epochs."""

    def __init__(self, config, seed, features, batches, places, folder, identity, checkpoint_every):
        self.config, self.batches, self.places, self.folder = config, batches, places, folder
        self.features = features
        self.key = jax.random.key(seed)
        self.identity, self.checkpoint_every = json.dumps(identity, sort_keys=True), checkpoint_every
        # what a step does not depend on is blanked, so that runs that differ in it share the compiled step
        compiled = replace(
            config,
            split="random",
            split_seed=0,
            folds=2,
            fold=0,
            members=1,
            patience=1,
            epochs=1,
            batch_size=1,
            sites_in_memory=0,
        )
        self.shared = {"config": compiled, "spans": features.categories}
        self.static = {
            **self.shared,
            "steps": batches.steps * config.epochs,
            "steps_per_epoch": batches.steps if config.learn_dropout else 0,
        }

    def train(self, number: int, *, show: bool) -> _Member:
        """Train member `number` to its end, from its checkpoint where there is one."""
        began = time.perf_counter()
        key = jax.random.fold_in(self.key, number)
        member, graph = self._begin(number, key)
        before = member.wall_time
        patience, epochs = self.config.patience, self.config.epochs
        with training_progress(epochs, number, self.config.members, show=show) as report:
            while member.epoch < epochs and member.epoch - member.best_epoch < patience:
                row = self._epoch(member, graph, jax.random.fold_in(key, member.epoch + 1))
                member.wall_time = before + time.perf_counter() - began
                report(row)
                if self.folder is not None and member.epoch % self.checkpoint_every == 0:
                    self._keep(number, member)
        if self.folder is not None:
            self._keep(number, member)
        return member

    def _begin(self, number, key) -> tuple[_Member, Any]:
        network = build_network(self.config, self.features, jax.random.fold_in(key, 0))
        graph, params = nnx.split(network)
        params = self.batches.everywhere(params)
        member = _Member(params, optimiser(self.config, self.static["steps"]).init(split_state(params)[0]), params)
        path = None if self.folder is None else _checkpoint(self.folder, number)
        if path is not None and path.exists():
            record = files.read_record(path)
            if record["identity"] != self.identity:
                raise ValueError(
                    f"{path} belongs to a run of another config, seed or data; delete it or use another folder"
                )
            for name in _Member.TREES:
                setattr(member, name, self.batches.everywhere(files.restore(getattr(member, name), record[name])))
            for name in _Member.NUMBERS:
                setattr(member, name, record[name])
        return member, graph

    def _keep(self, number, member) -> None:
        record = {"identity": self.identity}
        record |= {name: files.flat(getattr(member, name)) for name in _Member.TREES}
        record |= {name: getattr(member, name) for name in _Member.NUMBERS}
        files.write_record(_checkpoint(self.folder, number), record)

    def _epoch(self, member: _Member, graph, key) -> dict:
        """One pass over the training sites, in a fresh order; then the validation sites. Returns the history's row."""
        order_key, *keys = jax.random.split(key, self.batches.steps + 1)
        losses = []
        for batch, step_key in zip(self.batches.epoch(order_key), keys, strict=True):
            params, state, loss, length = step(member.params, member.state, batch, step_key, graph=graph, **self.static)
            losses.append(float(loss))
            if not np.isfinite([losses[-1], float(length)]).all():
                self._refuse_nonfinite(member, graph, batch, step_key)
            member.params, member.state = params, state
        scores = evaluate(member.params, self.batches.validating(), graph=graph, config=self.static["config"])
        if not np.isfinite(scores.loss):
            bad = self.batches.validation_sites[~np.isfinite(scores.site_loss)]
            self._raise_nonfinite(bad, (), member.epoch + 1, "validation")
        member.epoch += 1
        solves, gradients, validating = columns_per_site(self.config, self.batches.horizons)
        member.n_solves += solves * len(keys) * self.batches.batch + validating * len(self.batches.validation_sites)
        member.n_gradients += gradients * len(keys) * self.batches.batch
        if float(scores.loss) < member.best_loss:
            member.best, member.best_loss, member.best_epoch = member.params, float(scores.loss), member.epoch
        row = {
            "epoch": member.epoch,
            "train_loss": float(np.mean(losses)),
            "validation_loss": float(scores.loss),
            "validation_nse": float(scores.nse),
        }
        member.history.append(row)
        return row

    def _refuse_nonfinite(self, member, graph, batch, key) -> NoReturn:
        bad, by_parameter = map(np.asarray, not_finite(member.params, batch, key, graph=graph, **self.shared))
        parameters = np.array(self.config.parameters)[by_parameter.any(axis=0)]
        self._raise_nonfinite(np.asarray(batch.site)[bad], parameters, member.epoch + 1, "training")

    def _raise_nonfinite(self, sites, parameters, epoch, which) -> NoReturn:
        names = list(self.places.index[sites])
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        by = f", by parameter(s) {', '.join(parameters)}" if len(parameters) else ""
        cause = (
            f"at site(s) {shown}{by}. Look at their observations and forcing; bounds with turnover times of 0 can do "
            "it too"
            if names
            else "and no single site is the cause: the weights ran away. Lower learning_rate or gradient_clip"
        )
        raise FloatingPointError(f"binn.fit: the {which} loss or its gradient is not finite in epoch {epoch}, {cause}")


def _checkpoint(folder: Path, number: int) -> Path:
    return folder / f"member-{number}.checkpoint.msgpack"
