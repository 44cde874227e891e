"""The course of a training as a picture: losses and skill over epochs."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from binn.run import Run
from clm5._atomic import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRAINING, VALIDATION = "#0072B2", "#D55E00"  # Okabe and Ito: distinct to colour-blind eyes
LABELS = ("training sites", "validation sites", "epoch that was kept")
WIDE = 5.0  # losses that are all positive and reach over more than this factor are drawn on a logarithmic axis
LEAST_NSE = -0.5  # skill below is not drawn
DPI = 120


def plot_history(run: Run, path: str | Path | None = None) -> "Figure":
    """Loss of training and validation sites, and NSE of ln SOC at validation sites, over epochs.

    A line per member; a dot at the epoch whose weights were kept, the one of the least validation loss.

    Args:
        run: of `binn.fit` or `binn.load`.
        path: a PNG to write (whole or not at all, replacing what is there); None writes nothing.

    Returns:
        A matplotlib Figure that no global state knows of.
    """
    from matplotlib.figure import Figure  # here: half a second to import, and only this needs it
    from matplotlib.ticker import MaxNLocator

    history = run.history
    figure = Figure(figsize=(8.5, 3.4), layout="constrained")
    loss, skill = figure.subplots(1, 2)
    fade = 1.0 if len(run.best_epoch) == 1 else 0.65
    for number, best in enumerate(run.best_epoch):
        rows = history[history.member == number]
        kept = rows[rows.epoch == best]
        training, validation, dot = LABELS if number == 0 else (None, None, None)
        loss.plot(rows.epoch, rows.train_loss, color=TRAINING, lw=1.3, alpha=fade, label=training)
        loss.plot(rows.epoch, rows.validation_loss, color=VALIDATION, lw=1.3, alpha=fade, label=validation)
        skill.plot(rows.epoch, rows.validation_nse, color=VALIDATION, lw=1.3, alpha=fade)
        for axis, column in ((loss, kept.validation_loss), (skill, kept.validation_nse)):
            label = dot if axis is loss else None
            axis.plot(kept.epoch, column, "o", ms=5, mfc="white", mec="black", ls="none", label=label)
    values = history[["train_loss", "validation_loss"]].to_numpy()
    if values.min() > 0 and values.max() > WIDE * values.min():
        loss.set_yscale("log")
    low = float(np.nanmin(history.validation_nse)) if history.validation_nse.notna().any() else LEAST_NSE
    skill.set_ylim(max(low - 0.05, LEAST_NSE), 1)
    loss.set_ylabel(f"loss ({run.config.loss})")
    skill.set_ylabel("NSE of ln SOC, validation sites")
    members = f", {len(run.best_epoch)} members" * (len(run.best_epoch) > 1)
    skill.set_title(f"epoch {_spoken(run.best_epoch)} kept{members}", fontsize=9)
    for axis in (loss, skill):
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axis.grid(color="#E5E5E5", lw=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*loss.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    if path is not None:
        write_atomically(Path(path), lambda part: figure.savefig(part, dpi=DPI, metadata={"Software": None}))
    return figure


def _spoken(epochs: tuple[int, ...]) -> str:
    return str(epochs[0]) if len(set(epochs)) == 1 else f"{min(epochs)} to {max(epochs)}"
