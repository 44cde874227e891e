"""A run over all sites: its batches, further attempts at sites that missed the limits, and what is kept of them."""

import datetime
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr

import clm5
from bayes.batch import better, sample_batch
from bayes.config import Config
from bayes.progress import Progress
from bayes.sampler import Tick, batch_width
from bayes.storage import InMemory, InStore, Kept, RunFolder
from clm5.sites.schema import BLOCK

LARGEST_IN_MEMORY = 8e9  # bytes of a posterior file that is made in memory


@dataclass(frozen=True)
class Batch:
    """Sites that are sampled in one program.

    rows: where they stand in the site data set. attempt: 0, or the number of the re-run. width: places of the program.
    """

    rows: tuple[int, ...]
    attempt: int
    width: int


Spread = Callable[["Run", list[Batch], Tick], Iterator[tuple[Batch, xr.DataTree]]]


class Run:
    """All batches of a run; arguments as for `bayes.sample`.

    The batches follow from the sites, the configuration and the devices at hand when the run was begun, and a site's
    draws from the seed, its id and the width of its batch: neither the order in which batches are done nor where is of
    consequence.

    Args:
        devices: that a batch is to be shared by.
    """

    def __init__(
        self,
        sites: xr.Dataset,
        config: Config,
        out: str | os.PathLike | None,
        seed: int,
        *,
        resume: bool,
        devices: int,
    ):
        self.sites, self.config, self.seed = sites, config, seed
        if config.store == "zarr" and out is None:
            raise ValueError("bayes: store='zarr' fills a folder as batches finish; name it with `out`")
        clm5.sites.check(sites, block=BLOCK)
        refuse_too_large(sites, config)
        self.site = [str(name) for name in sites["site"].values]
        self._fingerprint = clm5.sites.fingerprint(sites)
        facts = {"width": batch_width(len(self.site), config.batch, devices), "devices": devices}
        self._folder = None
        if out is not None:
            request = {"config": config.request(), "seed": seed, "sites": self._fingerprint}
            self._folder = RunFolder(out, request, resume=resume, facts=facts, store=config.store)
            facts = self._folder.facts
        self._width, self._devices = facts["width"], facts["devices"]

    def part(self, batch: Batch) -> xr.Dataset:
        """The sites of a batch, read into memory."""
        return self.sites.isel(site=list(batch.rows)).load()

    def sample(self, spread: Spread, progress: bool) -> xr.DataTree:
        """Do what is not done yet, by `spread`, and give the posterior file.

        Args:
            spread: samples batches, in any order: run, batches, tick → (batch, its tree).
            progress: show a bar.
        """
        kept = self._kept()
        if self._folder is not None and kept.complete:
            return clm5.open_posterior(self._folder.posterior)
        for attempt in range(self.config.reruns + 1):
            longer, todo = self.config.longer(attempt), self._todo(kept, attempt)
            if not todo:
                continue
            what = "sampling again" if attempt else "sampling"
            with Progress(len(todo), longer.warmup + longer.draws, shown=progress, what=what) as bar:
                for batch, tree in spread(self, todo, bar.tick):
                    members = [self.site[row] for row in batch.rows]
                    kept.put(better(kept.read(members), tree) if attempt else tree, attempt)
                    bar.batch_done()
        return kept.finish(self._attributes(kept))

    def _kept(self) -> Kept:
        if self._folder is not None and self.config.store == "zarr":
            return InStore(self.site, self._folder, self._width)
        return InMemory(self.site, self._folder)

    def _todo(self, kept: Kept, attempt: int) -> list[Batch]:
        """The batches of an attempt that are not kept yet."""
        if attempt == 0:
            rows, done, width = np.arange(len(self.site)), kept.finished, self._width
        else:
            rows, done = self._failing(kept, attempt)
            if not len(rows):
                return []
            width = batch_width(len(rows), self._width, self._devices)
        starts = [first for first in range(0, len(rows), width) if not done[first : first + width].all()]
        return [Batch(tuple(map(int, rows[first : first + width])), attempt, width) for first in starts]

    def _failing(self, kept: Kept, attempt: int) -> tuple[np.ndarray, np.ndarray]:
        """The sites whose first `attempt` attempts missed the limits, and which of them have been tried again since."""
        status = kept.status()
        made, converged = status["attempts"].values, status["converged"].values
        rows = np.flatnonzero((made > attempt) | ((made == attempt) & ~converged))
        return rows, made[rows] > attempt

    def _attributes(self, kept: Kept) -> dict[str, str | int | float]:
        status = kept.status()
        n_gradients = int(status["n_gradients"].sum())
        return {
            "sites_fingerprint": self._fingerprint,
            "wall_time_s": float(status["seconds"].sum()),
            "n_solves": n_gradients,
            "n_gradients": n_gradients,
            "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }


def in_this_process(run: Run, batches: list[Batch], tick: Tick) -> Iterator[tuple[Batch, xr.DataTree]]:
    """One batch after the other."""
    for batch in batches:
        how = {"attempt": batch.attempt, "width": batch.width}
        yield batch, sample_batch(run.part(batch), run.config, run.seed, **how, tick=tick)


def refuse_too_large(sites: xr.Dataset, config: Config) -> None:
    if config.store == "zarr" or config.keep == "summary":
        return
    numbers = 2 * 21 + 6 + 20 + 2 * sites.sizes["horizon"] + 14  # float32 each, of a draw
    size = 4.0 * numbers * config.chains * config.kept_draws * sites.sizes["site"]
    if size > LARGEST_IN_MEMORY:
        raise ValueError(
            f"{sites.sizes['site']} sites with {config.chains} × {config.kept_draws} draws make a posterior file of "
            f"{size / 1e9:.0f} GB, which netCDF needs in memory (the limit is {LARGEST_IN_MEMORY / 1e9:.0f} GB). Use "
            "store='zarr', and thin=… or keep='summary' to make it smaller"
        )
