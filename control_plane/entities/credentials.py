"""What consumers prove themselves with: one schema a kind, each belonging to a consumer and gone with it.

Secrets are shown where Kong shows them, on the credential's own pages, and nowhere else: the history, summaries of
changes and dumps mask what `private_to` marks. A key by which a consumer is recognised is a secret although it is
the credential's name in URLs.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from control_plane.entities import typedefs
from control_plane.entities.checks import Check, Problems
from control_plane.entities.fields import (
    REQUIRED,
    Array,
    Boolean,
    Field,
    Foreign,
    Integer,
    Lifetime,
    String,
    between,
    one_of,
    text_rule,
)
from control_plane.entities.schema import Schema
from control_plane.entities.types import EntityBody

TTL_S_MAX = 100_000_000
"""A little over three years; Kong's bound."""

_PBKDF2_ROUNDS = 10_000  # Kong's
_CONSUMER_KEYS: Mapping[str, tuple[str, ...]] = {"consumers": ("username", "custom_id")}

_WITH_PUBLIC_KEY = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA")
_ALGORITHMS = (
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512",
    "EdDSA",
)  # fmt: skip


def _fields(**own: Field) -> dict[str, Field]:
    return {
        "id": typedefs.uuid(),
        "created_at": Integer(auto=True, is_timestamp=True, description="Seconds since the epoch."),
        "consumer": Foreign(collection="consumers", required=True, cascade=True, description="Whose credential it is."),
        **own,
        "tags": typedefs.tags(),
    }


def _hash_password(entity: EntityBody, given: Collection[str]) -> None:
    """Kong's form of a password: SHA-1 over it and the consumer's id. Weak, and what its data and clients hold."""
    consumer = entity["consumer"]
    if "password" in given and isinstance(consumer, dict):
        salted = f"{entity['password']}{consumer['id']}".encode()
        entity["password"] = hashlib.sha1(salted, usedforsecurity=False).hexdigest()


def _hash_client_secret(entity: EntityBody, given: Collection[str]) -> None:
    asked = "client_secret" in given or "hash_secret" in given
    secret = entity["client_secret"]
    if not asked or entity["hash_secret"] is not True or not isinstance(secret, str) or secret.startswith("$pbkdf2-"):
        return
    salt = secrets.token_bytes(16)
    digest = hashlib.pbkdf2_hmac("sha512", secret.encode(), salt, _PBKDF2_ROUNDS, dklen=32)
    parts = (base64.b64encode(part).decode().rstrip("=") for part in (salt, digest))
    entity["client_secret"] = f"$pbkdf2-sha512$i={_PBKDF2_ROUNDS},l=32${'$'.join(parts)}"


def _needs_public_key(entity: EntityBody, problems: Problems) -> None:
    if entity.get("algorithm") in _WITH_PUBLIC_KEY and entity.get("rsa_public_key") is None:
        problems.entity.append("failed conditional validation given value of field 'algorithm'")
        problems.fields["rsa_public_key"] = REQUIRED


def _public_key_problem(value: str) -> str | None:
    return None if "-----BEGIN" in value and "PRIVATE KEY" not in value else "invalid key"


def _uri_problem(value: str) -> str | None:
    try:
        parts = urlsplit(value)
    except ValueError:
        return f"cannot parse '{value}'"
    if not parts.scheme or not parts.netloc:
        return f"cannot parse '{value}'"
    return f"fragment not allowed in '{value}'" if parts.fragment else None


KEYAUTH = Schema(
    collection="keyauth_credentials",
    path="key-auths",
    singular="keyauth_credential",
    endpoint_key="key",
    foreign_keys=_CONSUMER_KEYS,
    fields=_fields(
        key=String(
            unique=True, auto=True, random=True, private_to="consumer", description="What the consumer shows; a secret."
        ),
        ttl=Lifetime(rules=(between(0, TTL_S_MAX),), description="Seconds until it ends; null = never."),
    ),
)

BASICAUTH = Schema(
    collection="basicauth_credentials",
    path="basic-auths",
    singular="basicauth_credential",
    endpoint_key="username",
    foreign_keys=_CONSUMER_KEYS,
    transform=_hash_password,
    fields=_fields(
        username=String(required=True, unique=True, description="The name to log in with."),
        password=String(required=True, private_to="username", description="The password; kept and shown as a hash."),
    ),
)

HMACAUTH = Schema(
    collection="hmacauth_credentials",
    path="hmac-auths",
    singular="hmacauth_credential",
    endpoint_key="username",
    foreign_keys=_CONSUMER_KEYS,
    fields=_fields(
        username=String(required=True, unique=True, description="The name in the signature's header."),
        secret=String(auto=True, random=True, private_to="username", description="What requests are signed with."),
    ),
)

JWT_SECRET = Schema(
    collection="jwt_secrets",
    path="jwts",
    singular="jwt_secret",
    endpoint_key="key",
    foreign_keys=_CONSUMER_KEYS,
    checks=(
        Check(
            _needs_public_key,
            {
                "conditional": {
                    "if_field": "algorithm",
                    "if_match": {"one_of": list(_WITH_PUBLIC_KEY)},
                    "then_field": "rsa_public_key",
                    "then_match": {"required": True},
                }
            },
        ),
    ),
    fields=_fields(
        key=String(unique=True, auto=True, random=True, description="What a token names its issuer with."),
        secret=String(auto=True, random=True, private_to="key", description="What HS* tokens are signed with."),
        rsa_public_key=String(
            rules=(text_rule(_public_key_problem, form="pem-public-key"),), description="PEM, for the other algorithms."
        ),
        algorithm=String(default="HS256", has_default=True, rules=(one_of(*_ALGORITHMS),), description="Of tokens."),
    ),
)

ACL = Schema(
    collection="acls",
    singular="acl",
    endpoint_key="group",
    unique_together=(("consumer", "group"),),
    foreign_keys=_CONSUMER_KEYS,
    fields=_fields(group=String(required=True, description="A group that the consumer is in.")),
)

OAUTH2 = Schema(
    collection="oauth2_credentials",
    path="oauth2",
    singular="oauth2_credential",
    endpoint_key="client_id",
    foreign_keys=_CONSUMER_KEYS,
    transform=_hash_client_secret,
    fields=_fields(
        name=String(required=True, description="The application's name."),
        client_id=String(unique=True, auto=True, random=True, description="What the application is known by."),
        client_secret=String(auto=True, random=True, private_to="client_id", description="Its password."),
        hash_secret=Boolean(default=False, has_default=True, required=True, description="Keep the secret as a hash."),
        redirect_uris=Array(
            elements=String(rules=(text_rule(_uri_problem, form="uri"),)),
            description="Where users may be sent back to.",
        ),
        client_type=String(
            default="confidential",
            has_default=True,
            required=True,
            rules=(one_of("confidential", "public"),),
            description="Whether it can keep a secret.",
        ),
    ),
)

CREDENTIALS = (KEYAUTH, BASICAUTH, HMACAUTH, JWT_SECRET, ACL, OAUTH2)

BELOW_CONSUMER: Mapping[str, str] = {
    KEYAUTH.collection: "key-auth",
    BASICAUTH.collection: "basic-auth",
    HMACAUTH.collection: "hmac-auth",
    JWT_SECRET.collection: "jwt",
    ACL.collection: "acls",
    OAUTH2.collection: "oauth2",
}
"""How a collection is called below its consumer, as in `/consumers/{consumer}/key-auth`."""
