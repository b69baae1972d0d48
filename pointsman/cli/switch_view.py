"""A switch for eyes: the table of proof, the tree that is redrawn while it happens, and lines for a pipe. Pure.

Every fact here is in the Admin API's answer; `-o json` prints that. All of it fits 80 columns, and each sign has a
plain spelling for terminals without UTF-8.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pointsman.cli import canary_view
from pointsman.cli.errors import ExitCode
from pointsman.cli.json_values import Json, JsonObject, as_number, as_object, as_objects, as_text
from pointsman.cli.output import Table, local_time
from pointsman.cli.signs import Signs
from pointsman.cli.waiting import node_name, seconds, short_id

WIDTH = 80
NODES_SHOWN_MAX = 12
"""Nodes in the tree; those that are not well come first, the rest is a number. The table has all."""
ENDED = canary_view.ENDED
_ILL = ("refused", "slow", "gone", "lagging", "released")


def moves(view: JsonObject) -> str:
    """`shop, cart: blue -> green`."""
    services = as_objects(view.get("services"))
    names = ", ".join(as_text(each.get("name")) for each in services)
    sources = ", ".join(dict.fromkeys(as_text(each.get("from")) for each in services))
    return f"{names}: {sources} -> {as_text(view.get('to'))}"


def headline(view: JsonObject) -> str:
    """What was asked for, in one line."""
    if canary_view.is_canary(view):
        return canary_view.headline(view, moves(view))
    verb = "switch" if view.get("verb") != "undo" else f"undo of switch {as_text(view.get('undoes'))}, switch"
    version = f", version {as_text(view.get('version'))}" if view.get("version") is not None else ""
    return f"{moves(view)}, {verb} {as_text(view.get('switch'))}{version}"


def ending(view: JsonObject) -> str:
    """How it stands or ended, in one line."""
    if canary_view.is_canary(view):
        return canary_view.ending(view)
    if view.get("state") == "scheduled":
        return f"scheduled: {moves(view)} at {local_time(view.get('at'))}; it is checked and begun then"
    if view.get("state") in ("cancelled", "missed", "refused"):
        return f"{as_text(view.get('state'))}, nothing has changed: {as_text(view.get('ended_because'))}"
    nodes = as_objects(view.get("nodes"))
    switched = sum(node.get("standing") in ("activated", "followed") for node in nodes)
    parts = [f"{as_text(view.get('state'))}: {switched} of {len(nodes)} nodes serve {as_text(view.get('to'))}"]
    if view.get("state") == "aborted":
        parts = [f"aborted, nothing has changed: {as_text(view.get('ended_because'))}"]
    if view.get("took_s") is not None:
        parts.append(f"after {seconds(view.get('took_s'))}")
    if view.get("skew_us") is not None:
        parts.append(f"at most {milliseconds(view.get('skew_us'))} apart")
    if view.get("undone_by") is not None:
        parts.append(f"undone by switch {as_text(view.get('undone_by'))}")
    return ", ".join(parts)


def proof(view: JsonObject) -> Table:
    """One line a node: what it said before, how late it was, who answered when, what is still open on the old side.

    FIRST NEW and LAST OLD are the first answer of the new side and the last of the old, counted from the instant. Of a
    canary one line a step.
    """
    if canary_view.is_canary(view):
        return canary_view.steps_table(view)
    nodes = as_objects(view.get("nodes"))
    alone = _told_apart(nodes)
    ill = any(node.get("healthy") != node.get("targets") for node in nodes)  # else there is nothing to tell
    rows = [
        (
            node_name(node),
            "" if alone else short_id(node),
            as_text(node.get("standing")),
            seconds(node.get("prepared_s")),
            f"{as_text(node.get('healthy'))}/{as_text(node.get('targets'))}" if ill else "",
            milliseconds(node.get("late_us")),
            since_instant(node.get("first_new_us_after_instant")),
            since_instant(node.get("last_old_us_after_instant")),
            as_text(node.get("open_on_old_side")),
            as_text(node.get("reason")),
        )
        for node in nodes
    ]
    columns = ("NODE", "ID", "STATE", "PREPARED", "HEALTHY", "LATE", "FIRST NEW", "LAST OLD", "OPEN", "REASON")
    return Table(columns, rows)


def old_side_lines(view: JsonObject) -> list[str]:
    """What is known of the sides that lost their traffic."""
    lines = []
    for side in as_objects(view.get("old_sides")):
        name = as_text(side.get("name")) or as_text(side.get("upstream"))
        used = ", ".join(as_text(each) for each in _list(side.get("still_used_by")))
        waiting = ", ".join(as_text(each) for each in _list(side.get("waiting_for")))
        if side.get("safe_to_tear_down"):
            lines.append(f"{name}: 0 requests open on any node, no service points there: safe to tear down")
        elif used:
            lines.append(f"{name}: still used by {used}")
        elif waiting or side.get("in_flight") is None:
            lines.append(f"{name}: open requests are not counted yet" + (f" by {waiting}" if waiting else ""))
        else:
            lines.append(f"{name}: {as_text(side.get('in_flight'))} requests open")
    return lines


def exit_code_of(view: JsonObject) -> ExitCode:
    """How it ended, for the shell: a gate in a pipeline."""
    if canary_view.is_canary(view):
        return canary_view.exit_code_of(view)
    match view.get("state"):
        case "confirmed":
            return ExitCode.DONE
        case "partial":
            return ExitCode.PARTIAL_FLEET
        case "aborted" | "cancelled" | "refused" | "missed":
            return ExitCode.CONFLICT
        case _:
            return ExitCode.TIMED_OUT


def plan_table(plan: JsonObject) -> Table:
    """The new side, one line a target, with how many nodes would use it."""
    rows = []
    for target in as_objects(as_object(plan.get("new_side")).get("targets")):
        seen = as_object(target.get("seen"))
        words = [as_text(word) for word in seen.values()]
        usable = sum(word in ("healthy", "unchecked") for word in words)
        told = ", ".join(dict.fromkeys(words))
        why = next((as_text(each) for each in as_object(target.get("why")).values()), "")
        rows.append((as_text(target.get("target")), as_text(target.get("weight")), f"{usable}/{len(seen)}", told, why))
    return Table(("TARGET", "WEIGHT", "NODES", "SEEN AS", "WHY"), rows)


def plan_lines(plan: JsonObject) -> list[str]:
    """What would change, and what it would change on."""
    new = as_object(plan.get("new_side"))
    capacity = as_number(plan.get("capacity_percent"))
    nodes = as_objects(plan.get("nodes"))
    size = f"{as_text(new.get('healthy'))} of {len(as_objects(new.get('targets')))} targets healthy"
    weight = "" if capacity is None else f", {capacity:.0f} % of the weight in use"
    return [f"{moves(plan)} on {len(nodes)} nodes", f"{as_text(plan.get('to'))}: {size}{weight}"]


def answer_lines(plan: JsonObject) -> Iterator[str]:
    """What each node answered when it was asked to prepare; nothing where they were not asked."""
    for node in as_objects(as_object(plan.get("rehearsal")).get("nodes")):
        if node.get("vote") is None:
            yield f"{node_name(node)}: no answer, {as_text(node.get('reason'))}"
            continue
        looked = f"{as_text(node.get('healthy'))}/{as_text(node.get('targets'))} targets healthy"
        told = f"{as_text(node.get('vote'))} in {seconds(node.get('prepared_s'))}, {looked}"
        yield f"{node_name(node)}: {told}, {as_text(node.get('connections'))} connections opened"


def events(view: JsonObject) -> Iterator[str]:
    """Everything that has happened so far, each as one line that never changes: a pipe gets those that are new."""
    if canary_view.is_canary(view):
        yield from canary_view.events(view, moves(view))
        return
    yield headline({**view, "version": None})
    for node in as_objects(view.get("nodes")):
        if node.get("vote") is not None:
            looked = f", {as_text(node.get('healthy'))}/{as_text(node.get('targets'))} targets healthy"
            yield f"{node_name(node)}: {as_text(node.get('vote'))} in {seconds(node.get('prepared_s'))}{looked}"
    if view.get("version") is not None:
        yield f"decided as version {as_text(view.get('version'))}"
    for node in as_objects(view.get("nodes")):
        standing = as_text(node.get("standing"))
        if standing == "activated":
            yield f"{node_name(node)}: activated, {milliseconds(node.get('late_us'))} late"
        elif standing == "followed" or standing in _ILL:
            reason = as_text(node.get("reason"))
            yield f"{node_name(node)}: {standing}" + (f", {reason}" if reason else "")
    if view.get("state") in ENDED:
        yield ending(view)


def tree(view: JsonObject, signs: Signs, *, width: int = WIDTH, now: float = 0.0) -> list[str]:
    """The whole of a switch at one glance, one line a step and a node; `now` = seconds since 1970."""
    if canary_view.is_canary(view):
        preflight, sides = _preflight(view, signs), old_side_lines(view)
        drawn = canary_view.tree(view, moves(view), signs, preflight=preflight, old_sides=sides, now=now, width=width)
        return [_cut(line, width) for line in drawn]
    state, nodes = as_text(view.get("state")), as_objects(view.get("nodes"))
    mark = {"confirmed": signs.good, "partial": signs.bad, "aborted": signs.bad}.get(state, signs.busy)
    lines = [headline(view)]
    if reason := as_text(view.get("reason")):
        lines.append(f'reason: "{reason}"')
    lines.append(f"{mark} {ending(view)}")
    lines.append(signs.branch + _preflight(view, signs))
    voted = [node for node in nodes if node.get("vote") in ("ready", "ready_warn")]
    slowest = max((as_number(node.get("prepared_s")) or 0.0 for node in voted), default=None)
    in_time = f" in {seconds(slowest)}" if slowest is not None else ""
    done = bool(nodes) and len(voted) == len(nodes)
    prepared = signs.good if done else signs.bad if state in ENDED else signs.busy
    lines.append(f"{signs.branch}{prepared} prepare    {len(voted)}/{len(nodes)} nodes ready{in_time}")
    switched = [node for node in nodes if node.get("standing") in ("activated", "followed")]
    activated = signs.good if nodes and len(switched) == len(nodes) else signs.bad if state in ENDED else signs.busy
    if view.get("version") is None and state not in ENDED:
        activated = signs.idle
    lines.append(f"{signs.branch}{activated} activate   {len(switched)}/{len(nodes)} nodes")
    lines += _node_lines(nodes, signs)
    drained = old_side_lines(view)
    sign = signs.good if view.get("safe_to_tear_down") else signs.busy if drained else signs.idle
    lines.append(f"{signs.last}{sign} old side   {'; '.join(drained) or '-'}")
    return [_cut(line, width) for line in lines]


def milliseconds(microseconds: Json) -> str:
    """A span of microseconds for eyes."""
    number = as_number(microseconds)
    return "" if number is None else f"{number / 1000:.1f} ms"


def since_instant(microseconds: Json) -> str:
    """A time before or after the instant, for eyes: seconds where milliseconds would be no figure any more."""
    number = as_number(microseconds)
    if number is None:
        return ""
    return f"{number / 1000:+.1f} ms" if abs(number) < 1_000_000 else f"{number / 1_000_000:+.1f} s"


def _preflight(view: JsonObject, signs: Signs) -> str:
    plan = as_object(view.get("plan"))
    if not plan:
        return f"{signs.idle} preflight  not asked: that side was serving a moment ago"
    new, nodes = as_object(plan.get("new_side")), as_objects(plan.get("nodes"))
    total = len(as_objects(new.get("targets")))
    least = min((as_number(node.get("healthy")) or 0 for node in nodes), default=0)
    capacity = as_number(plan.get("capacity_percent"))
    weight = "" if capacity is None else f", capacity {capacity:.0f} %"
    forced = ", forced" if view.get("forced") else ""
    mark = signs.good if plan.get("ready") else signs.bad
    healthy = f"{as_text(new.get('healthy'))}/{total} targets healthy, each node sees {least:g} or more"
    return f"{mark} preflight  {healthy}{weight}{forced}"


def _told_apart(nodes: Sequence[JsonObject]) -> bool:
    """Whether host names alone do that: then ids need no room."""
    return len({node_name(node) for node in nodes}) == len(nodes)


def _node_lines(nodes: Sequence[JsonObject], signs: Signs) -> list[str]:
    order = sorted(nodes, key=lambda node: (node.get("standing") not in _ILL, node_name(node)))
    shown, more = order[:NODES_SHOWN_MAX], len(order) - NODES_SHOWN_MAX
    lines = []
    alone = _told_apart(nodes)
    for at, node in enumerate(shown):
        standing = as_text(node.get("standing"))
        good = standing in ("activated", "followed")
        mark = signs.good if good else signs.bad if standing in _ILL else signs.busy
        late, opened = milliseconds(node.get("late_us")), as_text(node.get("open_on_old_side"))
        facts = [f"{mark} {node_name(node)}" + ("" if alone else f" {short_id(node)}"), standing]
        facts += [f"{late} late"] if late else []
        first, last = (since_instant(node.get(f"{name}_us_after_instant")) for name in ("first_new", "last_old"))
        facts += [f"first new {first}"] if first else []
        facts += [f"last old {last}"] if last else []
        facts += [f"{opened} open"] if opened else []
        facts += [as_text(node.get("reason"))] if node.get("reason") else []
        branch = signs.last if at == len(shown) - 1 and more <= 0 else signs.branch
        lines.append(signs.bar + branch + "  ".join(facts))
    if more > 0:
        lines.append(f"{signs.bar}{signs.last}and {more} more; `pointsman switch show` has all")
    return lines


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: width - 3] + "..."


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []
