"""From a posterior file to the plain arrays that the measures need, for the sites that all have in common."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from clm5.parameters import NAMES
from clm5.six_processes import PROCESSES
from comparisons import methods

WAYS = ("network", "sampler")
FORCED = "carbon_input"  # plant carbon input: the same forcing in both ways
UNSEEN = ("test", "new")  # labels of sites that neither trained nor stopped the network

DIAGNOSTICS = ("rhat", "ess_bulk", "ess_tail")


@dataclass(frozen=True)
class Way:
    """One way's posterior over the common sites.

    theta, unit: (chain, draw, site, parameter), physical and in [0, 1]. process: (chain, draw, site, process).
    soc: (chain, draw, site, layer), gC m⁻³. predicted: (chain, draw, site, horizon), with observation error.
    prior_process: (draw, site, process). observed, upper, lower: (site, horizon). truth: {"parameter", "process"}
    → (site, ·), where known. split: (site,) or None. diverging, tree_depth, n_steps: (chain, draw, site) or None.
    diagnostics: rhat, ess_bulk and ess_tail, (site, parameter) each, where the file holds them. file_sites: how many
    sites the whole file holds, the ones that its costs are for.
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
    tree_depth: np.ndarray | None = None
    n_steps: np.ndarray | None = None
    diagnostics: Mapping[str, np.ndarray] = field(default_factory=dict)
    file_sites: int = 0
    truth: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def independent(self) -> bool:
        """Whether draws are independent, and chains, if there are several, trained members."""
        return methods.independent(self.attrs)

    @property
    def n_draws(self) -> int:
        """Draws per site, over all chains."""
        return self.unit.shape[0] * self.unit.shape[1]

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

    def of_steps(variable):
        return stats[variable].transpose(*four).values if variable in stats else None

    truth = {}
    if "true_theta" in known:
        truth["parameter"] = known.true_theta.transpose("site", "parameter").values
    named = [str(v) for v in known if str(v).startswith("true_process")]  # ours are true_processes
    if named:
        chosen = "true_processes" if "true_processes" in named else named[0]
        truth["process"] = known[chosen].transpose("site", ...).values
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
        diverging=of_steps("diverging"),
        tree_depth=of_steps("tree_depth"),
        n_steps=of_steps("n_steps"),
        diagnostics=_diagnostics(tree, name, ids),
        file_sites=tree["posterior"].sizes["site"],
        truth=truth,
    )


def common_sites(network: xr.DataTree, sampler: xr.DataTree, sites: xr.Dataset) -> list[str]:
    """Ids that all three hold, in the order of `sites`.

    Raises:
        ValueError: there is none; the message shows what each holds.
    """
    for who, tree in (("network", network), ("sampler", sampler)):
        if "posterior" not in tree.children:
            raise ValueError(
                f"{who}: its posterior file holds no draws (groups: {', '.join(tree.children)}). A file of "
                "a sampler with keep='summary' cannot be compared: sample with keep='draws', thinned"
            )
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
    """The process draws and their names: `processes`, or in a foreign file the first variable whose last axis is
    called "process…".

    (xarray does not let a variable with several axes share the name of one that carries labels.)
    """
    ours = [dataset["processes"]] if "processes" in dataset.data_vars else []
    for values in [*ours, *dataset.data_vars.values()]:
        axis = str(values.dims[-1]) if values.ndim > 1 else ""
        if axis.startswith("process"):
            labels = dataset[axis].values if axis in dataset.coords else PROCESSES
            return values, tuple(str(label) for label in labels)
    raise ValueError(f"{name}: no process draws (…, site, process) among {sorted(map(str, dataset.variables))}")


def _diagnostics(tree: xr.DataTree, name: str, ids: list[str]) -> dict[str, np.ndarray]:
    """R-hat and both effective sample sizes as the file records them, where it holds all three."""
    if "diagnostics" not in tree.children:
        return {}
    found = _pick(tree, name, "diagnostics", ids)
    if any(key not in found or set(found[key].dims) != {"site", "parameter"} for key in DIAGNOSTICS):
        return {}
    return {key: found[key].transpose("site", "parameter").values for key in DIAGNOSTICS}


def _values(dataset: xr.Dataset, variable: str, name: str, dims) -> np.ndarray:
    if variable not in dataset:
        raise ValueError(f"{name}: no variable {variable!r} in its posterior file, only {sorted(map(str, dataset))}")
    return dataset[variable].transpose(*dims).values
