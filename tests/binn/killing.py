"""Ends a training in the middle of its work, at chosen epochs."""

from binn import training


class Killed(BaseException):
    """What ends a process."""


def kill_in_epochs(monkeypatch, *epochs: int) -> list[int]:
    """Have `binn.fit` die in these epochs, counted from 1 over all begun; returns one entry per epoch begun."""
    real, begun = training.evaluate, []

    def evaluate(*args, **kwargs):
        begun.append(1)
        if len(begun) in epochs:
            raise Killed
        return real(*args, **kwargs)

    monkeypatch.setattr(training, "evaluate", evaluate)
    return begun
