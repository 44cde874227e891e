"""A line on the terminal while the network trains; silence where nobody watches."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

SPEED_PERIOD = 600.0  # s of epochs that the time left is judged by
WIDE = 100  # columns of a terminal; a narrower one shows no bar, so that the numbers fit


@contextmanager
def training_progress(epochs: int, member: int, members: int, *, show: bool) -> Iterator[Callable[[dict], None]]:
    """Yield a function that takes one row of the history; it draws only where `show` is true, on a terminal.

    The time left is that of the member to its last epoch: training stops earlier where validation stops improving.
    """
    from rich.console import Console  # here: a second to import, and only this needs it
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not (show and console.is_terminal):
        yield lambda row: None
        return
    title = "training" if members == 1 else f"training {member + 1}/{members}"
    wide = (BarColumn(bar_width=12), TimeElapsedColumn()) if console.width >= WIDE else ()
    scores_and_time = (TextColumn("{task.fields[scores]}"), TextColumn("left ≤"), TimeRemainingColumn(compact=True))
    columns = (TextColumn("{task.description}"), *wide, *scores_and_time)
    with Progress(*columns, console=console, speed_estimate_period=SPEED_PERIOD) as bar:
        task = bar.add_task(title, total=epochs, scores="compiling")

        def show_row(row: dict) -> None:
            scores = (
                f"epoch {row['epoch']}/{epochs} loss {row['train_loss']:.4g} "
                f"validation {row['validation_loss']:.4g} NSE {row['validation_nse']:.3f}"
            )
            bar.update(task, completed=row["epoch"], scores=scores)

        yield show_row
