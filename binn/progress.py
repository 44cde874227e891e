"""A line on the terminal while the network trains; silence where nobody watches."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def training_progress(epochs: int, member: int, members: int, *, show: bool) -> Iterator[Callable[[dict], None]]:
    """Yield a function that takes one row of the history; it draws only where `show` is true, on a terminal."""
    from rich.console import Console  # here: a second to import, and only this needs it
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not (show and console.is_terminal):
        yield lambda row: None
        return
    title = "training" if members == 1 else f"training {member + 1} of {members}"
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[scores]}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=epochs, scores="compiling")

        def show_row(row: dict) -> None:
            scores = (
                f"epoch {row['epoch']} of {epochs}  loss {row['train_loss']:.4g}  "
                f"validation {row['validation_loss']:.4g}  NSE {row['validation_nse']:.3f}"
            )
            bar.update(task, completed=row["epoch"], scores=scores)

        yield show_row
