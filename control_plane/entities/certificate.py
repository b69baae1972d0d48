"""certificate: what a node shows to clients, or to upstream servers as `client_certificate`.

`snis` is virtual: a list of names, not kept on the row but as sni entities of their own. The schema checks its shape
and drops it; `admin/certificates.py` keeps the entities in step. `key` and `key_alt` are secrets.
"""

from __future__ import annotations

from control_plane.entities import pem, typedefs
from control_plane.entities.checks import Check, Problems
from control_plane.entities.fields import Array, Integer, Rule, String, empty, text_rule
from control_plane.entities.schema import Schema
from control_plane.entities.types import EntityBody, JsonValue

_SAME_TYPE = (
    "certificate and alternative certificate need to have different type (e.g. RSA and ECDSA), the provided "
    "certificates were both of the same type"
)


def _no_problem(_value: JsonValue) -> JsonValue:
    return None


def _optional(rule: Rule) -> Rule:
    """The same rule, on a field that Kong's document calls not required in so many words."""
    return Rule(rule.problem, {**rule.facts, "required": False}, rule.schema)


_CERTIFICATE = text_rule(pem.certificate_problem, form="pem-certificate")
_KEY = text_rule(pem.key_problem, form="pem-private-key")


def _both(entity: EntityBody, problems: Problems, one: str, other: str) -> tuple[str, str] | None:
    """The two texts, when both are given and nothing has been found wrong with either."""
    if one in problems.fields or other in problems.fields:
        return None
    first, second = entity.get(one), entity.get(other)
    return (first, second) if isinstance(first, str) and isinstance(second, str) else None


def _matching(certificate: str, key: str, text: str) -> Check:
    def run(entity: EntityBody, problems: Problems) -> None:
        pair = _both(entity, problems, certificate, key)
        if pair is not None and not pem.matches(*pair):
            problems.entity.append(text)

    return Check(run, {"custom_entity_check": {"field_sources": [certificate, key]}})


def _check_types(entity: EntityBody, problems: Problems) -> None:
    pair = _both(entity, problems, "cert", "cert_alt")
    if pair is not None and pem.key_type(pair[0]) == pem.key_type(pair[1]):
        problems.entity.append(_SAME_TYPE)


def _check_pair_complete(entity: EntityBody, problems: Problems) -> None:
    if empty(entity.get("cert_alt")) != empty(entity.get("key_alt")):
        problems.entity.append("all or none of these fields must be set: 'cert_alt', 'key_alt'")


CERTIFICATE = Schema(
    collection="certificates",
    singular="certificate",
    endpoint_key=None,
    recognised_by="cert",
    fields={
        "id": typedefs.uuid(),
        "created_at": Integer(auto=True, is_timestamp=True, description="Seconds since the epoch."),
        "updated_at": Integer(auto=True, is_timestamp=True, description="Seconds since the epoch."),
        "cert": String(required=True, rules=(_CERTIFICATE,), description="PEM; the leaf first, its chain after it."),
        "key": String(required=True, private_to="cert", rules=(_KEY,), description="PEM, without a passphrase."),
        "cert_alt": String(
            rules=(_optional(_CERTIFICATE),),
            description="A second certificate with a key of another type, like ECDSA beside RSA.",
        ),
        "key_alt": String(private_to="cert_alt", rules=(_optional(_KEY),), description="The second one's key."),
        "tags": typedefs.tags(),
        "snis": Array(
            elements=String(description="A host name; `*` may stand for its first or last label."),
            rules=(Rule(_no_problem, {"required": False, "transient": True}),),
            description="The names that the certificate is shown for.",
        ),
    },
    transient=("snis",),
    checks=(
        Check(_check_pair_complete, {"mutually_required": ["cert_alt", "key_alt"]}),
        _matching("cert", "key", "certificate does not match key"),
        _matching("cert_alt", "key_alt", "alternative certificate does not match key"),
        Check(_check_types, {"custom_entity_check": {"field_sources": ["cert", "cert_alt"]}}),
    ),
)
