"""docs/reference/metrics.md, made from the tables that the pages of `/metrics` are made from.

python -m tests.support.metrics_reference > docs/reference/metrics.md
"""

from __future__ import annotations

import sys

from control_plane.admin.metrics import METRICS as PLANE_METRICS
from data_plane.node.metrics import METRICS as NODE_METRICS
from data_plane.node.metrics import TARGET_ADDRESSES_MAX

_HEAD = f"""# Metrics

Both planes show their metrics in Prometheus' text format (0.0.4), without authentication on a node and under the Admin
API's rules on the control plane. Names, labels and buckets of `kong_*` are those of Kong's Prometheus plugin, so that
its dashboards fill; everything is on, and bounded instead.

| where | path |
|---|---|
| a node | `GET /metrics` on `status_listen` (127.0.0.1:8007) |
| the control plane | `GET /metrics` on the Admin API |

**Series are bounded.** `metrics_series_max` (10,000) limits the series of (service, route, code, source) of a node;
requests beyond it are counted in service and route `_overflow`, and `pointsman_metrics_folded_total` says how many
were. At most {TARGET_ADDRESSES_MAX:,} addresses of targets are shown; `pointsman_metrics_targets_omitted` says how many
targets are left out.

**Sums are a node's.** Its workers' counts are added up, those of workers that ended included; what a worker counted in
its last five seconds is lost when it crashes. Counters begin at zero when the node process starts.

`service` is a service's name, or its host when it has none; `route` is a route's name or id; `workspace` is `default`
and `consumer` is empty, for Kong's dashboards. Requests without a route are in `kong_nginx_requests_total` only.
`kong_stream_*` and `kong_session_*` are not there: nodes do not proxy streams.
"""


def reference() -> str:
    """Return the whole document."""
    lines = [_HEAD, "## A node", "", "| metric | type | labels | |", "|---|---|---|---|"]
    for metric in NODE_METRICS:
        labels = ", ".join(f"`{label}`" for label in (*metric.labels, *(("le",) if metric.bounds else ())))
        lines.append(f"| `{metric.name}` | {metric.kind.value} | {labels or '-'} | {metric.help} |")
    lines += ["", "Buckets, in milliseconds, `+Inf` added:", "", "| metric | buckets |", "|---|---|"]
    for metric in NODE_METRICS:
        if metric.bounds:
            lines.append(f"| `{metric.name}` | {', '.join(map(str, metric.bounds))} |")
    lines += ["", "## The control plane", "", "| metric | type | labels | |", "|---|---|---|---|"]
    for declared in PLANE_METRICS:
        labels = ", ".join(f"`{label}`" for label in declared.labels)
        lines.append(f"| `{declared.name}` | {declared.kind.value} | {labels or '-'} | {declared.help} |")
    lines += ["", "The Prometheus client's `process_*` (CPU, memory, open files, start time) come with them."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
