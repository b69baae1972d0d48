"""The one table of who may do what. `admin/api.py` asks it before any handler runs; docs/security.md shows it.

A role may do all that the roles below it may. What no row names is for admins alone, so a path that somebody forgets
to add is closed, not open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from control_plane.entities.credentials import BELOW_CONSUMER
from control_plane.entities.registry import STORED
from control_plane.entities.schema import Schema

READS = frozenset({"GET", "HEAD"})


class Role(StrEnum):
    """What the bearer of a token may do, from the least to the most."""

    VIEWER = "viewer"  # reads everything but secrets
    OPERATOR = "operator"  # moves traffic: switches, weights, manual health
    EDITOR = "editor"  # writes entities and files, reads their secrets
    ADMIN = "admin"  # tokens, nodes' identities, the audit trail

    def covers(self, other: Role) -> bool:
        """Whether this role may do what `other` may."""
        return _RANKS[self] >= _RANKS[other]


_RANKS = {role: rank for rank, role in enumerate(Role)}


@dataclass(frozen=True, slots=True)
class Rule:
    """The least role for some methods of the paths that begin with a template's segments; `*` is any one segment.

    `**/name` stands for all paths in which `name` is a segment.
    """

    methods: frozenset[str]
    path: str
    role: Role
    exact: bool = False  # the whole path, not only its beginning

    def holds(self, method: str, segments: Sequence[str]) -> bool:
        """Whether a call is this rule's."""
        if method not in self.methods:
            return False
        if self.path.startswith("**/"):
            return self.path[3:] in segments
        wanted = [part for part in self.path.split("/") if part]
        if len(segments) < len(wanted) or (self.exact and len(segments) != len(wanted)):
            return False
        return all(want in ("*", has) for want, has in zip(wanted, segments, strict=False))


_POST = frozenset({"POST"})
_PATCH = frozenset({"PATCH"})
_SETTING = frozenset({"POST", "PUT"})
_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_ALL = READS | _WRITES


def _names(schema: Schema) -> set[str]:
    """What an entity's segment of a path may be: on its own, below a parent, and where a child names its parent."""
    return {schema.collection, schema.path, schema.singular, BELOW_CONSUMER.get(schema.collection, schema.path)}


def _secret_rules() -> list[Rule]:
    """Pages that show secrets, wherever they hang."""
    names = {name for schema in STORED.values() if schema.secrets for name in _names(schema)}
    for schema in STORED.values():  # as in /services/{service}/client_certificate
        names |= {field for field, to in schema.foreign_fields.items() if STORED[to.collection].secrets}
    return [Rule(READS, f"**/{name}", Role.EDITOR) for name in sorted(names)]


def _entity_rules() -> list[Rule]:
    names = {name for schema in STORED.values() for name in _names(schema)}
    return [Rule(_WRITES, f"/{name}", Role.EDITOR) for name in sorted(names)]


RULES: Sequence[Rule] = (
    # What only looks like a write, or like a secret.
    Rule(READS, "/schemas", Role.VIEWER),
    Rule(_POST, "/schemas/*/validate", Role.VIEWER, exact=True),
    Rule(_POST, "/schemas/plugins/validate", Role.VIEWER, exact=True),
    Rule(_POST, "/config/diff", Role.VIEWER, exact=True),
    Rule(_POST, "/config/validate", Role.VIEWER, exact=True),
    Rule(_POST, "/fleet/trace", Role.VIEWER, exact=True),
    # Who has which rights, and who did what.
    Rule(READS, "/identity/self", Role.VIEWER, exact=True),
    Rule(_ALL, "/identity", Role.ADMIN),
    Rule(_ALL, "/audit", Role.ADMIN),
    Rule(_ALL, "/fleet/join-tokens", Role.ADMIN),
    Rule(_POST, "/fleet/ca/rotate", Role.ADMIN, exact=True),
    Rule(_POST, "/fleet/ca/advance", Role.ADMIN, exact=True),
    Rule(_POST, "/fleet/nodes/*/revoke", Role.ADMIN, exact=True),
    Rule(_POST, "/fleet/nodes/*/approve", Role.ADMIN, exact=True),
    # Moving traffic.
    Rule(_PATCH, "/upstreams/*/targets/*", Role.OPERATOR, exact=True),
    Rule(_SETTING, "/upstreams/*/targets/*/healthy", Role.OPERATOR, exact=True),
    Rule(_SETTING, "/upstreams/*/targets/*/unhealthy", Role.OPERATOR, exact=True),
    Rule(_SETTING, "/upstreams/*/targets/*/*/healthy", Role.OPERATOR, exact=True),
    Rule(_SETTING, "/upstreams/*/targets/*/*/unhealthy", Role.OPERATOR, exact=True),
    Rule(_WRITES, "/switches", Role.OPERATOR),
    Rule(_WRITES, "/fleet/services/*/preview", Role.OPERATOR, exact=True),
    Rule(_WRITES, "/fleet/services/*/mirror", Role.OPERATOR, exact=True),
    # Changing what there is.
    Rule(_WRITES, "/fleet/services", Role.EDITOR),
    Rule(_WRITES, "/fleet/upstreams", Role.EDITOR),
    Rule(_WRITES, "/fleet/rollouts", Role.EDITOR),
    Rule(_WRITES, "/config", Role.EDITOR),
    Rule(_WRITES, "/batch", Role.EDITOR),
    Rule(_WRITES, "/cache", Role.EDITOR),
    # Refused with Kong's words, which an editor should get to read.
    *(Rule(_WRITES, f"/{name}", Role.EDITOR) for name in ("filter-chains", "keys", "key-sets", "tags", "vaults")),
    Rule(_WRITES, "/versions", Role.EDITOR),
    *_secret_rules(),
    *_entity_rules(),
    # Looking at the rest.
    Rule(READS, "/", Role.VIEWER),
)


@lru_cache(maxsize=4096)  # every call asks; there are some hundred templates, and the rules never change
def required(method: str, template: str) -> Role:
    """The least role that may call a method of a path, which may be a template with its braces.

    OPTIONS tells nothing but methods and must answer without a token, because browsers ask it so.
    """
    segments = [part for part in template.split("/") if part]
    for rule in RULES:
        if rule.holds(method, segments):
            return rule.role
    return Role.ADMIN
