"""What a page in an operator's browser can send to a control plane that asks nobody for a token: nothing of it writes.

Each attack is the request that a browser makes of it, over a socket. Each tries to write something that would go
through if the request came from a terminal, which the last test shows: so it is the guard that refuses.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from control_plane.admin.guard import Guard
from control_plane.admin.parts import Parts
from control_plane.admin.server import AdminServer
from control_plane.store.contract import Store
from control_plane.store.sqlite import open_sqlite
from pointsman.settings import SocketAddress
from tests.unit.control_plane.admin.fake_fleet import FakeFleet

FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=x"
JSON = "application/json"
AS_FORM = b"name=evil&host=evil.example"
AS_PARTS = (
    b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\nevil\r\n'
    b'--x\r\nContent-Disposition: form-data; name="host"\r\n\r\nevil.example\r\n--x--\r\n'
)
AS_JSON = b'{"name":"evil","host":"evil.example"}'
EVIL = "https://evil.example"
CROSS = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "empty"}
FROM_EVIL = {"Origin": EVIL, **CROSS}


@dataclass(frozen=True)
class Attack:
    """A request; `{port}` in headers stands for the Admin API's."""

    name: str
    status: int
    method: str = "POST"
    path: str = "/services"
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = JSON
    body: bytes = AS_JSON


def rebinding(host: str) -> Attack:
    """The page's own name points at this machine, so its requests are of its own origin."""
    return Attack(
        f"rebinding to {host!r}",
        421,
        headers={"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"},
    )


ATTACKS = [
    # A name of the attacker's that was made to lead here.
    *map(rebinding, (
        "evil.example", "evil.example:{port}", "localhost.evil.example:{port}", "127.0.0.1.evil.example:{port}",
        "evil-localhost:{port}", "localhost.localdomain:{port}", "2130706433:{port}", "0x7f.1:{port}", "127.1:{port}",
        "0177.0.0.1:{port}", "127.0.0.1.nip.io:{port}", "xn--lcalhost-54a:{port}", "evil.example.:{port}",
        "evil.example@127.0.0.1:{port}", "127.0.0.1:{port}@evil.example", "localhost#.evil.example",
        "localhost/.evil.example", "localhost\\.evil.example", "evil.example,localhost", "[::1].evil.example",
    )),
    Attack("a rebound name without an origin", 421, headers={"Host": "evil.example"}),
    Attack("a rebound name that reads", 421, method="GET", headers={"Host": "evil.example"}, body=b""),
    Attack("a rebound name in the target", 421, path="http://evil.example/services"),
    # A form of another page, which no preflight precedes.
    Attack("a form", 403, headers=FROM_EVIL, content_type=FORM, body=AS_FORM),
    Attack("a multipart form", 403, headers=FROM_EVIL, content_type=MULTIPART, body=AS_PARTS),
    Attack("a form of plain text that is JSON", 403, headers=FROM_EVIL, content_type="text/plain"),
    Attack("a form in a sandboxed frame", 403, headers={"Origin": "null", **CROSS}, content_type=FORM, body=AS_FORM),
    Attack("a form of a file on disk", 403, headers={"Origin": "file://", **CROSS}, content_type=FORM, body=AS_FORM),
    Attack("a form without an origin", 403, headers=CROSS, content_type=FORM, body=AS_FORM),
    Attack("a form of an old browser", 403, headers={"Referer": f"{EVIL}/page"}, content_type=FORM, body=AS_FORM),
    Attack("an old browser, our name in its path", 403, headers={"Referer": f"{EVIL}/http://127.0.0.1:{{port}}/"},
           content_type=FORM, body=AS_FORM),
    Attack("a referrer that is no address", 403, headers={"Referer": "http://[evil"}, content_type=FORM, body=AS_FORM),
    Attack("a form of another port here", 403, content_type=FORM, body=AS_FORM,
           headers={"Origin": "http://127.0.0.1:3000", "Sec-Fetch-Site": "same-site"}),
    Attack("another port here, the origin hidden", 403, content_type=FORM, body=AS_FORM,
           headers={"Sec-Fetch-Site": "same-site"}),
    Attack("a form that deletes", 403, method="DELETE", path="/services/kept", headers=FROM_EVIL, body=b""),
    # What scripts send.
    Attack("fetch with JSON, as if its preflight had passed", 403, headers=FROM_EVIL),
    Attack("fetch that puts", 403, method="PUT", path="/services/evil", headers=FROM_EVIL),
    Attack("fetch that patches", 403, method="PATCH", path="/services/kept", headers=FROM_EVIL, body=b'{"host":"x"}'),
    Attack("a beacon", 403, headers=FROM_EVIL, content_type="text/plain;charset=UTF-8"),
    Attack("a beacon without a type", 403, headers=FROM_EVIL, content_type=""),
    Attack("a request that asks for credentials", 403, headers={**FROM_EVIL, "Cookie": "session=1"}),
    Attack("an extension's page", 403, headers={"Origin": "moz-extension://0000"}),
    Attack("a worker of another site", 403, headers={**FROM_EVIL, "Sec-Fetch-Dest": "worker"}),
    Attack("a redirect over our own name", 403, headers={"Origin": "null", "Sec-Fetch-Site": "cross-site"}),
    Attack("upper case in the hint", 403, headers={"Sec-Fetch-Site": "Cross-Site"}, content_type=FORM, body=AS_FORM),
    Attack("an unknown hint", 403, headers={"Sec-Fetch-Site": "elsewhere"}, content_type=FORM, body=AS_FORM),
    # Origins that look like ours.
    *(Attack(f"the origin {origin!r}", 403, headers={"Origin": origin}) for origin in (
        "http://127.0.0.1", "http://localhost:{port}", "http://127.0.0.1:{port}.evil.example",
        "http://127.0.0.1:{port}@evil.example", "http://evil.example/127.0.0.1:{port}", "http://127.0.0.1:{port}/",
        "http://127.0.0.1:{port} http://evil.example", "ws://127.0.0.1:{port}", "//127.0.0.1:{port}", "",
        "http://ops.example.com", "https://ops.example.com.evil.example", "https://evil.ops.example.com",
        "https://ops.example.com:8443",
    )),
    Attack("our own origin, but another site's request", 403,
           headers={"Origin": "http://127.0.0.1:{port}", "Sec-Fetch-Site": "cross-site"}),
    # Paths of ours that move traffic or undo things.
    *(Attack(f"a form to {path}", 403, path=path, headers=FROM_EVIL, content_type=FORM, body=b"a=b") for path in (
        "/config", "/batch", "/versions/1/rollback", "/identity/tokens", "/cache", "/config/diff", "/no/such/path",
    )),
    # Types that hide what is sent, without any sign of a browser: no form is taken for JSON.
    *(Attack(f"JSON as {kind!r}", 415, content_type=kind) for kind in (
        "text/plain", "application/csp-report", "text/json", "application/octet-stream", "application/xml",
    )),
    Attack("a method that servers sometimes override", 405, method="GET", path="/batch",
           headers={"X-HTTP-Method-Override": "POST"}, body=b""),
]  # fmt: skip

PREFLIGHTS = [
    EVIL, "null", "http://127.0.0.1:3000", "http://localhost:{port}", "file://", "",
    "http://127.0.0.1:{port}.evil.example",
]  # fmt: skip


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[tuple[AdminServer, Store]]:
    store = await open_sqlite(tmp_path / "store.db")
    admin = AdminServer(
        Parts(store=store, fleet=FakeFleet(), guard=Guard(origins=frozenset({"https://ops.example.com"}))),
        listen=SocketAddress("127.0.0.1", 0),
        node_id="00000000-0000-4000-8000-000000000001",
    )
    await admin.start()
    yield admin, store
    await admin.stop()
    await store.close()


async def send(admin: AdminServer, attack: Attack) -> tuple[int, dict[str, str], bytes]:
    """The request as the browser writes it; status, headers and body of the answer."""
    port = str(admin.address.port)
    headers = {"Host": f"127.0.0.1:{port}", "Connection": "close", "Content-Length": str(len(attack.body))}
    if attack.content_type:
        headers["Content-Type"] = attack.content_type
    headers |= {name: value.replace("{port}", port) for name, value in attack.headers.items()}
    lines = [f"{attack.method} {attack.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    reader, writer = await asyncio.open_connection("127.0.0.1", admin.address.port)
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + attack.body)
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    first, *rest = head.decode().split("\r\n")
    found = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    return int(first.split()[1]), found, body


KEPT = Attack("what is there", 201, body=b'{"name":"kept","host":"h"}')


async def test_no_attack_writes_and_each_is_told_why(server: tuple[AdminServer, Store]) -> None:
    admin, store = server
    assert (await send(admin, KEPT))[0] == 201
    before = await store.read(lambda tx: (tx.head(), list(tx.each("services"))))
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 70
    for attack in ATTACKS:
        status, headers, body = await send(admin, attack)
        assert status == attack.status, (attack.name, status, body)
        assert json.loads(body)["message"], attack.name
        if "Origin" in attack.headers and "own origin" not in attack.name:
            assert "access-control-allow-origin" not in headers, attack.name
        assert await store.read(lambda tx: (tx.head(), list(tx.each("services")))) == before, attack.name


async def test_preflights_of_foreign_pages_allow_nothing(server: tuple[AdminServer, Store]) -> None:
    for origin, method in itertools.product(PREFLIGHTS, ("GET", "POST", "PUT", "PATCH", "DELETE")):
        asked = {
            "Origin": origin,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": "content-type,authorization",
            "Access-Control-Request-Private-Network": "true",
        }
        _, headers, _ = await send(server[0], Attack("preflight", 204, "OPTIONS", headers=asked, body=b""))
        assert "access-control-allow-origin" not in headers, (origin, method)
        assert "access-control-allow-private-network" not in headers, (origin, method)
        assert headers["vary"] == "Origin", (origin, method)


async def test_what_is_stored_of_an_image_s_request_is_no_answer_for_a_script(
    server: tuple[AdminServer, Store],
) -> None:
    """A browser that stored the answer to a request without an origin must not show it to a page that names one."""
    image = {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image", "Sec-Fetch-Site": "cross-site"}
    for headers in (image, {}):
        _, answered, _ = await send(server[0], Attack("image", 200, "GET", headers=headers, body=b""))
        assert answered["vary"] == "Origin"
        assert ("access-control-allow-origin" in answered) is (not headers)
    _, answered, _ = await send(server[0], Attack("script", 200, "GET", headers={"Origin": EVIL}, body=b""))
    assert "access-control-allow-origin" not in answered
    assert answered["x-content-type-options"] == "nosniff"


FRIENDS = [
    Attack("curl with a form", 201, content_type=FORM, body=b"name=a&host=h"),
    Attack("curl with parts", 201, content_type=MULTIPART, body=AS_PARTS),
    Attack("decK", 201, body=b'{"name":"b","host":"h"}'),
    Attack("a page of a configured origin", 201, body=b'{"name":"c","host":"h"}',
           headers={"Origin": "https://ops.example.com", "Sec-Fetch-Site": "cross-site"}),
    Attack("a page of our own", 201, body=b'{"name":"d","host":"h"}',
           headers={"Origin": "http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-origin"}),
    Attack("by its other name", 201, body=b'{"name":"e","host":"h"}',
           headers={"Host": "localhost:{port}", "Origin": "http://localhost:{port}"}),
    Attack("an old browser's page of our own", 201, content_type=FORM, body=b"name=f&host=h",
           headers={"Referer": "http://127.0.0.1:{port}/console"}),
    Attack("through a proxy that writes the target out", 201, path="http://localhost/services",
           body=b'{"name":"g","host":"h"}'),
]  # fmt: skip


async def test_friends_write(server: tuple[AdminServer, Store]) -> None:
    for friend in FRIENDS:
        status, _, body = await send(server[0], friend)
        assert status == 201, (friend.name, body)
