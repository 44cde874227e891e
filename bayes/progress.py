"""A progress bar for people at a terminal; nothing elsewhere."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """Batches done, and time left measured in transitions; a context manager.

    Args:
        batches: how many there are.
        transitions: per batch, warm-up included.
        shown: False is silent, and so is any output that is not a terminal.
        what: is being done.
    """

    def __init__(
        self,
        batches: int,
        transitions: int,
        *,
        shown: bool = True,
        what: str = "sampling",
        console: Console | None = None,
    ):
        console = Console(stderr=True) if console is None else console
        self._per_batch, self._done, self._batches, self._what = transitions, 0, batches, what
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self._bar = Bar(*columns, console=console, disable=not (shown and console.is_terminal), transient=True)
        self._task = self._bar.add_task(self._label(), total=batches * transitions)

    def _label(self) -> str:
        return f"{self._what}, batch {min(self._done + 1, self._batches)} of {self._batches}"

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, *exception) -> None:
        self._bar.stop()

    def tick(self, transitions: int) -> None:
        """So many transitions of the present batch are done."""
        self._bar.advance(self._task, transitions)

    def batch_done(self) -> None:
        """The present batch is finished, or was already there."""
        self._done += 1
        self._bar.update(self._task, completed=self._done * self._per_batch, description=self._label())
