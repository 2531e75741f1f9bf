"""What a person sees of a training: a progress bar on a terminal, a line for each epoch elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class ProgressReport:
    """Context manager; silent where `enabled` is false (every process but the first)."""

    def __init__(self, steps: int, first: int, enabled: bool) -> None:
        self.console = Console(quiet=not enabled, highlight=False)
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[terms]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not (enabled and self.console.is_terminal),
        )
        self._task = self._bar.add_task("", total=steps, completed=first, epoch="", terms="")

    def __enter__(self) -> ProgressReport:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, step: int, epoch: int, terms: Mapping[str, float]) -> None:
        """Show the terms of the loss after a step."""
        self._bar.update(self._task, completed=step, epoch=epoch + 1, terms=_line(terms))

    def epoch(self, epoch: int, epochs: int, terms: Mapping[str, float]) -> None:
        """Show the means over an epoch, where there is no bar."""
        if not self.console.is_terminal:
            self.console.print(f"epoch {epoch + 1}/{epochs}  {_line(terms)}", soft_wrap=True)

    def say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)


def _line(terms: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.2f}" for name, value in terms.items())
