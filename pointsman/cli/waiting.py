"""Writes that wait for the fleet: what the control plane says about the nodes, and what that means for the exit code.

A write with `Prefer: wait=SECONDS` is answered 200/201/204 when every live node runs the new version, and 202 when
the time ran out, a node refused the version, or there was no live node to run it. The write stands in every case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pointsman.cli.client import AdminClient, Answer
from pointsman.cli.errors import ExitCode, Fault
from pointsman.cli.json_values import Json, JsonObject, as_number, as_object, as_objects, as_text
from pointsman.cli.output import Output, Table, local_time


@dataclass(frozen=True, slots=True)
class FleetOutcome:
    """How a waited write ended on the fleet."""

    exit_code: ExitCode
    version: int | None
    total: int | None  # live nodes; None where the control plane did not say
    lagging: Sequence[JsonObject]  # those that do not run the version, with the reason

    @property
    def fault(self) -> Fault | None:
        """What to tell about an outcome that is not complete."""
        if self.exit_code is ExitCode.DONE:
            return None
        version = f"version {self.version}"
        if not self.total:
            return Fault(
                f"{version} is stored, but no live node is there to run it",
                "fleet",
                "start a node with `pointsman data-plane`; it gets this version when it connects",
            )
        where = ", ".join(f"{node_name(node)} {short_id(node)} ({reason_of(node)})" for node in self.lagging)
        if self.exit_code is ExitCode.PARTIAL_FLEET:
            return Fault(
                f"{version} is stored, but not every node takes it",
                where,
                "correct what the node refused, or set the old value again; see `pointsman nodes`",
            )
        return Fault(
            f"{version} is stored, but not every node ran it in time",
            where,
            "the nodes go on towards it; watch them with `pointsman nodes --watch`",
        )


def outcome_of(answer: Answer) -> FleetOutcome:
    """Reads the answer to a write that was asked to wait."""
    if answer.status != 202:
        return FleetOutcome(ExitCode.DONE, answer.version, None, ())
    body = as_object(answer.body)
    nodes = as_object(body.get("nodes"))
    lagging = as_objects(nodes.get("lagging"))
    total = as_number(nodes.get("total"))
    version = as_number(body.get("version"))
    refused = total == 0 or any(node.get("state") == "rejected" for node in lagging)
    return FleetOutcome(
        ExitCode.PARTIAL_FLEET if refused else ExitCode.TIMED_OUT,
        answer.version if version is None else int(version),
        None if total is None else int(total),
        lagging,
    )


def report(output: Output, outcome: FleetOutcome, took_s: float) -> ExitCode:
    """Tells how a waited write ended; the exit code is the command's."""
    fault = outcome.fault
    if fault is None:
        output.message(f"version {outcome.version} runs on every live node after {seconds(took_s)}")
    else:
        output.faults(outcome.exit_code, [fault])
    return outcome.exit_code


def fleet_nodes(client: AdminClient) -> list[JsonObject]:
    """All nodes the control plane knows, by host name."""
    body = as_object(client.get("/fleet/nodes").body)
    return sorted(as_objects(body.get("data")), key=lambda node: (node_name(node), as_text(node.get("node_id"))))


def nodes_table(nodes: Sequence[JsonObject]) -> Table:
    """The fleet for eyes; with the control plane that each node is connected to, where there are several."""
    planes = {as_text(as_object(node.get("plane")).get("id")) for node in nodes if node.get("plane")}
    several = len(planes) > 1
    certified = any(node.get("certificate_expires_at") is not None for node in nodes)
    return Table(
        (
            *("NODE", "ID", "STATE"),
            *(("CONTROL PLANE",) if several else ()),
            *("VERSION", "LAST SEEN", "SOFTWARE", "LABELS"),
            *(("CERTIFICATE UNTIL",) if certified else ()),
        ),
        [
            (
                node_name(node),
                short_id(node),
                state_of(node),
                *((plane_of(node),) if several else ()),
                as_text(node.get("version")),
                age(node.get("last_seen_s_ago")),
                as_text(node.get("software")),
                as_text(node.get("labels")),
                *((local_time(node.get("certificate_expires_at")),) if certified else ()),
            )
            for node in nodes
        ],
    )


def state_of(node: JsonObject) -> str:
    """The node's state, and how many services it must have stopped serving by now for want of a control plane."""
    fenced = sum(fence.get("fenced") is True for fence in as_objects(node.get("fencing")))
    state = as_text(node.get("state"))
    return f"{state}, {fenced} fenced" if fenced else state


def plane_of(node: JsonObject) -> str:
    """The control plane that a node is connected to."""
    if not node.get("plane"):
        return ""
    plane = as_object(node.get("plane"))
    return f"{as_text(plane.get('hostname'))} {as_text(plane.get('id'))[:8]}"


def reason_of(node: JsonObject) -> str:
    """Why a node does not run the version."""
    if reason := as_text(node.get("reason")):
        return reason
    for fault in as_objects(node.get("faults")):
        named = (fault.get("collection"), fault.get("entity_name") or fault.get("entity_id"), fault.get("field"))
        where = " ".join(as_text(part) for part in named if part)
        return f"{where}: {as_text(fault.get('message'))}"
    return as_text(node.get("state")) or "no reason told"


def seconds(value: Json) -> str:
    """A span of time for eyes: milliseconds below a second."""
    number = as_number(value)
    if number is None:
        return ""
    return f"{number * 1000:.0f} ms" if number < 1 else f"{number:.1f} s"


def age(value: Json) -> str:
    """How long ago, for eyes."""
    number = as_number(value)
    if number is None:
        return ""
    if number < 120:
        return f"{number:.0f} s ago"
    return f"{number / 60:.0f} min ago" if number < 7200 else f"{number / 3600:.0f} h ago"


def short_id(node: JsonObject) -> str:
    """Enough of a node's id to tell it from another on the same host; `-o json` has all of it."""
    return as_text(node.get("node_id"))[:8]


def node_name(node: JsonObject) -> str:
    return as_text(node.get("hostname")) or as_text(node.get("node_id"))
