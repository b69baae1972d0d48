"""Any sequence of Admin API calls against a model of a dozen lines: same answers, same lists, dense versions.

The model knows services and routes by name, consumers and their groups, certificates and their SNIs, with unique names,
references that keep a parent, and PUT as a replacement; that a stale `If-Match` and a dry run write nothing; and what
everything was at each version, to which a rollback goes back.
"""

from __future__ import annotations

import asyncio
import copy
import json
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from typing_extensions import override

from control_plane.admin.api import AdminApi
from control_plane.admin.information import Connections, Identity
from control_plane.admin.parts import Parts
from control_plane.entities.types import EntityBody
from tests.support.examples import examples
from tests.support.fresh_store import fresh_sqlite
from tests.support.tls import self_signed_authority
from tests.unit.control_plane.admin.calls import call
from tests.unit.control_plane.admin.fake_fleet import FakeFleet

NAMES = st.sampled_from(["a", "b", "c"])
HOSTS = st.sampled_from(["blue", "green"])
PATHS = st.sampled_from(["/", "/x"])
SNIS = st.lists(st.sampled_from(["a.test", "b.test", "*.c.test"]), unique=True, max_size=2)
NUMBERS = st.integers(1, 3)
PAIR = self_signed_authority()


def certificate_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


class AdminMachine(RuleBasedStateMachine):
    """The API over a real store beside the model."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory(prefix="pointsman-model-")
        self.store = self.loop.run_until_complete(fresh_sqlite(Path(self.folder.name) / "store.db"))
        self.api = AdminApi(
            Parts(store=self.store, fleet=FakeFleet()),
            identity=Identity(node_id="00000000-0000-4000-8000-000000000001", admin_address=lambda: "127.0.0.1:8001"),
            connections=lambda: Connections(accepted=0, active=0, requests=0, writing=0),
        )
        self.services: dict[str, dict[str, object]] = {}
        self.routes: dict[str, dict[str, object]] = {}
        self.consumers: dict[str, set[str]] = {}  # name -> groups
        self.snis: dict[int, set[str]] = {}  # certificate -> names
        self.head = 0
        self.past: dict[int, tuple[object, ...]] = {0: self.model()}

    def model(self) -> tuple[object, ...]:
        return copy.deepcopy((self.services, self.routes, self.consumers, self.snis))

    @override
    def teardown(self) -> None:
        self.loop.run_until_complete(self.store.close())
        self.loop.close()
        self.folder.cleanup()

    def ask(
        self, method: str, path: str, body: EntityBody | None = None, *, if_match: str = ""
    ) -> tuple[int, EntityBody]:
        raw = b"" if body is None else json.dumps(body).encode()
        headers = {"If-Match": if_match} if if_match else {}
        content_type = None if body is None else "application/json"
        answer = self.loop.run_until_complete(
            self.api.answer(call(method, path, raw, content_type=content_type, headers=headers))
        )
        tree: EntityBody = json.loads(answer.body) if answer.body else {}
        self.tag = answer.headers.get("ETag", "")
        if 200 <= answer.status < 300 and method != "GET" and "dry_run" not in path:
            version = int(answer.headers["X-Pointsman-Version"])
            assert version in (self.head, self.head + 1)
            self.head = version
        return answer.status, tree

    @rule(name=NAMES, host=HOSTS)
    def create_service(self, name: str, host: str) -> None:
        status, tree = self.ask("POST", "/services", {"name": name, "host": host})
        assert status == (409 if name in self.services else 201)
        if status == 201:
            self.services[name] = {"id": tree["id"], "host": host, "retries": 5}

    @rule(name=NAMES, host=HOSTS, retries=st.none() | st.integers(0, 9))
    def put_service(self, name: str, host: str, retries: int | None) -> None:
        body: EntityBody = {"host": host} | ({} if retries is None else {"retries": retries})
        status, tree = self.ask("PUT", f"/services/{name}", body)
        assert status == 200
        held = self.services.get(name)
        assert held is None or held["id"] == tree["id"]
        self.services[name] = {"id": tree["id"], "host": host, "retries": 5 if retries is None else retries}

    @rule(name=NAMES, retries=st.integers(-1, 9))
    def patch_service(self, name: str, retries: int) -> None:
        status, _ = self.ask("PATCH", f"/services/{name}", {"retries": retries})
        assert status == (404 if name not in self.services else 400 if retries < 0 else 200)
        if status == 200:
            self.services[name]["retries"] = retries

    @rule(old=NAMES, new=NAMES)
    def rename_service(self, old: str, new: str) -> None:
        status, _ = self.ask("PATCH", f"/services/{old}", {"name": new})
        if old not in self.services:
            assert status == 404
        elif new in self.services and new != old:
            assert status == 409
        else:
            assert status == 200
            self.services[new] = self.services.pop(old)

    @rule(name=NAMES)
    def delete_service(self, name: str) -> None:
        status, _ = self.ask("DELETE", f"/services/{name}")
        held = self.services.get(name)
        used = held is not None and any(route["service"] == held["id"] for route in self.routes.values())
        assert status == (400 if used else 204)
        if not used:
            self.services.pop(name, None)

    @rule(name=NAMES, service=NAMES, path=PATHS)
    def create_route(self, name: str, service: str, path: str) -> None:
        status, tree = self.ask("POST", f"/services/{service}/routes", {"name": name, "paths": [path]})
        assert status == (404 if service not in self.services else 409 if name in self.routes else 201)
        if status == 201:
            self.routes[name] = {"id": tree["id"], "service": self.services[service]["id"]}

    @rule(name=NAMES, service=NAMES)
    def move_route(self, name: str, service: str) -> None:
        status, tree = self.ask("PATCH", f"/routes/{name}", {"service": {"name": service}})
        if name not in self.routes:
            assert status == 404
        elif service not in self.services:
            assert (status, tree["code"]) == (400, 13)
        else:
            assert status == 200
            self.routes[name]["service"] = self.services[service]["id"]

    @rule(name=NAMES, service=NAMES)
    def delete_route_below(self, name: str, service: str) -> None:
        status, _ = self.ask("DELETE", f"/services/{service}/routes/{name}")
        there = (
            service in self.services
            and name in self.routes
            and self.routes[name]["service"] == self.services[service]["id"]
        )
        assert status == (204 if there else 404)
        if there:
            del self.routes[name]

    @rule(name=NAMES)
    def put_consumer(self, name: str) -> None:
        assert self.ask("PUT", f"/consumers/{name}", {})[0] == 200
        self.consumers.setdefault(name, set())

    @rule(name=NAMES, group=NAMES)
    def join_group(self, name: str, group: str) -> None:
        status, _ = self.ask("POST", f"/consumers/{name}/acls", {"group": group})
        groups = self.consumers.get(name)
        assert status == (404 if groups is None else 409 if group in groups else 201)
        if groups is not None:
            groups.add(group)

    @rule(name=NAMES, group=NAMES)
    def leave_group(self, name: str, group: str) -> None:
        status, _ = self.ask("DELETE", f"/consumers/{name}/acls/{group}")
        groups = self.consumers.get(name, set())
        assert status == (204 if group in groups else 404)
        groups.discard(group)

    @rule(name=NAMES)
    def delete_consumer(self, name: str) -> None:
        assert self.ask("DELETE", f"/consumers/{name}")[0] == 204
        self.consumers.pop(name, None)

    @rule(name=NAMES, retries=st.integers(0, 9), others=st.none() | HOSTS)
    def patch_guarded(self, name: str, retries: int, others: str | None) -> None:
        """What was read is what is written over, or nothing is."""
        if self.ask("GET", f"/services/{name}")[0] == 404:
            assert self.ask("PATCH", f"/services/{name}", {"retries": retries}, if_match='"x"')[0] == 412
            return
        tag = self.tag
        changed = others is not None and others != self.services[name]["host"]
        if changed:
            assert self.ask("PATCH", f"/services/{name}", {"host": others})[0] == 200
            self.services[name]["host"] = others
        status, tree = self.ask("PATCH", f"/services/{name}", {"retries": retries}, if_match=tag)
        assert status == (412 if changed else 200)
        if changed:
            assert (tree["complete"], tree["etag"] != tag) == (True, True)
        else:
            self.services[name]["retries"] = retries

    @rule(name=NAMES, host=HOSTS)
    def rehearse(self, name: str, host: str) -> None:
        status, tree = self.ask("PUT", f"/services/{name}?dry_run=1", {"host": host})
        assert (status, tree["status"]) == (200, 200)

    @rule(number=NUMBERS, names=SNIS)
    def put_certificate(self, number: int, names: list[str]) -> None:
        body: EntityBody = {"cert": PAIR.cert, "key": PAIR.key, "snis": [*names]}
        status, tree = self.ask("PUT", f"/certificates/{certificate_id(number)}", body)
        taken = {name for other, held in self.snis.items() if other != number for name in held}
        assert status == (400 if taken & set(names) else 200)
        if status == 200:
            assert tree["snis"] == sorted(names)
            self.snis[number] = set(names)

    @rule(number=NUMBERS, names=SNIS)
    def move_sni(self, number: int, names: list[str]) -> None:
        for name in names:
            body: EntityBody = {"certificate": {"id": certificate_id(number)}}
            status, _ = self.ask("PATCH", f"/snis/{name}", body)
            owner = next((other for other, held in self.snis.items() if name in held), None)
            assert status == (404 if owner is None else 400 if number not in self.snis else 200)
            if status == 200 and owner is not None:
                self.snis[owner].discard(name)
                self.snis[number].add(name)

    @rule(number=NUMBERS)
    def delete_certificate(self, number: int) -> None:
        assert self.ask("DELETE", f"/certificates/{certificate_id(number)}")[0] == 204
        self.snis.pop(number, None)

    @rule(draw=st.data())
    def roll_back(self, draw: st.DataObject) -> None:
        version = draw.draw(st.sampled_from(sorted(self.past)))
        assert self.ask("POST", f"/versions/{version}/rollback", {"reason": "model"})[0] == 200
        self.services, self.routes, self.consumers, self.snis = copy.deepcopy(self.past[version])  # type: ignore[assignment]

    @invariant()
    def lists_are_the_model_s(self) -> None:
        services = {str(row["name"]): row for row in self.rows("/services")}
        assert services.keys() == self.services.keys()
        for name, held in self.services.items():
            assert {field: services[name][field] for field in held} == held
        routes = {str(row["name"]): row for row in self.rows("/routes")}
        assert {name: row["service"] for name, row in routes.items()} == {
            name: {"id": held["service"]} for name, held in self.routes.items()
        }
        assert {str(row["username"]) for row in self.rows("/consumers")} == self.consumers.keys()
        assert len(self.rows("/acls")) == sum(map(len, self.consumers.values()))
        certificates = {str(row["id"]): row["snis"] for row in self.rows("/certificates")}
        assert certificates == {certificate_id(number): sorted(names) for number, names in self.snis.items()}
        snis = {str(row["name"]) for row in self.rows("/snis")}
        assert snis == {name for held in self.snis.values() for name in held}
        self.past[self.head] = self.model()

    def rows(self, path: str) -> list[EntityBody]:
        """All rows, two a page, so that every comparison pages too."""
        found: list[EntityBody] = []
        following: str | None = f"{path}?size=2"
        while following is not None:
            status, page = self.ask("GET", following)
            assert status == 200
            data = page["data"]
            assert isinstance(data, list)
            found += [row for row in data if isinstance(row, dict)]
            following = None if page["next"] is None else str(page["next"])
        return found


TestAnyHistory = AdminMachine.TestCase
TestAnyHistory.settings = settings(
    max_examples=examples(10), stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
