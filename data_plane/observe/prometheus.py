"""Prometheus' text format, written piece by piece.

Format 0.0.4: for each metric its HELP and TYPE once, then its samples together; label values escaped; histograms as
cumulated buckets with `+Inf`, sum and count. Metrics are declared as `Metric` values, of which the reference in
docs/reference/metrics.md is made too, and a sample with labels that were not declared is a mistake of ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from data_plane.observe.histogram import cumulated

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Kind(StrEnum):
    """What a metric's values mean."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its full name, one line of help, its labels in the order they are written, bounds of a histogram."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[int, ...] = ()


class Exposition:
    """A page of metrics as it grows. `errors` counts values that could not be had."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def __len__(self) -> int:
        """Return how many lines there are."""
        return len(self._lines)

    def begin(self, metric: Metric) -> None:
        """Write the head of a metric; its samples follow, and nothing else."""
        self._lines.append(f"# HELP {metric.name} {_escaped_help(metric.help)}")
        self._lines.append(f"# TYPE {metric.name} {metric.kind.value}")

    def sample(self, metric: Metric, values: Sequence[str], number: float) -> None:
        """Write one sample; `values` are those of the metric's labels."""
        self._lines.append(f"{metric.name}{labelled(metric.labels, values)} {_number(number)}")

    def histogram(self, metric: Metric, values: Sequence[str], counts: Sequence[int], total: float) -> None:
        """Write one histogram of uncumulated counts, +Inf last; `total` is the sum of what was observed."""
        before = labelled(metric.labels, values)[1:-1]
        name = metric.name
        comma = "," if before else ""
        sums = cumulated(counts)
        for bound, count in zip((*map(str, metric.bounds), "+Inf"), sums, strict=True):
            self._lines.append(f'{name}_bucket{{{before}{comma}le="{bound}"}} {count}')
        shown = f"{{{before}}}" if before else ""
        self._lines.append(f"{name}_sum{shown} {_number(total)}")
        self._lines.append(f"{name}_count{shown} {sums[-1]}")

    def single(self, metric: Metric, number: float) -> None:
        """Write a metric without labels."""
        self.begin(metric)
        self.sample(metric, (), number)

    def family(self, metric: Metric, samples: Iterable[tuple[Sequence[str], float]]) -> None:
        """Write a metric with all its samples."""
        self.begin(metric)
        for values, number in samples:
            self.sample(metric, values, number)

    def page(self) -> bytes:
        """Return the whole page."""
        return "".join(f"{line}\n" for line in self._lines).encode("utf-8", "replace")


def labelled(names: Sequence[str], values: Sequence[str]) -> str:
    """Return labels in braces, or nothing when there are none."""
    if not names:
        return ""
    pairs = [f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True)]
    return "{" + ",".join(pairs) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _escaped_help(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _number(number: float) -> str:
    if number == int(number) and abs(number) < 1e15:
        return str(int(number))
    return repr(float(number))
