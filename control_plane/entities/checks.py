"""Rules across the fields of one entity, as data: what runs, and how `/schemas/...` shows it.

Each check looks at the filled, merged entity and adds to the problems found so far. All of them run, so that one answer
names everything that is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from control_plane.entities.errors import ENTITY
from control_plane.entities.fields import REQUIRED, Field, empty
from control_plane.entities.types import EntityBody, JsonValue


@dataclass(slots=True)
class Problems:
    """What is wrong with an entity so far: by field, and as a whole in the order found."""

    fields: EntityBody = field(default_factory=dict)
    entity: list[JsonValue] = field(default_factory=list)
    updating: bool = False  # Kong says of some rules that they were broken by an update

    def tree(self) -> EntityBody:
        """Return the `fields` of Kong's error object; empty when nothing is wrong."""
        return {**self.fields, ENTITY: self.entity} if self.entity else self.fields


@dataclass(frozen=True, slots=True)
class Check:
    """One rule across fields."""

    run: Callable[[EntityBody, Problems], None]
    facts: Mapping[str, JsonValue]


def conditional(
    if_field: str,
    values: tuple[str, ...],
    then_field: str,
    then: Callable[[JsonValue], JsonValue],
    *,
    facts: EntityBody,
    negated: bool = False,
) -> Check:
    """When `if_field` is one of `values` (or, negated, none of them), `then` must find no problem in `then_field`."""

    def run(entity: EntityBody, problems: Problems) -> None:
        if (entity.get(if_field) in values) is negated:
            return
        problem = then(entity.get(then_field))
        if problem is not None:
            problems.entity.append(f"failed conditional validation given value of field '{if_field}'")
            problems.fields[then_field] = problem

    match: EntityBody = {"not_one_of" if negated else "one_of": list(values)}
    if len(values) == 1 and not negated:
        match = {"match": f"^{values[0]}$"}
    conditions: EntityBody = {"if_field": if_field, "if_match": match, "then_field": then_field, "then_match": facts}
    return Check(run, {"conditional": conditions})


def must_be_null(if_field: str, values: tuple[str, ...], then_field: str, *, negated: bool = False) -> Check:
    """When `if_field` is one of `values`, `then_field` must be null."""

    def then(value: JsonValue) -> JsonValue:
        return None if value is None else "value must be null"

    return conditional(if_field, values, then_field, then, facts={"eq": None}, negated=negated)


def must_be_set(if_field: str, value: str, then_field: str, definition: Field) -> Check:
    """When `if_field` is `value`, `then_field` must be given and right."""

    def then(given: JsonValue) -> JsonValue:
        return REQUIRED if given is None else definition.problem(given)

    return conditional(if_field, (value,), then_field, then, facts={"required": True})


def must_be_one_of(if_field: str, value: str, then_field: str, choices: tuple[str, ...]) -> Check:
    """When `if_field` is `value`, `then_field` must be among the choices."""

    def then(given: JsonValue) -> JsonValue:
        return None if given is None or given in choices else f"expected one of: {', '.join(choices)}"

    return conditional(if_field, (value,), then_field, then, facts={"one_of": list(choices)})


def distinct(*names: str) -> Check:
    """Require that the fields, where all are given, differ."""
    quoted = ", ".join(f"'{name}'" for name in names)

    def run(entity: EntityBody, problems: Problems) -> None:
        values = [entity.get(name) for name in names]
        if not any(empty(value) for value in values) and len({str(value) for value in values}) < len(values):
            problems.entity.append(f"values of these fields must be distinct: {quoted}")

    return Check(run, {"distinct": list(names)})


def at_least_one_of(*names: str) -> Check:
    """Require that one of the fields is given."""
    quoted = ", ".join(f"'{name}'" for name in names)

    def run(entity: EntityBody, problems: Problems) -> None:
        if all(empty(entity.get(name)) for name in names):
            prefix = "when updating, " if problems.updating else ""
            problems.entity.append(f"{prefix}at least one of these fields must be non-empty: {quoted}")

    return Check(run, {"at_least_one_of": list(names)})


def unlisted(check: Check) -> Check:
    """The same rule, not shown in `/schemas/...`: it is about fields that are not shown there either."""
    return replace(check, facts={})
