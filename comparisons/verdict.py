"""The comparison in words: a status per parameter, one sentence for the page's head, and the thresholds behind both."""

import numpy as np
import xarray as xr

from comparisons.cautions import converged
from comparisons.compare import claims, learned
from comparisons.convergence import ESS_LIMIT, ESS_STRICT, RHAT_LIMIT, RHAT_STRICT
from comparisons.measures import ROOM
from comparisons.methods import attributes, words
from comparisons.reading import FORCED, WAYS

R_AGREE, SKILL_AGREE = 0.7, 0.5
LARGELY, PARTLY = 0.8, 0.4  # share of the parameters that both claim, on which they agree
AGREE, ORDER, DISAGREE, UNDECIDED = "agree", "same order, other values", "disagree", "undecided"
NEITHER, BELOW, GIVEN = "both below the threshold", "{} below the threshold", "given (forcing)"


def classify(result: xr.Dataset, kind: str = "parameter") -> list[str]:
    """A status for every parameter or process.

    Where both ways claim to have learned (`claims`): `DISAGREE` where the whole interval of r lies below `R_AGREE`;
    where it lies above, `AGREE` or `ORDER` by the place of the overlap between its floor and its best; `UNDECIDED`
    where the interval straddles `R_AGREE` or is missing, or floor and best are too close to tell. Otherwise who is
    below the threshold, and `GIVEN` for plant carbon input.
    """
    knows = claims(result, kind)
    found = []
    for name in result[kind].values:
        one = result.sel({kind: name})
        who = [way for way in WAYS if bool(knows.sel({"way": way, kind: name}))]
        low, high = one[f"{kind}_pearson_interval"].values
        if kind == "process" and name == FORCED:
            found.append(GIVEN)
        elif not who:
            found.append(NEITHER)
        elif len(who) == 1:
            found.append(BELOW.format(next(way for way in WAYS if way not in who)))
        elif high < R_AGREE:
            found.append(DISAGREE)
        elif low >= R_AGREE:
            found.append(_values_agree(one, kind))
        else:
            found.append(UNDECIDED)
    return found


def _values_agree(one: xr.Dataset, kind: str) -> str:
    """What the overlap says of one parameter or process whose sites come in the same order."""
    skill = float(one[f"{kind}_overlap_skill"])
    if np.isfinite(skill):
        return AGREE if skill >= SKILL_AGREE else ORDER
    short = float(one[f"{kind}_overlap_floor"].mean() - one[f"{kind}_overlap"].mean())
    return ORDER if short > ROOM else UNDECIDED


def headline(result: xr.Dataset) -> str:
    """One plain sentence or two, made from the numbers."""
    status = classify(result)
    counts = {word: status.count(word) for word in (AGREE, ORDER, DISAGREE, UNDECIDED)}
    both, n, sites = sum(counts.values()), len(status), result.sizes["site"]
    where = f"Over {sites} site{'s' * (sites != 1)}, network and sampler"
    if both == 0:
        first = (
            f"{where} cannot be said to agree or to disagree: there is not one parameter that both claim to have "
            "learned about."
        )
    else:
        share = counts[AGREE] / both
        ordered = (counts[AGREE] + counts[ORDER]) / both
        most_open = counts[UNDECIDED] > (1 - PARTLY) * both
        how = "largely agree" if share >= LARGELY else "agree in part" if share >= PARTLY else "mostly disagree"
        if share < PARTLY and ordered >= LARGELY:
            how = "order the sites alike, yet differ in value or certainty,"
        elif share < PARTLY and most_open:
            how = "can mostly not be said to agree or to disagree"
        details = [f"they agree on {counts[AGREE] or 'none'}"]
        if counts[ORDER]:
            details.append(f"put the sites in the same order but differ in value or certainty on {counts[ORDER]}")
        if counts[DISAGREE]:
            details.append(f"disagree on {counts[DISAGREE]}")
        if counts[UNDECIDED]:
            details.append(f"leave it undecided on {counts[UNDECIDED]}")
        said = details[0] if len(details) == 1 else ", ".join(details[:-1]) + " and " + details[-1]
        first = f"{where} {how} where both claim to have learned something: of {both} such parameters (of {n}), {said}."
    rest = "".join(
        f" On {status.count(BELOW.format(way))} the {way} alone is below the threshold."
        for way in WAYS
        if BELOW.format(way) in status
    )
    if NEITHER in status:
        rest += f" On {status.count(NEITHER)} both are below it, so agreement there is trivial."
    r = result.average_pearson
    without, with_ = (float(r.sel(average=a)) for a in ("processes_without_carbon_input", "processes"))
    quoted = float(result.average_pearson_prior.sel(average="processes_without_carbon_input"))
    floor = f"; quoting the prior would score {quoted:.2f}" if np.isfinite(quoted) else ""
    return (
        f"{first}{rest} Mean r over the processes is {without:.2f} without plant carbon input "
        f"({with_:.2f} with it, but that one is 1 by construction){floor}."
    )


def truth_sentence(result: xr.Dataset, level: float = 0.9) -> str:
    """How often intervals hold the known truth, and whose means are nearer to it than the prior's; "" where unknown.

    Both ways and the bare prior box are counted over the same parameters: those that both claim, or else those that
    either does.
    """
    if "parameter_coverage" not in result:
        return ""
    claimed = claims(result)
    common, who = claimed.all("way").values, "that both ways claim"
    if not common.any():
        common, who = claimed.any("way").values, "that either way claims"
    if not common.any():
        return ""
    held = result.parameter_coverage.sel(level=level).isel(parameter=common).mean("parameter")
    box = float(result.parameter_coverage_prior.sel(level=level).isel(parameter=common).mean())
    shares = ", ".join(f"the {way}'s {_percent(float(held.sel(way=way)))}" for way in WAYS)
    nearer = [
        f"on {int(learned(result).sel(way=way).sum())} of the {int(claimed.sel(way=way).sum())} parameters that the "
        f"{way} claims"
        for way in WAYS
        if claimed.sel(way=way).any()
    ]
    return (
        f"The truth is known at these sites. Of the site-parameter pairs of the {common.sum()} parameters {who}, "
        f"intervals that promise {_percent(level)} hold the truth in: {shares}; the bare prior box holds "
        f"{_percent(box)}. Only holding too few is informative, unless the truth was drawn from the prior. The "
        f"posterior mean is nearer the truth than the middle of the box {' and '.join(nearer)}."
    )


def chains_sentence(result: xr.Dataset) -> str:
    """What R-hat and ESS say of the sampler."""
    sampler = result.sel(way="sampler")
    if sampler.rhat.isnull().all():
        return "R-hat and effective sample size of the sampler could not be computed."
    fewest = np.fmin(sampler.ess_bulk, sampler.ess_tail).min()
    strict = converged(result, RHAT_STRICT, ESS_STRICT)
    diverging = float(sampler.diverging.mean()) if sampler.diverging.notnull().any() else np.nan
    text = (
        f"Largest R-hat {float(sampler.rhat.max()):.3f}, fewest effective draws {fewest:.0f} "
        f"(bulk or tail), over all sites and parameters. {converged(result).sum()} of {strict.size} sites pass the "
        f"limits used here (R-hat below {RHAT_LIMIT}, {ESS_LIMIT:g} effective draws, bulk and tail), {strict.sum()} "
        f"the strict ones advised for publication ({RHAT_STRICT} and {ESS_STRICT:g})."
    )
    return text + (f" Divergent transitions: {100 * diverging:.2g} %." if np.isfinite(diverging) else "")


def thresholds(result: xr.Dataset) -> str:
    """What the words mean."""
    gain, varied = (float(result.attrs[f"{name}_threshold"]) for name in ("gain", "variation"))
    untrained = words(attributes(result)).untrained
    means = (
        f" For the network it is no more than a claim: {untrained} are narrower than the prior even untrained."
        if untrained
        else ""
    )
    return (
        f"A way claims to have learned about a parameter when it is above the threshold: its standard deviation is on "
        f"average over sites at least {_percent(gain)} below the prior's, or the variance of its means over sites, "
        f"beyond their noise, is at least {_percent(varied)} of the prior's.{means} On known truth it counts as "
        f"learned when its means are also nearer the truth than the middle of the box. Agree: both claim, the whole "
        f"95 % interval of r over sites is at least {R_AGREE} and the overlap lies at least {_percent(SKILL_AGREE)} of "
        f"the way from quoting the prior to the sampler against itself. Undecided: the interval of r straddles "
        f"{R_AGREE}, or floor and best of the overlap are too close. Largely: on at least {_percent(LARGELY)} of the "
        f"parameters that both claim; in part: on at least {_percent(PARTLY)}."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
