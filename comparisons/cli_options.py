"""What the commands of `binn` share: their options, and how they speak."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    import xarray as xr


@Parameter(name="*", group="Model")
@dataclass
class Model:
    """What a result depends on, shared by network and sampler."""

    bounds: Literal["binn", "proda"] = "binn"
    "published box that the parameters live in"
    rules: Literal["conservative", "proda", "binn"] = "conservative"
    "rule set of the soil column"
    operator: Literal["horizon", "linear", "pchip"] = "horizon"
    "from the modelled profile to a measured horizon"
    error: Literal["lognormal", "proda"] = "lognormal"
    "error model of a measurement"
    sigma: float = 0.2
    "scale of that error (of ln SOC, or as a fraction of the observed value)"

    def options(self):
        """As `clm5.ModelOptions`."""
        from clm5 import ModelOptions

        return ModelOptions(self.bounds, self.rules, self.operator, self.error, self.sigma)


@Parameter(name="*", group="Network")
@dataclass
class Network:
    """How the network is trained, and how it says how sure it is.

    Names, defaults and choices are those of `binn.Config`, written here again so that `--help` need not load JAX.
    """

    method: Literal["mc_dropout", "ensemble", "laplace", "amortised"] | None = None
    """how the network's draws are made, see binn.posterior; default: mc_dropout, or amortised for --loss elbo and
    simulation. ensemble needs --members, laplace --loss likelihood"""
    epochs: int = 100
    "most passes over the training sites; training stops earlier when validation sites stop improving"
    patience: int = 25
    "epochs without a better validation loss after which training stops"
    batch_size: int = 32
    "sites in a step, about"
    members: int = 1
    "independently trained networks"
    width: int = 64
    "units of a hidden layer"
    depth: int = 2
    "number of hidden layers; 0: linear in what it reads"
    curves: int = 0
    "hat functions that every number is given as, so that the first layer sums a learned curve of each"
    activation: Literal["relu", "leaky_relu", "silu", "tanh"] = "silu"
    "of hidden units"
    norm: Literal["none", "batch", "layer"] = "none"
    "normalisation of hidden layers"
    dropout: float = 0.2
    "share of hidden units that are switched off"
    learn_dropout: bool = False
    "learn that share for every hidden layer, from --dropout on; for --loss likelihood and posterior"
    learning_rate: float = 3e-3
    "largest step size of AdamW"
    schedule: Literal["cosine", "exponential", "constant"] = "cosine"
    "how the step size falls after its peak"
    gradient: Literal["plain", "gauss_newton"] = "plain"
    "gauss_newton: preconditioned by what carbon tells of the parameters at each site"
    embedding: int = 0
    "learned numbers per category; 0: one column per category"
    loss: Literal["likelihood", "posterior", "smooth_l1", "log_smooth_l1", "elbo", "simulation"] = "likelihood"
    """what training minimises: the sampler's likelihood, that and its prior, or smooth L1 as published; elbo and
    simulation train a network that answers a distribution of the parameters"""
    profile: bool = False
    "the network also reads forcing and measured profile of a site; for --loss elbo, and needed for simulation"
    parameters: Literal["4", "5", "16", "all"] = "all"
    "free parameters, as in the published experiments; the others are held at CLM5's values"
    missing: Literal["refuse", "impute"] = "refuse"
    "what becomes of a covariate without a value"
    split: Literal["random", "blocks", "latitude", "longitude", "kfold", "block_kfold", "climate"] = "random"
    "how validation and test sites are set aside, see binn.split"
    folds: int = 10
    "parts of a split by bands, folds or climates"
    fold: int = 0
    "which of them is the test set, from 0"
    sites_in_memory: int = 0
    "training sites held in memory at a time, for site files larger than memory; 0: all"

    def config(self, options):
        """As `binn.Config`."""
        from binn import Config

        chosen = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "method"}
        return Config(model=options, **chosen)


@Parameter(name="*", group="Sampler")
@dataclass
class Sampler:
    """How sites are sampled."""

    sampler: Literal["nuts", "hmc"] = "nuts"
    "hmc: trajectories of --steps gradients on average, as long in every chain"
    steps: int = 32
    "mean number of gradients a draw of hmc"
    chains: int = 4
    "chains at every site"
    warmup: int = 400
    "transitions that adapt the sampler, thrown away"
    samples: int = 800
    "transitions that are kept, per chain"
    batch: int = 16
    "sites in one compiled program"
    infer_sigma: bool = False
    "infer the scale of the error at every site too, with a log-normal prior around --sigma"
    sigma_spread: float = 0.5
    "standard deviation of the logarithm of that scale, in its prior"
    reruns: int = 2
    """how often a site that misses R-hat < 1.01 or 400 effective draws is sampled again at most, every time three times
    longer"""
    thin: int = 1
    "every so manieth transition that is kept goes into the file; diagnostics rest on all"
    keep: Literal["draws", "summary"] = "draws"
    "what the file holds; summary: means, quantiles and diagnostics alone, which no report can be made of"
    store: Literal["netcdf", "zarr"] = "netcdf"
    "one file, made in memory; or a folder that is filled batch by batch, for any number of sites"

    def config(self, options):
        """As `bayes.Config`."""
        from bayes import Config

        chosen = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "samples"}
        return Config(model=options, draws=self.samples, **chosen)


Out = Annotated[Path, Parameter(name=["--out", "-o"], help="new folder or file to write; never overwritten")]
Draws = Annotated[
    int, Parameter(help="draws of the network's posterior at every site; an ensemble has its members instead")
]
Seed = Annotated[int, Parameter(help="seed of every random choice")]
Only = Annotated[int | None, Parameter(help="sample this many sites, chosen at random")]
SitesFile = Annotated[Path, Parameter(help="site file, netCDF or Zarr")]


def refuse_existing(out: Path, hint: str = "Name another one with --out.") -> None:
    """Commands write new folders and files only."""
    if out.exists():
        raise FileExistsError(f"{out} exists and is not overwritten. {hint}")


def some_sites(sites: "xr.Dataset", only: int | None, seed: int, file: Path) -> "xr.Dataset":
    """`only` of the sites of a file, chosen at random and left in order; None: all."""
    if only is None:
        return sites
    import numpy as np

    n = sites.sizes["site"]
    if not 1 <= only <= n:
        raise ValueError(f"--only must lie between 1 and the {n} sites of {file}, got {only}")
    return sites.isel(site=np.sort(np.random.default_rng(seed).permutation(n)[:only]))


def say(line: str) -> None:
    """A line for the user."""
    print(line, flush=True)


def open_hint(page: Path) -> None:
    """Where the finished page is."""
    say(f"Open {page.resolve()} in a browser.")
