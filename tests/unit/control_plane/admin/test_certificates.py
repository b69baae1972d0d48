"""Certificates, the list of names that they show, and their keys, which nobody else shows."""

from __future__ import annotations

import json
import logging

import pytest

from control_plane.entities.types import EntityBody, JsonValue
from tests.support.tls import Issued, authority_pem, issued
from tests.unit.control_plane.admin.conftest import Client, tree

ONE = issued("one.test")
OTHER = issued("other.test", ecdsa=False)
UNKNOWN = "00000000-0000-4000-8000-0000000000ff"


def body(of: Issued = ONE, **fields: JsonValue) -> EntityBody:
    return {"cert": of.cert, "key": of.key, **fields}


async def made(client: Client, of: Issued = ONE, **fields: JsonValue) -> EntityBody:
    return await client.tree("POST", "/certificates", body(of, **fields), status=201)


async def names(client: Client) -> list[str]:
    page = await client.tree("GET", "/snis")
    assert isinstance(page["data"], list)
    return sorted(str(row["name"]) for row in page["data"] if isinstance(row, dict))


async def test_names_become_snis_and_lead_to_their_certificate(client: Client) -> None:
    certificate = await made(client, snis=["b.test", "a.test"])

    assert certificate["snis"] == ["a.test", "b.test"]
    assert await names(client) == ["a.test", "b.test"]
    assert await client.tree("GET", "/certificates/b.test") == certificate
    assert (await client.tree("GET", "/certificates"))["data"] == [certificate]
    assert tree(await client.ask("GET", "/certificates/none.test")) == {"message": "SNI not found"}
    assert (await client.tree("GET", f"/certificates/{UNKNOWN}", status=404))["code"] == 6


async def test_a_list_replaces_the_former_one_only_where_it_is_given(client: Client) -> None:
    of = (await made(client, snis=["a.test", "b.test"]))["id"]

    assert (await client.tree("PATCH", f"/certificates/{of}", {"tags": ["x"]}))["snis"] == ["a.test", "b.test"]
    assert (await client.tree("PATCH", f"/certificates/{of}", {"snis": ["b.test", "c.test"]}))["snis"] == [
        "b.test",
        "c.test",
    ]
    assert (await client.tree("PATCH", "/certificates/c.test", {"snis": None}))["snis"] == []
    await client.tree("PATCH", f"/certificates/{of}", {"snis": ["d.test"]})
    assert (await client.tree("PUT", f"/certificates/{of}", body()))["snis"] == []
    assert await names(client) == []


async def test_a_put_by_name_creates_or_replaces(client: Client) -> None:
    fresh = await client.tree("PUT", "/certificates/a.test", body(snis=["b.test"]))
    assert fresh["snis"] == ["a.test", "b.test"]
    again = await client.tree("PUT", "/certificates/a.test", body(OTHER, snis=[]))
    assert (again["id"], again["snis"], again["cert"]) == (fresh["id"], ["a.test"], OTHER.cert)
    assert (await client.tree("PUT", "/certificates/z.test", body()))["snis"] == []


@pytest.mark.parametrize(
    ("snis", "message"),
    [
        (["x.test", "x.test"], "schema violation (snis: x.test is duplicated)"),
        (["taken.test"], "schema violation (snis: taken.test already associated with existing certificate '{of}')"),
        (["a.*.b"], "wildcard must be leftmost or rightmost character"),
        ("x.test", "schema violation (snis: expected an array)"),
    ],
)
async def test_names_that_can_t_be_had_leave_nothing_behind(client: Client, snis: JsonValue, message: str) -> None:
    of = (await made(client, snis=["taken.test"]))["id"]

    refused = await client.tree("POST", "/certificates", body(snis=snis), status=400)

    assert refused["message"] == message.format(of=of)
    assert await names(client) == ["taken.test"]


async def test_below_a_certificate_by_name(client: Client) -> None:
    certificate = await made(client, snis=["a.test"])
    link: EntityBody = {"id": certificate["id"]}
    await client.tree(
        "POST", "/services", {"name": "s", "url": "https://x.test", "client_certificate": link}, status=201
    )

    sni = await client.tree("POST", "/certificates/a.test/snis", {"name": "b.test"}, status=201)
    assert sni["certificate"] == link
    assert len((await client.tree("GET", "/certificates/b.test/services"))["data"] or []) == 1  # type: ignore[arg-type]  # a list
    assert (await client.tree("GET", "/services/s/client_certificate"))["snis"] == ["a.test", "b.test"]
    patched = await client.tree("PATCH", "/services/s/client_certificate", {"snis": ["c.test"]})
    assert patched["snis"] == ["c.test"]
    assert (await client.ask("GET", "/snis/c.test/certificate")).status == 404
    assert tree(await client.ask("GET", "/certificates/none.test/snis")) == {"message": "SNI not found"}


async def test_deleting(client: Client) -> None:
    certificate = await made(client, snis=["a.test"])
    link: EntityBody = {"id": certificate["id"]}
    await client.tree(
        "POST", "/services", {"name": "s", "url": "https://x.test", "client_certificate": link}, status=201
    )

    refused = await client.tree("DELETE", "/certificates/a.test", status=400)
    assert refused["message"] == "an existing 'services' entity references this 'certificates' entity"
    await client.tree("PATCH", "/services/s", {"client_certificate": None})
    assert (await client.ask("DELETE", "/certificates/a.test")).status == 204
    assert await names(client) == []
    assert (await client.ask("DELETE", f"/certificates/{UNKNOWN}")).status == 204


async def test_a_ca_certificate_stays_while_a_service_names_it(client: Client) -> None:
    authority = await client.tree("POST", "/ca_certificates", {"cert": authority_pem()}, status=201)
    service = await client.tree(
        "POST", "/services", {"url": "https://x.test", "ca_certificates": [authority["id"]]}, status=201
    )

    refused = await client.tree("DELETE", f"/ca_certificates/{authority['id']}", status=400)
    assert refused["code"] == 19
    assert str(service["id"]) in str(refused["message"])
    await client.tree("PATCH", f"/services/{service['id']}", {"ca_certificates": None})
    assert (await client.ask("DELETE", f"/ca_certificates/{authority['id']}")).status == 204


async def test_a_key_is_shown_by_its_certificate_and_by_nothing_else(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """Plants keys, makes every kind of answer and error about them, and looks for them in all that came out."""
    caplog.set_level(logging.DEBUG)
    secrets = {line for of in (ONE, OTHER) for line in of.key.splitlines() if len(line) > 40 and "-----" not in line}
    seen: list[str] = []

    async def ask(method: str, target: str, sent: JsonValue | bytes = None, **options: str) -> None:
        answer = await client.ask(method, target, sent, content_type=options.get("content_type"))
        seen.append(answer.body.decode())

    certificate = await made(client, snis=["a.test"])
    await client.tree("PATCH", "/certificates/a.test", body(OTHER))
    await client.tree("PUT", "/certificates/b.test", body(ONE, cert_alt=OTHER.cert, key_alt=OTHER.key))
    head = await client.store.head()
    await ask("GET", "/versions")
    for version in range(1, head + 1):
        await ask("GET", f"/versions/{version}")
    await ask("GET", "/config/dump?with_ids=1")
    await ask("GET", "/config/dump?format=json")
    dumped = json.loads(seen[-1])
    for flaw in (
        body(ONE, key=OTHER.key), body(ONE, key=OTHER.key[:-40]), body(OTHER, cert=OTHER.key, key=OTHER.cert),
        body(ONE, unknown=1), body(ONE, snis=["a.test"]), body(ONE, snis=[ONE.key]), body(ONE, tags=[1]),
        body(ONE, id="x"), body(ONE, cert_alt=ONE.cert, key_alt=ONE.key),
    ):  # fmt: skip
        await ask("POST", "/certificates", flaw)
        await ask("POST", "/schemas/certificates/validate", flaw)
        file: EntityBody = {"_format_version": "3.0", "certificates": [{"id": certificate["id"], **flaw}]}
        await ask("POST", "/config/diff", file)
        await ask("POST", "/config/sync?select_tags=none", file)
    changed: EntityBody = {"_format_version": "3.0", "certificates": [{"id": certificate["id"], **body(ONE)}]}
    await ask("POST", "/config/diff", changed)
    await ask("POST", "/config/apply", changed)
    broken = json.dumps(changed)[:-10].encode()
    await ask("POST", "/config/sync", broken, content_type="application/json")
    await ask("POST", "/config/sync", b"certificates:\n- key: |\n" + ONE.key.encode(), content_type="application/yaml")
    assert dumped["certificates"]

    seen += [record.getMessage() + str(record.exc_text) + str(record.__dict__) for record in caplog.records]
    for text in seen:
        assert not any(secret in text for secret in secrets), text[:2000]
    assert ONE.key.splitlines()[1] in (await client.ask("GET", "/certificates/a.test")).body.decode()


async def test_a_dump_without_keys_syncs_back_to_the_same(client: Client) -> None:
    await made(client, OTHER, cert_alt=ONE.cert, key_alt=ONE.key, snis=["a.test", "*.b.test"], tags=["t"])
    authority = await client.tree("POST", "/ca_certificates", {"cert": authority_pem()}, status=201)
    link: EntityBody = {"id": (await client.tree("GET", "/certificates/a.test"))["id"]}
    await client.tree(
        "POST",
        "/services",
        {"name": "s", "url": "https://x.test", "client_certificate": link, "ca_certificates": [authority["id"]]},
        status=201,
    )
    for query in ("", "?with_keys=1"):
        dumped = await client.ask("GET", f"/config/dump{query}")
        assert (OTHER.key.splitlines()[1] in dumped.body.decode()) is bool(query)
        summary = tree(await client.ask("POST", "/config/sync", dumped.body, content_type="application/yaml"))
        assert (summary["created"], summary["updated"], summary["deleted"]) == (0, 0, 0), summary

    kept = await client.ask("GET", "/config/dump")
    whole = await client.ask("GET", "/config/dump?with_keys=1")
    empty: EntityBody = {"_format_version": "3.0"}
    assert (await client.tree("POST", "/config/sync", empty))["deleted"] == 5
    refused = tree(await client.ask("POST", "/config/sync", kept.body, content_type="application/yaml"))
    assert refused["code"] == 14
    assert "with_keys" in json.dumps(refused)
    restored = tree(await client.ask("POST", "/config/sync", whole.body, content_type="application/yaml"))
    assert restored["created"] == 5
    assert (await client.tree("GET", "/certificates/a.test"))["key_alt"] == ONE.key


async def test_a_file_without_ids_finds_its_certificate_again(client: Client) -> None:
    file: EntityBody = {"certificates": [{"cert": ONE.cert, "key": ONE.key, "snis": [{"name": "a.test"}]}]}
    assert (await client.tree("POST", "/config/sync", file))["created"] == 2
    assert (await client.tree("POST", "/config/sync", file))["unchanged"] == 2
