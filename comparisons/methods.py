"""What the draws of a network's posterior file are, by its method, and what may be said of their spread."""

from collections.abc import Mapping
from typing import NamedTuple

import xarray as xr

DROPOUT = "mc_dropout"  # the only method of files that were written before they said what their draws are


class Words(NamedTuple):
    """How the report speaks of a method.

    draws: what they are called, plural. spread: a sentence on what their spread is. within: what makes the spread of
    one chain. untrained: draws that are narrow without having learned, or "". limit: a sentence for the limits.
    """

    draws: str
    spread: str
    within: str
    untrained: str
    limit: str


METHODS = {
    DROPOUT: Words(
        "dropout draws",
        "The spread is the network's own, not a posterior by construction.",
        "dropout",
        "dropout draws",
        "The spread of dropout draws depends on the dropout rate and is not a posterior by construction; coverage is "
        "the test.",
    ),
    "ensemble": Words(
        "members of an ensemble",
        "The spread is how far training anew moves the answer, not a posterior by construction.",
        "members",
        "members of an ensemble",
        "The spread of an ensemble comes from its members' first weights and batches and is not a posterior by "
        "construction; coverage is the test.",
    ),
    "laplace": Words(
        "draws of the network's head",
        "The spread is that of the network's last layer, by the curvature of the training likelihood: what all "
        "training sites leave open of the network, not what one profile leaves open of the parameters.",
        "between heads",
        "heads drawn around the trained one",
        "Laplace's draws take the body of the network as known and its head as Gaussian: their spread is not a "
        "posterior of the parameters by construction; coverage is the test.",
    ),
    "amortised": Words(
        "draws of the network's own distribution",
        "The spread is that of the distribution that the network answers, trained against the sampler's prior: an "
        "approximate posterior.",
        "what each answers",
        "",
        "An amortised posterior is no better than its training: one network for all sites, Gaussian on the probit "
        "scale of the box; coverage is the test.",
    ),
    "proda_network": Words(
        "networks of PRODA's second stage",
        "The spread is how far training on other sites moves the answer; the width of the sites' posteriors is left "
        "out, as published.",
        "networks",
        "networks of an ensemble",
        "PRODA's second stage learns posterior means: its spread is not a posterior by construction; coverage is the "
        "test.",
    ),
}
OTHER = Words(
    "independent draws",
    "What their spread means depends on the method.",
    "within them",
    "",
    "The spread of the network's draws is not a posterior by construction; coverage is the test.",
)


def independent(attrs: Mapping[str, object]) -> bool:
    """Whether a file's draws are independent, so that R-hat and effective sample size do not apply."""
    return attrs.get("draws_are") == "independent" or attrs.get("method") == DROPOUT


def words(attrs: Mapping[str, object]) -> Words:
    """The words for a file's method."""
    return METHODS.get(str(attrs.get("method", "")), OTHER)


def reads_profile(attrs: Mapping[str, object]) -> bool:
    """Whether the network is given the measured profile of the site that it answers for."""
    return attrs.get("reads_profile") == "yes" or attrs.get("loss") == "simulation"


def attributes(result: xr.Dataset, way: str = "network") -> dict[str, object]:
    """The attributes of one way's file, as a result of `compare` keeps them."""
    start = f"{way}_"
    return {str(key).removeprefix(start): value for key, value in result.attrs.items() if str(key).startswith(start)}


def describe(attrs: Mapping[str, object], chains: int) -> str:
    """What chains and draws are, and why R-hat does not apply to them."""
    chain = attrs.get("chain_is", "an independently trained member")
    draw = attrs.get("draw_is", "a dropout mask" if attrs.get("method") == DROPOUT else "drawn by itself")
    there = "the only one" if chains == 1 else f"there are {chains}"
    several = chains > 1 or attrs.get("method") == "ensemble"
    differ = ": members that differ are no sign of a chain that has not converged" if several else ""
    profile = " It reads the measured profile of the site that it answers for." if reads_profile(attrs) else ""
    return (
        f"The draws are independent: a chain is {chain} ({there}), a draw is {draw}. R-hat and effective sample size "
        f"do not apply{differ}. {words(attrs).spread}{profile}"
    )
