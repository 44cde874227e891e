"""The whole chain on one site file: train, draw, sample, compare, report; every step resumable."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr

import bayes
import binn
import clm5
from binn.uncertainty import default_method, refuse_method
from comparisons.cautions import LEAST_DRAWS
from comparisons.compare import compare
from comparisons.html import report
from comparisons.methods import words
from comparisons.verdict import headline


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the chain does with a site file.

    network, sampler: how the two ways work; they must share `model`.
    sampled: number of sites that MCMC runs on; half of them, if there are as many, the network has not seen.
    draws: of the network at every site; an ensemble has its members instead.
    seed: of every random choice.
    method: how the network's draws are made, see `binn.posterior`; None: by its loss, "mc_dropout" or "amortised".
    """

    network: binn.Config
    sampler: bayes.Config
    sampled: int
    draws: int = 400
    seed: int = 0
    method: str | None = None

    def __post_init__(self):
        if self.network.model != self.sampler.model:
            raise ValueError(
                f"Plan: network and sampler must share one model; got {self.network.model} and {self.sampler.model}"
            )
        if self.sampler.keep != "draws":
            raise ValueError(f"Plan: a comparison needs the sampler's draws: keep is {self.sampler.keep!r}")
        if self.sampled < 2:
            raise ValueError(f"Plan: a correlation over sites needs at least 2 sampled sites, got {self.sampled}")
        object.__setattr__(self, "method", chosen_method(self.network, self.method))
        draws = self.network.members * (1 if self.method == "ensemble" else self.draws)
        if draws < LEAST_DRAWS:
            lack = "members" if self.method == "ensemble" else "draws"
            raise ValueError(f"Plan: a comparison needs {LEAST_DRAWS} draws of the network or more: {lack} is {draws}")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Where things are, and how long they took."""

    page: Path
    result: xr.Dataset
    seconds: dict[str, float]


def run_chain(
    sites: xr.Dataset,
    plan: Plan,
    out: str | Path,
    *,
    progress: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Train on all sites, sample some, compare, and write the report.

    Leaves `sites.nc`, `network/` (run and `posterior.nc`), `sampler/` (batches and `posterior.nc`) and `report/` in
    `out`. Started again with the same arguments, it takes up what is there and ends with the same numbers.

    Args:
        sites: a checked site data set.
        plan: what to do.
        out: a folder, which may hold an interrupted run of the same plan.
        progress: show bars.
        say: receives a line per finished step.

    Raises:
        ValueError: if `out` holds another plan's or other sites' work, and for sites that cannot be used.
        FileExistsError: if `out` holds a finished report.
    """
    out = Path(out)
    if (out / "report").exists():
        raise FileExistsError(f"{out / 'report'} exists: this chain is finished. Name another folder")
    clm5.sites.check(sites)
    if plan.sampled > sites.sizes["site"]:
        raise ValueError(f"{plan.sampled} sites are to be sampled, but the site file holds {sites.sizes['site']}")
    kept = out / "sites.nc"
    if kept.exists() and clm5.sites.fingerprint(clm5.sites.open(kept)) != clm5.sites.fingerprint(sites):
        raise ValueError(f"{out} holds a chain on other sites ({kept}). Name another folder, or give that site file")
    seconds: dict[str, float] = {}

    def step(name: str, work: Callable, describe: Callable[..., str]):
        began = time.perf_counter()
        value = work()
        seconds[name] = time.perf_counter() - began
        say(f"{describe(value)}  ({seconds[name]:.0f} s)")
        return value

    out.mkdir(parents=True, exist_ok=True)
    if not kept.exists():
        clm5.sites.save(sites, kept)
    run = step(
        "train",
        lambda: binn.fit(sites, plan.network, out=out / "network", seed=plan.seed, progress=progress),
        lambda run: f"network trained: {describe_training(run)}",
    )
    network = step(
        "draw",
        lambda: _network_posterior(run, sites, plan, out / "network" / "posterior.nc"),
        lambda tree: f"network posterior: {describe_draws(tree)}",
    )
    subset = sites.isel(site=sites_to_sample(run.labels(sites), plan.sampled, plan.seed))
    sampler = step(
        "sample",
        lambda: bayes.sample(subset, plan.sampler, out=out / "sampler", seed=plan.seed, progress=progress),
        lambda tree: f"sampler: {describe_sampling(tree)}",
    )

    def write():
        result = compare(network, sampler, sites, seed=plan.seed)
        return result, report(result, network, sampler, sites, out=out / "report")

    result, page = step("report", write, lambda pair: f"report: {pair[1]}")
    say(headline(result))
    return Outcome(page, result, seconds)


def sites_to_sample(labels: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Positions of `n` sites for the sampler, in order: half held out from the network if there are as many.

    Agreement at sites that the network was fitted to says less than agreement at sites it never saw.
    """
    rng = np.random.default_rng(seed)
    held_out = rng.permutation(np.flatnonzero(labels == "test"))[: (n + 1) // 2]
    rest = rng.permutation(np.setdiff1d(np.arange(len(labels)), held_out))[: n - len(held_out)]
    return np.sort(np.concatenate([held_out, rest]))


def chosen_method(config: binn.Config, method: str | None) -> str:
    """How the network's draws are made: as asked, or by its loss. ValueError where that network cannot be asked so."""
    method = default_method(config) if method is None else method
    refuse_method(config, method)
    return method


def describe_draws(tree: xr.DataTree) -> str:
    """One line: how many draws, of which kind, at how many sites."""
    sizes, attrs = tree["posterior"].sizes, {str(key): value for key, value in tree.attrs.items()}
    return f"{sizes['chain'] * sizes['draw']} {words(attrs).draws} at {sizes['site']} sites"


def describe_training(run: binn.Run) -> str:
    """One line: sites, epochs, skill on validation sites."""
    counts = ", ".join(f"{count} {label}" for label, count in run.split.label.value_counts().items())
    rows = run.history.set_index(["member", "epoch"])
    best = [float(rows.validation_nse.loc[at]) for at in enumerate(run.best_epoch)]
    if len(best) == 1:
        return f"{counts} sites; best epoch {run.best_epoch[0]}, validation NSE of ln SOC {best[0]:.2f}"
    epochs = ", ".join(map(str, run.best_epoch))
    return f"{counts} sites; best epochs {epochs}, validation NSE of ln SOC {min(best):.2f} to {max(best):.2f}"


def describe_sampling(tree: xr.DataTree) -> str:
    """One line: sites and whether the chains converged, by the limits that publication asks for."""
    return bayes.verdict(bayes.summary(tree)).splitlines()[0]


def _network_posterior(run: binn.Run, sites: xr.Dataset, plan: Plan, path: Path) -> xr.DataTree:
    """The network's posterior file, made anew: it takes seconds, and follows from the run."""
    tree = binn.posterior(run, sites, draws=plan.draws, method=str(plan.method), seed=plan.seed)
    clm5.save_posterior(tree, path)
    return tree
