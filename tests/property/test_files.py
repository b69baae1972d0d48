"""Any configuration survives its way through files and history.

Generated configurations are written as files. A dump of the store synced back changes nothing, a diff after a sync is
empty, loading the dump into an empty store gives the same entities, and a rollback restores every state there was.
Children are generated from the schemas, so that a collection that joins the registry below a known parent takes part.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control_plane.declarative import Summary, diff, dump, parse, sync, to_yaml
from control_plane.entities.registry import STORED
from control_plane.entities.types import EntityBody
from control_plane.snapshot.consistency import check_changes
from control_plane.store import audit, past
from control_plane.store.contract import Origin, Store, Transaction, Written
from tests.support.examples import examples
from tests.support.fresh_store import fresh_sqlite
from tests.support.tls import self_signed_authority

State = dict[str, list[EntityBody]]

NOW = 1_700_000_000.0
NAMES = st.sampled_from(["a", "b", "c", "blue", "green"])
TAGS = st.none() | st.lists(st.sampled_from(["x", "y", "prod"]), max_size=2, unique=True)
TARGETS = st.sampled_from(["10.0.0.1:80", "api:8080", "h:8000", "[0000:0000:0000:0000:0000:0000:0000:0001]:80"])
PORTS = st.integers(1, 65_535)


def _optional(**fields: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    return st.fixed_dictionaries({}, optional=fields)


ROUTE = st.builds(
    lambda path, more: {"paths": [path], **more},
    st.sampled_from(["/", "/a", "/b/c", "~/v\\d+"]),
    _optional(
        hosts=st.lists(st.sampled_from(["a.example", "*.b.example"]), min_size=1, max_size=2, unique=True),
        methods=st.lists(st.sampled_from(["GET", "POST"]), min_size=1, unique=True),
        headers=st.dictionaries(st.sampled_from(["x-a", "x-b"]), st.just(["1", "2"]), min_size=1),
        strip_path=st.booleans(),
        regex_priority=st.none() | st.integers(0, 5),
        tags=TAGS,
    ),
)
SERVICE = st.builds(
    lambda host, more: {"host": host, **more},
    NAMES,
    _optional(
        port=PORTS,
        retries=st.none() | st.integers(0, 9),
        path=st.none() | st.just("/p"),
        enabled=st.booleans(),
        tags=TAGS,
    ),
)
UPSTREAM = _optional(
    slots=st.none() | st.integers(10, 1_000),
    algorithm=st.sampled_from(["round-robin", "least-connections"]),
    healthchecks=st.fixed_dictionaries(
        {"passive": st.fixed_dictionaries({"unhealthy": st.fixed_dictionaries({"http_failures": st.integers(0, 5)})})}
    ),
    tags=TAGS,
)
TARGET = _optional(weight=st.none() | st.integers(0, 1_000), tags=TAGS)


PAIRS = (self_signed_authority(), self_signed_authority("another"))
CERTIFICATES = st.sampled_from(
    [
        (),
        ((PAIRS[0], ()),),
        ((PAIRS[0], ("a.test", "*.b.test")),),
        ((PAIRS[0], ("a.test",)), (PAIRS[1], ("c.test",))),
    ]
)


def credentials(name: str) -> st.SearchStrategy[dict[str, object]]:
    """Of one consumer: names of credentials are unique among all."""
    return _optional(
        keyauth_credentials=st.just([{"key": f"key-{name}"}, {"key": f"other-{name}", "tags": ["x"]}]),
        basicauth_credentials=st.just([{"username": f"user-{name}", "password": "secret"}]),
        hmacauth_credentials=st.just([{"username": f"user-{name}", "secret": "s"}]),
        jwt_secrets=st.just([{"key": f"jwt-{name}", "secret": "s", "algorithm": "HS512"}]),
        acls=st.lists(st.sampled_from([{"group": "g"}, {"group": "h"}]), max_size=2, unique_by=str),
        oauth2_credentials=st.just([{"name": "app", "client_id": f"id-{name}", "client_secret": "s"}]),
    )


@st.composite
def configurations(draw: st.DrawFn) -> EntityBody:
    """A file with entities of all kinds, nested as decK nests them."""
    routes = iter(range(100))

    def route() -> dict[str, object]:
        body = dict(draw(ROUTE))
        if draw(st.booleans()):
            body["name"] = f"route-{next(routes)}"
        return body

    file: dict[str, object] = {"_format_version": "3.0"}
    file["services"] = [
        {"name": name, **draw(SERVICE), "routes": [route() for _ in range(draw(st.integers(0, 2)))]}
        for name in draw(st.lists(NAMES, unique=True, max_size=4))
    ]
    file["routes"] = [route() for _ in range(draw(st.integers(0, 2)))]
    file["upstreams"] = [
        {
            "name": name,
            **draw(UPSTREAM),
            "targets": [{"target": at, **draw(TARGET)} for at in draw(st.lists(TARGETS, unique=True, max_size=3))],
        }
        for name in draw(st.lists(NAMES, unique=True, max_size=3))
    ]
    file["certificates"] = [
        {"cert": pair.cert, "key": pair.key, "tags": draw(TAGS), "snis": [{"name": name} for name in names]}
        for pair, names in draw(CERTIFICATES)
    ]
    file["ca_certificates"] = [{"cert": PAIRS[0].cert, "tags": draw(TAGS)}] if draw(st.booleans()) else []
    file["consumers"] = [
        {"username": name, "tags": draw(TAGS), **draw(credentials(name))}
        for name in draw(st.lists(NAMES, unique=True, max_size=3))
    ]
    return file  # type: ignore[return-value]  # JSON values, built from strategies of any type


def everything(tx: Transaction) -> State:
    return {collection: list(tx.each(collection)) for collection in STORED}


def dumped(tx: Transaction) -> bytes:
    return to_yaml(dump(tx))


async def synced(store: Store, text: bytes, *, now: float) -> Written[Summary]:
    return await store.write(partial(sync, document=parse(text), now=now), Origin())


def over_a_store(test: Callable[[Store], Awaitable[None]]) -> None:
    async def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            store = await fresh_sqlite(Path(folder) / "store.db", before_commit=check_changes)
            try:
                await test(store)
            finally:
                await store.close()

    asyncio.run(run())


@settings(max_examples=examples(10), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(configurations(), min_size=1, max_size=3))
def test_files_and_history_lose_nothing(files: list[EntityBody]) -> None:
    async def test(store: Store) -> None:
        states: list[tuple[int, State]] = [(0, await store.read(everything))]
        for at, file in enumerate(files):
            written = await synced(store, to_yaml(file), now=NOW + at)
            saved = await store.read(dumped)
            # The same file again would make nameless routes anew: only their ids, which a dump has, tell them apart.
            assert (await synced(store, saved, now=1_800_000_000.0)).changes == ()
            assert (await store.read(partial(diff, document=parse(saved), now=1.0))).changes == []
            of_one_tag = to_yaml(await store.read(partial(dump, select_tags=("x",))))
            assert (await store.read(partial(diff, document=parse(of_one_tag), now=1.0))).changes == []
            states.append((written.version, await store.read(everything)))

        newest = states[-1][0]
        for version, state in states:
            difference = await store.read(partial(past.difference, start=newest, end=version))
            restored = await store.write(partial(past.restore, version=version), Origin())
            assert await store.read(everything) == state
            assert len(difference) == len(restored.changes)
            newest = restored.version
        end, records = await store.read(lambda tx: (tx.records.audit_head(), list(tx.records.audit(size=1_000))))
        assert list(audit.problems(records, end)) == []

    over_a_store(test)


@settings(max_examples=examples(5), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(configurations())
def test_a_dump_moves_to_another_store_whole(file: EntityBody) -> None:
    async def test(store: Store) -> None:
        await synced(store, to_yaml(file), now=NOW)
        saved = await store.read(lambda tx: to_yaml(dump(tx, with_ids=True, with_keys=True)))
        with tempfile.TemporaryDirectory() as folder:
            other = await fresh_sqlite(Path(folder) / "other.db", before_commit=check_changes)
            try:
                await synced(other, saved, now=NOW)
                assert await other.read(everything) == await store.read(everything)
            finally:
                await other.close()

    over_a_store(test)
