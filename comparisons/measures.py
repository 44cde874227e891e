"""All measures of one kind of quantity, the 21 parameters or the six processes, in the same words."""

import numpy as np

from clm5.parameters import ParameterSpace
from comparisons import calibration, correlation, information, overlap
from comparisons.density import CELLS, masses, smooth
from comparisons.reading import FORCED, WAYS, Way

ROOM = 0.05  # where floor and best are closer than this, overlap cannot tell agreement from quoting the prior
STEADY = 1e-5  # a quantity whose draws and prior differ by less than this share of its size is given, not inferred


class Labelled:
    """Variables with their dims and what they mean, on the way to a Dataset."""

    def __init__(self) -> None:
        self.variables: dict[str, tuple] = {}
        self.resampled: dict[tuple[str, str], np.ndarray] = {}
        self.processes: tuple[str, ...] = ()

    def add(self, name: str, dims: tuple[str, ...], values: np.ndarray, long_name: str, units: str = "1") -> None:
        """Keep one variable under its dims."""
        self.variables[name] = (dims, values, {"long_name": long_name, "units": units})


def measure_kind(out: Labelled, kind: str, ways: dict[str, Way], truth: np.ndarray | None, *, seed: int) -> None:
    """Add every measure of `kind`, "parameter" or "process", to `out`.

    Parameters are compared on the unit cube, where the prior is flat. Processes have no box: their support is what
    prior and posteriors together reach at a site, and they are compared as logarithms at sites where all are
    positive, which leaves the overlap and the KL divergence unchanged and keeps a long tail from deciding the others.
    """
    physical = {name: _flat(way.theta if kind == "parameter" else way.process) for name, way in ways.items()}
    mean = {name: draws.mean(0, dtype=float) for name, draws in physical.items()}
    out.processes = ways["network"].processes
    site = ("site", kind)
    each = ("way", "site", kind)
    _correlate(out, kind, ways, mean, seed)
    out.add(f"{kind}_mean", each, _stack(mean), "posterior mean, physical units", "see unit")
    sd = {name: draws.std(0, dtype=float) for name, draws in physical.items()}
    out.add(f"{kind}_sd", each, _stack(sd), "posterior standard deviation, physical units", "see unit")

    draws, support, prior = _comparable(kind, ways)
    free = support["free"]

    def blank(values):
        return np.where(free, values, np.nan)

    cells = {name: masses(_flat(x), support["lower"], support["upper"]) for name, x in draws.items()}
    smoothed = {name: smooth(cells[name], x.shape[0] * x.shape[1]) for name, x in draws.items()}
    prior_smooth = smooth(prior["masses"], prior["n"]) if np.isfinite(prior["n"]) else prior["masses"]
    prior_close = _closer(prior["masses"], prior["n"]) if np.isfinite(prior["n"]) else prior["masses"]
    widths = support["widths"]  # width of the support in widths of the prior

    out.add(f"{kind}_overlap", site, blank(overlap.overlap_of(*smoothed.values())), "overlap of network and sampler")
    distance = overlap.wasserstein_of(*cells.values()) * widths
    out.add(
        f"{kind}_wasserstein", site, blank(distance), "Wasserstein distance of network and sampler, in prior widths"
    )
    within, apart, prior_overlap, prior_distance, gain, divergence = ({} for _ in range(6))
    for name, x in draws.items():
        first, last = (masses(half, support["lower"], support["upper"]) for half in overlap.halves(x))
        n_half = len(overlap.halves(x)[0])
        within[name] = blank(overlap.overlap_of(smooth(first, n_half), smooth(last, n_half)))
        apart[name] = blank(overlap.wasserstein_of(first, last) * widths)
        prior_overlap[name] = blank(overlap.overlap_of(smoothed[name], prior_smooth))
        prior_distance[name] = blank(overlap.wasserstein_of(cells[name], prior["masses"]) * widths)
        # unbiased variance: of few draws the other is too small, and would pass for learning
        gain[name] = blank(information.sd_reduction(_flat(x).std(0, dtype=float, ddof=1), prior["sd"]))
        divergence[name] = blank(
            information.kl_from_prior(_closer(cells[name], x.shape[0] * x.shape[1]), prior_close, n_prior=prior["n"])
        )
    for label, values, text, unit in (
        ("overlap_within", within, "overlap of one half of the chains with the other: the best to be expected", "1"),
        ("wasserstein_within", apart, "distance between the two halves of the chains, in prior widths", "1"),
        ("overlap_prior", prior_overlap, "overlap of posterior and prior: what agreement without learning scores", "1"),
        ("wasserstein_prior", prior_distance, "distance of posterior and prior, in prior widths", "1"),
        ("sd_reduction", gain, "information gained: 1 − posterior sd / prior sd", "1"),
        ("kl", divergence, "information gained: Kullback-Leibler divergence from the prior", "bit"),
    ):
        out.add(f"{kind}_{label}", each, _stack(values), text, unit)
    _between_floor_and_best(out, kind, draws, smoothed["sampler"], support, prior, seed)
    varied = np.stack([_variation(x, prior) for x in draws.values()])
    text = "variance over sites of posterior mean minus prior mean, less the noise of the mean, over the prior variance"
    out.add(f"{kind}_mean_variation", ("way", kind), varied, text)
    if truth is not None:
        truth = np.where(free, truth, np.nan)
        _against_truth(out, kind, ways, physical, mean, truth)
        _nearer_than_the_prior(out, kind, ways, draws, support, prior, truth)


def _between_floor_and_best(out, kind, draws, sampler_smooth, support, prior, seed: int) -> None:
    """What quoting the prior, and what the sampler's own chains, would score with as many draws as the network has."""
    network, sampler = draws["network"], draws["sampler"]
    n = network.shape[0] * network.shape[1]
    lower, upper, free = support["lower"], support["upper"], support["free"]

    def density(x):
        return smooth(masses(x, lower, upper), len(x))

    if prior["draws"] is None:  # the box: n draws from it, anew for every site
        quoted = np.random.default_rng([seed, n]).random((n, *free.shape))
    else:
        quoted = overlap.thinned(prior["draws"], n)
    floor = np.where(free, overlap.overlap_of(density(quoted), sampler_smooth), np.nan)
    first, last = overlap.halves(sampler)
    best = np.where(free, overlap.overlap_of(density(overlap.thinned(first, n)), density(last)), np.nan)
    text = "overlap of the sampler with the prior, of which as many draws are taken as the network has"
    out.add(f"{kind}_overlap_floor", ("site", kind), floor, text)
    text = "overlap of one half of the sampler's chains, as many draws as the network has at most, with the other half"
    out.add(f"{kind}_overlap_best", ("site", kind), best, text)
    low, room = _known_mean(floor), _known_mean(best) - _known_mean(floor)
    excess = (_known_mean(out.variables[f"{kind}_overlap"][1]) - low) / np.where(room >= ROOM, room, np.nan)
    text = f"overlap placed between floor (0) and best (1); missing where they are less than {ROOM} apart"
    out.add(f"{kind}_overlap_skill", (kind,), excess, text)


def _variation(draws: np.ndarray, prior: dict) -> np.ndarray:
    """How much posterior means move over sites beyond what the prior's do, in prior variances, (chain, …) → (·).

    The noise of a mean is judged from how far the chains' means lie apart, or from the draws where there is one chain.
    """
    chains = draws.mean(1, dtype=float)  # (chain, site, ·)
    m, n = draws.shape[:2]
    noise = chains.var(0, ddof=1) / m if m > 1 else draws[0].var(0, dtype=float, ddof=1) / n
    variance = np.where(prior["sd"] > 0, prior["sd"], np.nan) ** 2 * np.ones_like(noise)
    moved = chains.mean(0) - prior["mean"]
    known = np.isfinite(variance)
    centred = np.where(known, moved - _known_mean(np.where(known, moved, np.nan)), np.nan)
    return np.maximum(_known_mean(centred**2 - noise), 0.0) / _known_mean(variance)


def _correlate(out: Labelled, kind: str, ways: dict[str, Way], mean: dict[str, np.ndarray], seed: int) -> None:
    x, y = mean["network"], mean["sampler"]
    linear, ranked = correlation.bootstrap(x, y, seed=seed)
    for label, r, resampled in (
        ("pearson", correlation.pearson(x, y), linear),
        ("spearman", correlation.spearman(x, y), ranked),
    ):
        out.resampled[kind, label] = resampled
        out.add(f"{kind}_{label}", (kind,), r, f"{label.title()} r over sites of the two ways' posterior means")
        text = "95 % interval of r, sites resampled"
        out.add(f"{kind}_{label}_interval", (kind, "bound"), correlation.interval(resampled).T, text)
    held_out = ways["network"].held_out
    r = correlation.pearson(x[held_out], y[held_out]) if held_out.any() else np.full(x.shape[1:], np.nan)
    out.add(f"{kind}_pearson_held_out", (kind,), r, "Pearson r over the sites that the network was not trained on")
    out.add("n_held_out", (), np.asarray(held_out.sum()), "sites that the network was not trained or stopped on")
    quoted = np.zeros_like(y) if kind == "parameter" else ways["sampler"].prior_process.mean(0, dtype=float)
    text = "Pearson r over sites of the prior's own mean with the sampler's: what quoting the prior scores"
    out.add(f"{kind}_pearson_prior", (kind,), correlation.pearson(quoted, y), text)
    text = "|r| that 95 % of random pairings of the sites stay below"
    out.add(f"{kind}_pearson_shuffled", (kind,), correlation.shuffled(x, y, seed=seed), text)


def _comparable(kind: str, ways: dict[str, Way]) -> tuple[dict, dict, dict]:
    """Draws on the scale of comparison, their support, and the prior on it.

    Returns:
        draws: way → (chain, draw, site, ·). support: lower and upper (site, ·); free, False where the quantity is
        given; positive, True where draws are logarithms; widths. prior: masses (cells, site, ·), mean, sd, its draws
        (None for the box) and their number n, infinite for the box.
    """
    if kind == "parameter":
        draws = {name: way.unit for name, way in ways.items()}
        shape = ways["network"].unit.shape[2:]
        support = {"lower": np.zeros(shape), "upper": np.ones(shape), "free": np.ones(shape, bool), "widths": 1.0}
        support["positive"] = np.zeros(shape, bool)
        box = {"masses": np.full((CELLS, *shape), 1 / CELLS), "mean": 0.5, "sd": 1 / np.sqrt(12), "n": np.inf}
        return draws, support, box | {"draws": None}
    prior = ways["sampler"].prior_process.astype(float)
    draws = {name: way.process.astype(float) for name, way in ways.items()}
    positive = (prior > 0).all(0) & np.all([(x > 0).all((0, 1)) for x in draws.values()], axis=0)  # (site, process)

    def log(x):
        return np.where(positive, np.log(np.where(positive, x, 1.0)), x)

    prior, draws = log(prior), {name: log(x) for name, x in draws.items()}
    low = np.min([prior.min(0), *(x.min((0, 1)) for x in draws.values())], axis=0)
    high = np.max([prior.max(0), *(x.max((0, 1)) for x in draws.values())], axis=0)
    named = np.array([name != FORCED for name in ways["network"].processes])
    size = np.where(positive, 1.0, np.maximum(np.abs(high), np.abs(low)))  # a logarithm's range is relative already
    free = named & (high - low > STEADY * size)
    margin = np.where(free, 0.05 * (high - low), 0.5 + 0.01 * np.abs(high))  # keeps reflection at the ends away
    lower, upper = low - margin, high + margin
    width = np.diff(np.quantile(prior, [0.05, 0.95], axis=0), axis=0)[0] / 0.9
    width = np.where(free & (width > 0), width, 1.0)
    support = {"lower": lower, "upper": upper, "free": free, "widths": (upper - lower) / width, "positive": positive}
    spread = {"masses": masses(prior, lower, upper), "mean": prior.mean(0), "sd": np.where(free, prior.std(0), np.nan)}
    return draws, support, spread | {"n": len(prior), "draws": prior}


def _against_truth(out: Labelled, kind: str, ways: dict[str, Way], physical, mean, truth: np.ndarray) -> None:
    """Coverage, interval width and recovery against the known truth (site, ·)."""
    out.add(f"{kind}_truth", ("site", kind), truth, "known truth, physical units", "see unit")
    share, error, width, recovered, off = [], [], [], [], []
    levels = np.asarray(calibration.LEVELS)
    known = np.isfinite(truth).all(0)
    spread = np.where(known, truth.std(0), np.nan)
    for name in WAYS:
        bounds = calibration.intervals(physical[name])
        covered, binomial, _ = calibration.coverage(calibration.inside(bounds, truth), levels[:, None], axis=1)
        share.append(covered)
        error.append(binomial)
        width.append(_width(bounds) / np.where(known, _prior_width(kind, ways[name]), np.nan))
        recovered.append(correlation.pearson(mean[name], np.where(known, truth, 0.0)))
        rmse = np.sqrt(np.mean((mean[name] - truth) ** 2, axis=0))
        off.append(rmse / np.where(spread > 0, spread, np.nan))
    quoted, _, _ = calibration.coverage(
        calibration.inside(_prior_bounds(kind, ways["sampler"], truth.shape), truth), levels[:, None], axis=1
    )
    text = "share of sites whose prior's central interval, the bare box for parameters, holds the truth"
    out.add(f"{kind}_coverage_prior", ("level", kind), quoted, text)
    three = ("way", "level", kind)
    out.add(f"{kind}_coverage", three, np.array(share), "share of sites whose central interval holds the truth")
    out.add(f"{kind}_coverage_error", three, np.array(error), "binomial standard error if the intervals are right")
    text = "mean width of the central interval, in widths of the prior's interval of the same level"
    out.add(f"{kind}_interval_width", three, np.array(width), text)
    out.add(f"{kind}_recovery", ("way", kind), np.array(recovered), "Pearson r of posterior mean and truth over sites")
    text = "root mean square error of the posterior mean, in standard deviations of the truth over sites"
    out.add(f"{kind}_recovery_error", ("way", kind), np.array(off), text)


def _nearer_than_the_prior(out, kind, ways, draws, support, prior, truth: np.ndarray) -> None:
    """Root mean square error of each way's mean beside that of the prior's mean, on the scale of comparison."""
    if kind == "parameter":
        space = ParameterSpace(str(ways["sampler"].attrs["bounds"]))
        truth = (truth - space.lower) / (space.upper - space.lower)
        scale = "unit space"
    else:
        positive = support["positive"] & (truth > 0)
        truth = np.where(support["positive"], np.where(positive, np.log(np.where(positive, truth, 1.0)), np.nan), truth)
        scale = "of logarithms where all values are positive"
    means = np.stack([x.mean((0, 1), dtype=float) for x in draws.values()])
    error = np.stack([np.sqrt(_known_mean((mean - truth) ** 2)) for mean in means])
    quoted = np.sqrt(_known_mean((prior["mean"] - truth) ** 2))
    text = f"root mean square error of the posterior mean over sites, {scale}"
    out.add(f"{kind}_rmse", ("way", kind), error, text)
    text = f"root mean square error of the prior's mean (the middle of the box) over sites, {scale}"
    out.add(f"{kind}_rmse_prior", (kind,), quoted, text)


def _width(bounds: np.ndarray) -> np.ndarray:
    """Mean width over sites, (level, 2, site, ·) → (level, ·)."""
    return (bounds[:, 1] - bounds[:, 0]).mean(1)


def _prior_width(kind: str, way: Way) -> np.ndarray:
    """Mean width over sites of the prior's central intervals, physical units, (level, ·)."""
    return _width(_prior_bounds(kind, way, way.unit.shape[2:]))


def _prior_bounds(kind: str, way: Way, shape: tuple[int, ...]) -> np.ndarray:
    """The prior's central intervals, physical units, (level, 2, site, ·)."""
    if kind == "process":
        return calibration.intervals(way.prior_process.astype(float))
    space = ParameterSpace(str(way.attrs["bounds"]))
    tails = np.stack([(1 - np.array(calibration.LEVELS)) / 2, (1 + np.array(calibration.LEVELS)) / 2], axis=1)
    bounds = space.lower + tails[..., None] * (np.asarray(space.upper) - space.lower)
    return np.broadcast_to(bounds[:, :, None], (*tails.shape, *shape))


def _known_mean(values: np.ndarray) -> np.ndarray:
    """Mean over sites where the value is known, (site, ·) → (·); NaN where it never is."""
    known = np.isfinite(values)
    count = known.sum(0)
    return np.where(count > 0, np.where(known, values, 0.0).sum(0) / np.maximum(count, 1), np.nan)


def _closer(mass: np.ndarray, n_draws: int) -> np.ndarray:
    return smooth(mass, n_draws, bandwidths=information.CLOSER)


def _flat(draws: np.ndarray) -> np.ndarray:
    """Chains one after the other: (chain, draw, *batch) → (chain · draw, *batch)."""
    return draws.reshape(-1, *draws.shape[2:])


def _stack(by_way: dict[str, np.ndarray]) -> np.ndarray:
    return np.stack([by_way[name] for name in WAYS])
