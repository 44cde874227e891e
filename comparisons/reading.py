"""From a posterior file to the plain arrays that the measures need, for the sites that all have in common."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from clm5.parameters import NAMES
from clm5.six_processes import PROCESSES

WAYS = ("network", "sampler")
FORCED = "carbon_input"  # plant carbon input: the same forcing in both ways
UNSEEN = ("test", "new")  # labels of sites that neither trained nor stopped the network
DROPOUT = ("mc_dropout", "mc-dropout", "ensemble")  # a chain is a trained member here, so R-hat does not apply


@dataclass(frozen=True)
class Way:
    """One way's posterior over the common sites.

    theta, unit: (chain, draw, site, parameter), physical and in [0, 1]. process: (chain, draw, site, process).
    soc: (chain, draw, site, layer), gC m⁻³. predicted: (chain, draw, site, horizon), with observation error.
    prior_process: (draw, site, process). observed, upper, lower: (site, horizon). truth: {"parameter", "process"}
    → (site, ·), where known. split: (site,) or None. diverging: (chain, draw, site) or None.
    """

    name: str
    attrs: Mapping[str, object]
    theta: np.ndarray
    unit: np.ndarray
    process: np.ndarray
    soc: np.ndarray
    predicted: np.ndarray
    prior_process: np.ndarray
    processes: tuple[str, ...]
    layer: np.ndarray
    observed: np.ndarray
    upper: np.ndarray
    lower: np.ndarray
    split: np.ndarray | None = None
    diverging: np.ndarray | None = None
    truth: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def is_dropout(self) -> bool:
        """Whether a chain is a trained member and a draw a dropout mask."""
        return str(self.attrs.get("method", "")) in DROPOUT

    @property
    def held_out(self) -> np.ndarray:
        """Sites that the network did not see, labelled "test" or "new", (site,); none where the file has no split."""
        if self.split is None:
            return np.zeros(len(self.observed), bool)
        return np.array([str(label).lower() in UNSEEN for label in self.split])


def read(tree: xr.DataTree, name: str, ids: list[str]) -> Way:
    """Arrays of one posterior file, sites in the order of `ids`.

    Raises:
        ValueError: a group or variable is missing, or the parameters are not the 21 of the model; the message names
            the way and what was looked for.
    """
    posterior = _pick(tree, name, "posterior", ids)
    process, processes = _process(posterior, name)
    parameters = tuple(str(p) for p in posterior.parameter.values)
    if parameters != NAMES:
        raise ValueError(f"{name}: the parameters of its posterior are {parameters}, expected {NAMES}")
    known = _pick(tree, name, "constant_data", ids)
    four = ("chain", "draw", "site", ...)
    predictive = _pick(tree, name, "posterior_predictive", ids)
    stats = _pick(tree, name, "sample_stats", ids) if "sample_stats" in tree.children else xr.Dataset()
    prior = _process(_pick(tree, name, "prior", ids), name)[0]
    truth = {}
    if "true_theta" in known:
        truth["parameter"] = known.true_theta.transpose("site", "parameter").values
    for candidate in known:
        if str(candidate).startswith("true_process"):
            truth["process"] = known[candidate].transpose("site", ...).values
    return Way(
        name=name,
        attrs={str(key): value for key, value in tree.attrs.items()},
        theta=_values(posterior, "theta", name, four),
        unit=_values(posterior, "unit", name, four),
        process=process.transpose(*four).values,
        soc=_values(posterior, "soc", name, four),
        predicted=_values(predictive, "soc_observed", name, four),
        prior_process=np.concatenate(list(prior.transpose(*four).values)),
        processes=processes,
        layer=posterior.layer.values.astype(float),
        observed=_values(_pick(tree, name, "observed_data", ids), "soc_observed", name, ("site", "horizon")),
        upper=_values(known, "upper", name, ("site", "horizon")),
        lower=_values(known, "lower", name, ("site", "horizon")),
        split=known.split.values.astype(str) if "split" in known else None,
        diverging=stats.diverging.transpose(*four).values if "diverging" in stats else None,
        truth=truth,
    )


def common_sites(network: xr.DataTree, sampler: xr.DataTree, sites: xr.Dataset) -> list[str]:
    """Ids that all three hold, in the order of `sites`.

    Raises:
        ValueError: there is none; the message shows what each holds.
    """
    held = {"network": _ids(network["posterior"]), "sampler": _ids(sampler["posterior"]), "sites": _ids(sites)}
    ids = [i for i in held["sites"] if i in set(held["network"]) & set(held["sampler"])]
    if not ids:
        shown = "; ".join(f"{who} has {len(which)} ({', '.join(which[:3])}, …)" for who, which in held.items())
        raise ValueError(f"no common sites: {shown}. Were both run on this site data set?")
    return ids


def _ids(group) -> list[str]:
    return [str(i) for i in group["site"].values]


def _pick(tree: xr.DataTree, name: str, group: str, ids: list[str]) -> xr.Dataset:
    if group not in tree.children:
        raise ValueError(f"{name}: no group {group!r} in its posterior file; it has {sorted(tree.children)}")
    dataset = tree[group].to_dataset()
    if "site" not in dataset.dims:
        return dataset
    where = {i: k for k, i in enumerate(_ids(dataset if "site" in dataset.coords else tree["posterior"]))}
    return dataset.isel(site=[where[i] for i in ids])


def _process(dataset: xr.Dataset, name: str) -> tuple[xr.DataArray, tuple[str, ...]]:
    """The process draws and their names: the variable whose last axis is called after processes, whatever its own name.

    (xarray does not let a variable with several axes share the name of one that carries labels.)
    """
    for values in dataset.data_vars.values():
        axis = str(values.dims[-1]) if values.ndim > 1 else ""
        if axis.startswith("process"):
            labels = dataset[axis].values if axis in dataset.coords else PROCESSES
            return values, tuple(str(label) for label in labels)
    raise ValueError(f"{name}: no process draws (…, site, process) among {sorted(map(str, dataset.variables))}")


def _values(dataset: xr.Dataset, variable: str, name: str, dims) -> np.ndarray:
    if variable not in dataset:
        raise ValueError(f"{name}: no variable {variable!r} in its posterior file, only {sorted(map(str, dataset))}")
    return dataset[variable].transpose(*dims).values
