"""`binn recover` and `binn baselines`: is the network right where the truth is known, and does it beat simpler ways?"""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from comparisons.cli_options import Out, Seed, SitesFile, open_hint, refuse_existing, say
from comparisons.launch import Launch

TRUTHS = {
    "functions": "known functions of covariates",
    "proda": "draws like PRODA's parameters",
    "prior": "uniform draws, which no covariate tells",
}
BASELINES = """NSE and bias of ln SOC, and median distance (km) to the nearest training site, on the run's own split:
  binn                    the trained network, without dropout
  network without column  covariates and depth to ln SOC, as wide, deep and long trained
  ridge                   ridge regression of ln SOC on covariates and depth
  constant                one fitted parameter vector for all sites, through the column
  defaults                CLM5's parameters at all sites, nothing fitted"""


def recover(
    sites: Annotated[
        Path | None, Parameter(help="site file, whose carbon is replaced; without it, virtual sites are made")
    ] = None,
    *,
    out: Out,
    truth: Annotated[
        Literal["functions", "proda", "prior"],
        Parameter(help="known functions of covariates, draws like PRODA's parameters, or uniform draws"),
    ] = "functions",
    noise: Annotated[float, Parameter(help="sd of the noise on ln SOC, 0 to 0.6")] = 0.0,
    parameters: Annotated[
        Literal["4", "5", "16", "all"], Parameter(help="free parameters; the others are held at CLM5's values")
    ] = "4",
    folds: Annotated[int, Parameter(help="folds, of whole 2° blocks")] = 5,
    n: Annotated[int, Parameter(help="virtual sites to make, where no site file is given")] = 1000,
    terms: Annotated[int, Parameter(help="terms of a known function, 1 to 5")] = 3,
    of: Annotated[
        list[str] | None,
        Parameter(
            help="numeric covariate that known functions are made of; give it again for more. Default: all", negative=""
        ),
    ] = None,
    covariates: Annotated[
        list[str] | None,
        Parameter(help="covariate that the network may see; give it again for more. Default: all", negative=""),
    ] = None,
    width: Annotated[int, Parameter(help="units of the hidden layer")] = 32,
    dropout: Annotated[float, Parameter(help="share of hidden units switched off; 0 has no intervals")] = 0.02,
    epochs: Annotated[int, Parameter(help="most passes over the training sites")] = 400,
    gradient: Annotated[
        Literal["gauss_newton", "plain"], Parameter(help="preconditioned by what carbon tells at each site, or not")
    ] = "gauss_newton",
    draws: Annotated[int, Parameter(help="Monte Carlo dropout draws of the intervals")] = 200,
    beside: Annotated[
        list[Path] | None,
        Parameter(help="folder of an earlier experiment to show beside this one; give it again for more", negative=""),
    ] = None,
    resume: Annotated[bool, Parameter(help="take up an interrupted experiment in --out")] = False,
    seed: Seed = 0,
    launch: Launch | None = None,
) -> None:
    """Put in known parameters, train on the carbon that they make, and report which come back: OUT/index.html."""
    if not resume:
        refuse_existing(out, hint="To take up an interrupted experiment there, add --resume.")
    (launch or Launch()).start()
    import binn
    import clm5
    from comparisons.page_recovery import headline, read_pairs, write_recovery

    shown = dict(read_pairs(folder) for folder in beside or [])
    bounds = "proda" if truth == "proda" else "binn"  # PRODA's parameters lie in PRODA's box
    options = clm5.ModelOptions(bounds=bounds, sigma=binn.recovery_config(noise).model.sigma)
    changes = {"width": width, "dropout": dropout, "epochs": epochs, "gradient": gradient}
    config = binn.recovery_config(noise, model=options, parameters=parameters, folds=folds, **changes)
    data = clm5.sites.virtual(n, seed=seed, bounds=bounds) if sites is None else clm5.sites.open(sites)
    seen = None if covariates is None else tuple(covariates)
    found = binn.recover(
        data, config, truth, noise, covariates=seen, terms=terms, of=None if of is None else tuple(of), seed=seed,
        out=out, resume=resume, draws=draws,
    )  # fmt: skip
    few = "" if seen is None else f", {len(seen)} covariate{'s' * (len(seen) > 1)} seen"
    kind = f"known functions of {terms} terms" if truth == "functions" else TRUTHS[truth]
    told = {
        "experiment": f"{kind}, {parameters} free, noise {100 * noise:.0f} %{few}",
        "sites": f"{data.sizes['site']}, {'virtual' if sites is None else f'{sites}, carbon replaced'}",
        "truth": TRUTHS[truth],
        "noise": f"{noise:g}, sd on ln SOC",
        "free parameters": ", ".join(config.parameters),
        "folds": f"{folds}, of whole 2° blocks ({config.split})",
        **(
            {"functions": f"{terms} terms, of {'all numeric covariates' if of is None else ', '.join(of)}"}
            if truth == "functions"
            else {}
        ),
        "covariates seen": "all" if seen is None else ", ".join(seen),
        "seed": str(seed),
        "training": f"{found.wall_time:.0f} s in all, {config.epochs} epochs at most, dropout {config.dropout:g}",
    }
    page = write_recovery(found, out, told, shown)
    say(headline(found))
    open_hint(page)


def baselines(
    run: Annotated[Path, Parameter(help="folder of a trained network, from `binn train`")],
    sites: SitesFile,
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"], help="new CSV file for the table")] = None,
    seed: Seed = 0,
    launch: Launch | None = None,
) -> None:
    """Compare a trained network with simpler ways on its own split, and say where it does not beat them."""
    if out is not None:
        refuse_existing(out)
    (launch or Launch()).start()
    import binn
    import clm5
    from clm5._atomic import write_atomically

    table = binn.baselines(binn.load(run), clm5.sites.open(sites), seed=seed)
    say(BASELINES)
    shown = table.assign(distance=table.distance.map("{:.0f}".format)).replace({"distance": {"nan": "-"}})
    shown = shown.rename(columns={"nse": "NSE", "distance": "km"})
    say(shown.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    for sentence in binn.not_beaten(table):
        say(f"{sentence[0].upper()}{sentence[1:]}.")
    if out is not None:
        say(f"table: {write_atomically(out, lambda part: table.to_csv(part, index=False))}")
