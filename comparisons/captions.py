"""The standing texts of the report: what each number and picture means, and what the comparison cannot show."""

AVERAGES = {
    "processes": "six processes, plant carbon input among them",
    "processes without carbon input": "five processes, without plant carbon input",
    "parameters": "all 21 parameters",
    "parameters both claim": "the {both} parameters that both claim",
}

AVERAGES_NOTE = (
    "Correlation over sites of the two posterior means, in physical units. Plant carbon input is forcing: both "
    "ways are given the same numbers, so its r is 1 by construction, and the mean with it flatters. Intervals: "
    "sites resampled. The last column is what quoting the prior would score against the sampler: climate and "
    "soil alone make processes differ between sites, with nothing learned. Parameters have the same prior "
    "everywhere, so there it is undefined."
)

READING = (
    "<b>How to read the tables.</b> <b>r</b> asks whether the sites come in the same order and spacing; it sees "
    "neither bias nor scale, and for shuffled sites it is about 0. <b>Overlap</b> (0 to 1) asks how much of the "
    "two posteriors is common at a site; beside it the <b>floor</b>, what quoting the prior would score against "
    "the sampler, and the <b>best</b>, the sampler's own chains, half against half, both with no more draws than the "
    "network has. Halves have fewer draws, so the best is slightly too low. <b>Overlap skill</b> is 0 at the floor "
    "and 1 at the best, and missing where the two are too close to tell. <b>Distance</b> is how far draws would"
    " have to move, in widths of the prior, "
    "with the same two neighbours. <b>Narrower than the prior</b> is 1 − sd of the posterior / sd of the prior, and "
    "<b>bits</b> the Kullback-Leibler divergence from the prior; <b>means vary</b> is the variance of the posterior "
    "means over sites, beyond their noise and what the prior's do, in prior variances. Narrow is not right: a network "
    "can be narrow before it has seen any data. Where both are below the threshold, r is noise and the overlap is high "
    "by itself: such rows say little."
)

PROCESSES = (
    "A: carbon transfer efficiency. K: baseline decomposition. Xi: environmental modifier. V: vertical transport. "
    "I: allocation of carbon input with depth. Processes have no box; their prior is the prior of the parameters "
    "carried through the model at each site, and overlap, distance and learning are measured on its logarithm "
    "where all values are positive. For orientation, Xu et al. (arXiv 2502.00672) report a mean r over six "
    "processes, plant carbon input among them, of 0.81 (first version) and 0.86 (revision) against PRODA on "
    "25,925 sites of the USA."
)

CALIBRATION = (
    "At a share of sites equal to its promise, an interval should hold the truth. ± is the binomial standard "
    "error, in percentage points, that a calibrated posterior would have over this many independent sites; sites "
    "that share one network are not independent. The row of the bare prior is what knowing nothing scores. "
    "Unless the truth "
    "was drawn from the prior, as virtual truths that follow climate and soil are not, the prior may hold it more "
    "often than it promises, and only holding it too seldom is informative. Read the width (in widths of the prior's "
    "interval) alongside, and the root mean square error of the mean: in unit space for parameters, of logarithms for "
    "processes; a way has learned where its error is below that of the prior's mean, the middle of the box."
)

SOC = (
    "Median of the predictive draws against the observed horizons, on natural logarithms (0.2 is about 20 %), and "
    "how many observations the predictive intervals hold. The sampler is fitted to each site's own profile, so it "
    "is always scored in sample; the network is scored out of sample only at sites it was not trained on. Do not "
    "compare an in-sample row with a held-out one. SOC skill cannot rank the ways by their parameters: different "
    "parameters can give the same carbon."
)

SOC_PROFILE = (
    " This network reads the measured profile of the site that it answers for: it is given what it is scored on, "
    "at sites held out from training too."
)

COST = (
    "As each file records it, for everything that the file holds (here {sites} sites are compared): training is "
    "counted for the network and warm-up for the sampler. Per site: divided by the sites that the file holds. The "
    "sampler's solves are those inside its gradients. Times compare only on one machine. A gradient costs about as "
    "much as a few solves. Many draws at the largest tree depth mean trajectories that were cut short."
)

DRAWS_APART = (
    "The network's solves are those of training; the columns that carry its draws to carbon stand in a row of "
    "their own."
)
DRAWS_NOT_COUNTED = "The network's solves leave out those that carry its draws through the column to carbon."

WITHOUT_FILES = (
    "This report was made without the posterior files: posteriors and soil-carbon profiles of single sites are "
    "left out."
)

FIGURES = {
    "correlation_processes": (
        "The six processes: sampler across, network up, one point a site, lines ± one posterior sd, dashed: "
        "equality. Orange: held out from training. Grey panels: at least one way is below the threshold, or the "
        "quantity is forcing."
    ),
    "correlation_parameters": (
        "The 21 parameters, drawn as above; the axes span the prior. A way that knows nothing keeps its points "
        "at the middle of the prior: in a grey panel there is little to agree on."
    ),
    "overlap_and_information": (
        "Left: mean overlap of the two posteriors (diamond, line: middle 80 % of sites) between what quoting the "
        "prior would score and what the sampler scores against itself (grey bar). Right: how much narrower than the"
        " prior. "
        "Dotted: the threshold."
    ),
    "calibration": (
        "Share of sites whose interval holds the truth against its promise; thin lines: parameters that the way "
        "claims, thick: their mean, grey dots: the mean of the bare prior box, band: ± 2 binomial standard errors "
        "of one parameter. Below the "
        "diagonal: too certain."
    ),
    "soc_profiles": (
        "Modelled soil carbon by depth, median and 90 % band without observation error, and the observed horizons "
        "as boxes from upper to lower boundary. The horizontal axis is logarithmic."
    ),
    "posteriors": (
        "Posteriors of the six narrowest parameters, at the sites of most, median and least overlap; dotted: "
        "the prior, black tick: the truth where it is known. Each panel spans the prior; a peak over "
        "four times the other is cut."
    ),
    "map": (
        "The sites, coloured by mean overlap over the parameters that the sampler claims. Stars: held out from "
        "training."
    ),
    "overlap_sites": (
        "Overlap at every site; parameters from the narrowest (top) to the widest. Rows at the bottom that are "
        "bright throughout agree on the prior."
    ),
}

LIMITS = (
    ("Agreement is not truth: two ways that share a model, a prior and an error model share their mistakes too."),
    (
        "One profile of soil carbon constrains few of the 21 parameters; the sampler sees one profile at a time, "
        "the network learns over all sites through their covariates. They may differ without either being wrong."
    ),
    (
        "Overlap and distance look at one parameter at a time; correlations between parameters are not compared "
        "here, except as far as the processes combine them."
    ),
    (
        "Densities are resolved to 1/512 of the prior's width and smoothed: overlaps of the same distribution "
        "read 0.94 to 0.98, depending on the number of draws."
    ),
    ("Intervals and standard errors take sites as independent; neighbouring sites are not."),
)

FILES = (
    "In the folder of this page: <code>tables/</code> (every number above and per site, CSV), "
    "<code>figures/</code> (PNG) and <code>comparison.nc</code> (all of it with labels, netCDF)."
)
