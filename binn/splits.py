"""Which sites train the network, which stop it, and which judge it; and how far from training the judges lie."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int
from scipy.cluster.vq import ClusterError, kmeans2
from scipy.spatial import cKDTree

from binn.features import Features, Numeric
from clm5.sites.schema import covariate_names

if TYPE_CHECKING:
    import xarray as xr

LABELS = ("train", "validation", "test")
SHARES = (0.8, 0.1, 0.1)
FOLD_RULES = ("latitude", "longitude", "kfold", "block_kfold", "climate")
RULES = ("random", "blocks", *FOLD_RULES)
BLOCK = 2.0  # degrees, as published
SAME_PLACE = 10_000  # per degree: nearer than half of one in this, about 5 m, is the same place
CLIMATE = ("climate", "koppen", "koeppen", "köppen")  # a categorical covariate with one of these in its name
STARTS = 10  # of k-means, of which the tightest is kept
FEWER_FOLDS = 'give fewer folds, sites at more places, or use split="kfold" if they lie in few 2° blocks'
EARTH = 6371.0088  # km, mean radius R₁ of the ellipsoid GRS80; Moritz (2000), J. Geodesy 74, 128


def split(sites: "xr.Dataset", rule: str = "random", *, seed: int = 0, folds: int = 5, fold: int = 0) -> np.ndarray:
    """Label every site "train", "validation" or "test", shape (site,), dtype str.

    Two rules give shares of 80, 10, 10 %, as closely as whole groups allow, and leave `folds` and `fold` unused:

    - "random": over places. Sites whose lon and lat agree when rounded to 1e-4° (profiles of one pit) go together, as
      they share forcing and covariates;
    - "blocks": whole 2° × 2° blocks, so that fewer test sites have a neighbour in training.

    Five divide the sites into `folds` folds. Fold number `fold` is the test set, so that over all of them (with one
    seed) each site is judged once; of the rest a ninth (10 of 90 %) is for validation. A place is never divided.

    - "latitude", "longitude": contiguous bands of equal numbers of sites, from the south, or eastward from the widest
      range of longitudes without sites;
    - "kfold": places at random; "block_kfold": whole 2° × 2° blocks at random, each in folds of nearly equal size;
    - "climate": one climate is left out. Climates are the classes of the first categorical covariate whose name
      contains "climate" or "koppen" (with more classes than folds, whole classes share a fold), and without one,
      k-means clusters of all numeric covariates, standardised. A place counts as its first site by id. Folds go from
      the lowest mean latitude to the highest.

    Validation is dealt by places after "kfold" and by blocks after the other four.

    Args:
        sites: with `lon` and `lat`, degrees (site,); for "climate" also covariates, as in the site schema.
        rule: one of `RULES`.
        seed: of what is random: dealing, validation and the starts of k-means; 0 or more.
        folds: number of folds, 2 or more.
        fold: which of them is the test set, 0 to folds − 1.

    Returns:
        One label per site. Labels belong to site ids: the order of sites does not matter.

    Raises:
        ValueError: an unknown rule; folds or fold out of range; too few places, blocks or climates, so that a label or
            a fold would stay empty; for "climate", no usable covariate or a missing value.

    Source:
        Roberts et al. (2017), Ecography 40, 913: blocks, and leaving out regions of predictors. Arthur and
        Vassilvitskii (2007), SODA: the starts of k-means ("++").
    """
    if rule not in RULES:
        raise ValueError(f"binn: split must be one of {RULES}, got {rule!r}")
    if not _is_integer(folds) or folds < 2:
        raise ValueError(f"binn: folds must be a whole number, 2 or more, got {folds!r}")
    if not _is_integer(fold) or not 0 <= fold < folds:
        raise ValueError(f"binn: fold must be a whole number from 0 to {folds - 1} (folds={folds}), got {fold!r}")
    ids = np.asarray(sites.site.values, dtype=str)
    order = np.argsort(ids)
    lon, lat = (np.asarray(sites[name].values, float)[order] for name in ("lon", "lat"))
    labels = np.empty(ids.size, dtype="<U10")
    if rule not in FOLD_RULES:
        group = _place(lon, lat) if rule == "random" else _block(lon, lat)
        labels[order] = np.array(LABELS)[_deal(group, np.random.default_rng(seed))]
        return labels

    place = _place(lon, lat)
    first = np.unique(place, return_index=True)[1]  # of the sites of a place, by id
    size = np.bincount(place, minlength=first.size)
    block = _block(lon[first], lat[first])[place]  # a place on the edge of two blocks lies in one of them
    group = place if rule == "kfold" else block
    dealing, *validating = np.random.default_rng(seed).spawn(folds + 1)
    if rule == "latitude":
        member = _bands(_steps(lat[first]), size, folds)[place]
    elif rule == "longitude":
        member = _bands(_beyond_widest_gap(lon[first]), size, folds)[place]
    elif rule == "climate":
        covariates = sites[covariate_names(sites)].isel(site=order[first], missing_dims="ignore")
        member = _southern_first(_climates(covariates, size, dealing, folds)[place], lat)
    else:
        names = tuple(f"fold {number}" for number in range(folds))
        member = _deal(group, dealing, names, (1 / folds,) * folds, FEWER_FOLDS)
    _refuse_empty(member, folds, rule, first.size)
    rest = member != fold
    labels[order[~rest]] = "test"
    dealt = _deal(group[rest], validating[fold], LABELS[:2], (0.8 / 0.9, 0.1 / 0.9), FEWER_FOLDS)
    labels[order[rest]] = np.array(LABELS)[dealt]
    return labels


def distances(sites: "xr.Dataset", labels: np.ndarray) -> Float[np.ndarray, " site"]:
    """Great-circle distance of every site that is not for training to the nearest one that is.

        d = 2 R arctan2(‖a − b‖, ‖a + b‖),   a, b unit vectors,   R = 6371.0088 km

    Args:
        sites: with `lon` and `lat`, degrees, (site,).
        labels: (site,), as `split` gives them, in the order of `sites`; all but "train" count as not for training.

    Returns:
        km, (site,), float64, 0 to π R; 0 for training sites. Empty for no sites.

    Raises:
        ValueError: labels of another shape than (site,), or none of them "train".

    Source:
        Kahan (2006), How Futile are Mindless Assessments of Roundoff ("mangled angles"): accurate at every angle,
        unlike arccos near 0 and haversine near the antipode.
    """
    labels = np.asarray(labels, dtype=str)
    lon, lat = (np.radians(np.asarray(sites[name].values, float)) for name in ("lon", "lat"))
    if labels.shape != lon.shape:
        raise ValueError(f"binn: distances needs one label per site, shape {lon.shape}, got {labels.shape}")
    training = labels == "train"
    km = np.zeros(labels.size)
    if training.all():
        return km
    if not training.any():
        raise ValueError(
            f'binn: distances needs a site labelled "train" to measure from; the {labels.size} labels are '
            f"{', '.join(sorted(set(labels.tolist())))}"
        )
    vector = np.column_stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
    asked = vector[~training]
    nearest = vector[training][cKDTree(vector[training]).query(asked)[1]]
    chord, across = (np.linalg.norm(x, axis=1) for x in (asked - nearest, asked + nearest))
    km[~training] = 2 * EARTH * np.arctan2(chord, across)
    return km


def _is_integer(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _steps(degrees: Float[np.ndarray, " site"]) -> np.ndarray:
    """Degrees in steps of a place, whole numbers, so that one longitude is one number however it is written."""
    return np.round(degrees * SAME_PLACE).astype(int)


def _place(lon: Float[np.ndarray, " site"], lat: Float[np.ndarray, " site"]) -> np.ndarray:
    """Number of the place of each site, in order of first appearance; −180° and 180° east are one place."""
    rounded = np.column_stack([_steps(lon) % (360 * SAME_PLACE), _steps(lat)])
    _, first, member = np.unique(rounded, axis=0, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[member.ravel()]


def _block(lon: Float[np.ndarray, " site"], lat: Float[np.ndarray, " site"]) -> np.ndarray:
    """Number of the 2° × 2° block that each site lies in; −180° and 180° east are one place."""
    columns = int(360 / BLOCK)
    return np.floor((lat + 90) / BLOCK).astype(int) * columns + np.floor((lon % 360) / BLOCK).astype(int)


def _beyond_widest_gap(lon: Float[np.ndarray, " place"]) -> np.ndarray:
    """How far east of the widest range of longitudes without places each lies, in steps: that range is the one cut."""
    around = 360 * SAME_PLACE
    east = _steps(lon) % around
    edge = np.unique(east)
    gap = np.diff(edge, append=edge[:1] + around)
    return (east - edge[(np.argmax(gap) + 1) % edge.size]) % around if edge.size else east


def _bands(position: np.ndarray, size: Int[np.ndarray, " place"], folds: int) -> np.ndarray:
    """Fold of each place, of `size` sites, by its position: folds are contiguous and hold equal numbers of sites.

    A place lies in the band that holds the middle of its sites; places at one position follow each other by id.
    """
    order = np.argsort(position, kind="stable")
    middle = 2 * np.cumsum(size[order]) - size[order]  # twice the number of sites before the middle
    band = np.empty(size.size, dtype=int)
    band[order] = middle * folds // (2 * size.sum())
    return band


def _climates(covariates: "xr.Dataset", size: Int[np.ndarray, " place"], rng: np.random.Generator, folds: int):
    """Fold of each place: its climate class, or its cluster where no covariate tells the class."""
    names = covariate_names(covariates)
    categorical = [name for name in names if "flag_values" in covariates[name].attrs]
    for name in categorical:
        if any(word in name.lower() for word in CLIMATE):
            return _classes(covariates, name, size, folds)
    if len(names) == len(categorical):
        raise ValueError(
            'binn: split="climate" needs a categorical covariate with "climate" or "koppen" in its name, or numeric '
            f"covariates to cluster; the covariates are {', '.join(names) or 'none'}"
        )
    return _clusters(covariates.drop_vars(categorical), rng, folds)


def _classes(covariates: "xr.Dataset", name: str, size: Int[np.ndarray, " place"], folds: int) -> np.ndarray:
    """Fold of each place by its class: a class to a fold, and the further, smaller ones where there is most room."""
    values = np.asarray(covariates[name].values, float)
    if not np.isfinite(values).all():
        bad = np.flatnonzero(~np.isfinite(values))
        raise ValueError(
            f'binn: split="climate" needs a class of {name} at every place; {bad.size} of {values.size} have none, '
            f"first site {covariates.site.values[bad[0]]}"
        )
    classes, member = np.unique(values, return_inverse=True)
    if classes.size < folds:
        raise ValueError(
            f'binn: split="climate" of {folds} folds needs as many classes of {name}; places have {classes.size}: '
            f"{', '.join(f'{value:g}' for value in classes)}. Give fewer folds"
        )
    sites_of = np.bincount(member, weights=size)
    held = np.zeros(folds)
    fold = np.empty(classes.size, dtype=int)
    for number in np.argsort(-sites_of, kind="stable"):
        fold[number] = np.argmin(held)
        held[fold[number]] += sites_of[number]
    return fold[member]


def _clusters(covariates: "xr.Dataset", rng: np.random.Generator, folds: int) -> np.ndarray:
    """Fold of each place by k-means of its standardised covariates, the tightest of several starts."""
    fitted = Features.fit(covariates, np.ones(covariates.sizes["site"], dtype=bool)).covariates
    numeric = sorted((item for item in fitted if isinstance(item, Numeric)), key=lambda item: item.name)
    x = Features(tuple(numeric)).matrix(covariates).astype(float)
    different = len(np.unique(x, axis=0))
    if different < folds:
        raise ValueError(
            f'binn: split="climate" of {folds} folds needs places of as many different covariates, found {different} '
            f"at {len(x)} places. Give fewer folds, or sites at more places"
        )
    tightest, best = np.inf, None
    for _ in range(STARTS):
        try:
            centre, cluster = kmeans2(x, folds, iter=50, minit="++", missing="raise", rng=rng)
        except ClusterError:  # a cluster ran empty
            continue
        spread = np.sum((x - centre[cluster]) ** 2)
        if spread < tightest:
            tightest, best = spread, cluster
    if best is None:
        raise ValueError(
            f'binn: split="climate" found no {folds} clusters of {len(x)} places without an empty one, in {STARTS} '
            "starts. Give fewer folds"
        )
    return best.astype(int)


def _southern_first(member: np.ndarray, lat: Float[np.ndarray, " site"]) -> np.ndarray:
    """The same groups of sites, numbered by their mean latitude."""
    _, number = np.unique(member, return_inverse=True)
    mean = np.bincount(number, weights=lat) / np.bincount(number)
    return np.argsort(np.argsort(mean, kind="stable"))[number]


def _refuse_empty(member: np.ndarray, folds: int, rule: str, places: int) -> None:
    empty = np.setdiff1d(np.arange(folds), member)
    if empty.size:
        raise ValueError(
            f'binn: split="{rule}" expects a site in each of {folds} folds; {member.size} sites at {places} place(s) '
            f"leave fold {', '.join(map(str, empty))} empty. {FEWER_FOLDS[0].upper()}{FEWER_FOLDS[1:]}"
        )


def _deal(
    group: np.ndarray,
    rng: np.random.Generator,
    names: tuple[str, ...] = LABELS,
    shares: tuple[float, ...] = SHARES,
    advice: str = 'give sites at more places, or use split="random" if they lie in few 2° blocks',
) -> np.ndarray:
    """Deal whole groups, in random order, to the name that is furthest below its share: the number of that name."""
    numbers, member, size = np.unique(group, return_inverse=True, return_counts=True)
    if numbers.size < len(names):
        raise ValueError(
            f"binn: {group.size} sites in {numbers.size} group(s) of one place or block cannot be split into "
            f"{', '.join(names)}; {advice}"
        )
    target = np.array(shares) * group.size
    dealt = np.zeros(len(names))
    label = np.empty(numbers.size, dtype=int)
    for number in rng.permutation(numbers.size):
        choice = int(np.argmax((target - dealt) / target))  # an empty label is furthest below: each gets a group
        label[number] = choice
        dealt[choice] += size[number]
    return label[member]
