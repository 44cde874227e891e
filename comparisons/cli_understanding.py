"""Commands of `binn` that explain: what a trained network reads, and which parameters decide soil carbon."""

import json
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from comparisons.cli_options import Out, Seed, SitesFile, open_hint, refuse_existing, say
from comparisons.launch import Launch

WIDE = 0.1  # of the interval of the largest index, above which more samples are advised
RunFolder = Annotated[Path, Parameter(help="folder of a finished `binn train`")]


def explain(
    run: RunFolder,
    sites: SitesFile,
    *,
    out: Out,
    label: Annotated[
        Literal["train", "validation", "test", "new", "all"], Parameter(help="sites whose covariates are shuffled")
    ] = "test",
    groups: Annotated[Path | None, Parameter(help='JSON file, {"climate": ["mean_temperature", ...], ...}')] = None,
    repeats: Annotated[int, Parameter(help="permutations of every group")] = 5,
    points: Annotated[int, Parameter(help="values at which a numeric covariate is set")] = 20,
    seed: Seed = 0,
    launch: Launch | None = None,
) -> None:
    """Say what a trained network reads: permutation importance and partial dependence, OUT/index.html."""
    refuse_existing(out)
    (launch or Launch()).start()
    import binn
    import clm5
    from comparisons.understanding import few_sites, write_explanation

    members = None if groups is None else _groups(groups)
    trained, data = binn.load(run), clm5.sites.open(sites, observations=True)
    importance = binn.permutation_importance(trained, data, members, repeats, seed=seed, label=label)
    most = ", ".join(f"{name} ({drop:.2f})" for name, drop in importance.nse_drop.head(3).items())
    judged = importance.attrs["sites"]
    nse = importance.attrs["nse"]
    say(f"NSE of ln SOC is {nse:.2f} at {judged} sites ({label}); it falls most by shuffling {most}")
    if (few := few_sites(importance)) is not None:
        say(few)
    dependence = binn.partial_dependence(trained, data, points=points, stock_depth=1.0)
    open_hint(write_explanation(importance, dependence, out))


def sensitivity(
    sites: SitesFile,
    *,
    out: Out,
    only: Annotated[int | None, Parameter(help="take this many sites, chosen at random")] = None,
    samples: Annotated[int, Parameter(help="points of the Sobol sequence, a power of 2")] = 1024,
    parameters: Annotated[
        Literal["4", "5", "16", "all"], Parameter(help="those that vary, as in the published experiments")
    ] = "all",
    raw: Annotated[bool, Parameter(help="also indices of SOC itself, besides ln SOC: they hardly converge")] = False,
    bounds: Literal["binn", "proda"] = "binn",
    rules: Literal["conservative", "proda", "binn"] = "conservative",
    seed: Seed = 0,
    launch: Launch | None = None,
) -> None:
    """Say which parameters decide soil carbon: Sobol indices of the stocks over the box, OUT/sobol.csv and figures."""
    refuse_existing(out)
    (launch or Launch()).start()
    import numpy as np

    import clm5
    from comparisons.understanding import write_sensitivity

    data = clm5.sites.open(sites, observations=False)
    if only is not None:
        if not 1 <= only <= data.sizes["site"]:
            raise ValueError(f"--only must lie between 1 and the {data.sizes['site']} sites of {sites}, got {only}")
        data = data.isel(site=np.sort(np.random.default_rng(seed).permutation(data.sizes["site"])[:only]))

    def progress(done: int, of: int) -> None:
        if 10 * done // of > 10 * (done - 1) // of:
            say(f"{done} of {of} sites")

    options = clm5.ModelOptions(bounds=bounds, rules=rules)
    scales = ("ln", "raw") if raw else ("ln",)
    result = clm5.sobol(data, options, parameters, samples, scales=scales, seed=seed, progress=progress)
    write_sensitivity(result, out)
    one = result.sel(scale="ln", depth=1.0)
    most = one.mean_first_order.to_series().sort_values(ascending=False).head(4)
    width = one.mean_first_order_ci.to_series()
    told = ", ".join(f"{name} {value:.2f} ± {width[name]:.2f}" for name, value in most.items())
    say(f"share of the variance of ln stock 0-100 cm by one parameter alone, mean over sites (95 %): {told}")
    if width[most.index[0]] > WIDE:
        say(f"intervals are wide with {samples} samples: give --samples {4 * samples} to halve them")
    say(f"indices: {out / 'sobol.csv'}; figure: {out / 'sobol_ln.png'}")


def _groups(path: Path) -> dict[str, list[str]]:
    """Groups of covariates from a JSON file."""
    try:
        groups = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} must hold JSON: {error}") from error
    if not isinstance(groups, dict) or not all(isinstance(members, list) for members in groups.values()):
        raise ValueError(f'{path} must hold one object of lists, {{"group": ["covariate", ...], ...}}')
    return groups
