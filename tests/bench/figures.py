"""The figures of one run of the benchmarks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from support.pictures import draw_pictures, vary_pictures


@dataclass(frozen=True)
class Figure:
    """One measured figure beside what was promised."""

    name: str
    value: float
    unit: str
    promised: str
    is_met: bool


class Bench:
    """Collects the figures of one run."""

    def __init__(self, scratch: Path, evaluation: Path, models: Path) -> None:
        self.scratch = scratch
        self.models = models  # Where full-size models of random weights are made, or lie already.
        self.evaluation = evaluation
        self.figures: list[Figure] = []
        self.console = Console(stderr=True)

    def at_least(self, name: str, value: float, unit: str, bound: float) -> None:
        """Add a figure that should not be lower."""
        self._add(Figure(name, round(value, 3), unit, f"at least {bound:g}", value >= bound))

    def at_most(self, name: str, value: float, unit: str, bound: float) -> None:
        """Add a figure that should not be higher."""
        self._add(Figure(name, round(value, 3), unit, f"at most {bound:g}", value <= bound))

    def _add(self, figure: Figure) -> None:
        self.figures.append(figure)
        self.console.print(f"{figure.name}: {figure.value:g} {figure.unit} ({figure.promised})")

    def pictures(self, name: str, count: int) -> Path:
        """Make a folder of pictures, from the evaluation set where there is one."""
        folder = self.scratch / name
        if self.evaluation.is_dir():
            vary_pictures(self.evaluation / "images", folder, count)
        else:
            draw_pictures(folder, count)
        return folder

    def report(self, name: str, value: float, unit: str) -> None:
        """Add a figure that nothing was promised of."""
        self._add(Figure(name, round(value, 4), unit, "reported", True))
