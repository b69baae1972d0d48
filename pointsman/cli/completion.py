"""What the shell offers when Tab is pressed on the name of something: the names that the control plane has now.

A shell that waits is worse than one that offers nothing, so there is one short attempt and no error.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import typer

from pointsman.cli.client import PAGE_SIZE, AdminClient, segment
from pointsman.cli.contexts import Target, chosen
from pointsman.cli.errors import CliError
from pointsman.cli.json_values import as_object, as_objects, as_text

TIMEOUT_S = 2.0

Completion = Callable[[typer.Context, str], list[str]]


def names_at(path: str, *keys: str) -> Completion:
    """Offers what the objects of a page have under the first of `keys` that is set."""

    def offered(context: typer.Context, incomplete: str) -> list[str]:
        return _matching(_names(context, path, keys), incomplete)

    return offered


def targets(context: typer.Context, incomplete: str) -> list[str]:
    """Offers the targets of the upstream that `--upstream` or the argument before names."""
    upstream = context.params.get("upstream")
    if not isinstance(upstream, str) or not upstream:
        return []
    return _matching(_names(context, f"/upstreams/{segment(upstream)}/targets", ("target",)), incomplete)


def _matching(names: Iterator[str], incomplete: str) -> list[str]:
    return sorted({name for name in names if name.startswith(incomplete)})


def _names(context: typer.Context, path: str, keys: tuple[str, ...]) -> Iterator[str]:
    try:
        client = _client(context)
        page = as_objects(as_object(client.get(path, {"size": str(PAGE_SIZE)}).body).get("data"))
    except CliError:
        return
    for each in page:
        name = next((as_text(each[key]) for key in keys if each.get(key) is not None), "")
        if name:
            yield name


def _client(context: typer.Context) -> AdminClient:
    """The root command has not run, so its options are read from what was parsed of them, or from the environment."""
    said = context.find_root().params

    def option(name: str, variable: str) -> str:
        value = said.get(name)
        return value if isinstance(value, str) and value else os.environ.get(variable, "")

    given = Target(option("addr", "POINTSMAN_ADDR"), option("token", "POINTSMAN_TOKEN"), option("ca", "POINTSMAN_CA"))
    target = chosen(given, option("named", "POINTSMAN_CONTEXT"), os.environ)
    return AdminClient(target.address, token=target.token, ca_file=target.ca_file, read_only=True, timeout_s=TIMEOUT_S)


SERVICES = names_at("/services", "name", "id")
UPSTREAMS = names_at("/upstreams", "name", "id")
NODES = names_at("/fleet/nodes", "node_id")
