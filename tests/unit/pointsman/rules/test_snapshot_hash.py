from __future__ import annotations

import hashlib
import random

from pointsman.rules.snapshot_hash import BUCKETS, Key, SnapshotHash, bucket_of, entity_hash, snapshot_hash


def naive(entities: dict[Key, bytes]) -> bytes:
    """The definition, word for word."""
    buckets: list[list[bytes]] = [[] for _ in range(1024)]
    for (collection, entity_id), body in entities.items():
        number = int.from_bytes(hashlib.sha256(collection.encode() + b"\0" + entity_id.encode()).digest(), "big") >> 246
        buckets[number].append(hashlib.sha256(body).digest())
    hashes = (hashlib.sha256(b"".join(sorted(bucket))).digest() if bucket else bytes(32) for bucket in buckets)
    return hashlib.sha256(b"".join(hashes)).digest()


def some(count: int, seed: int = 1) -> dict[Key, bytes]:
    rng = random.Random(seed)
    return {(rng.choice(("services", "routes")), f"{rng.getrandbits(64):x}"): rng.randbytes(20) for _ in range(count)}


def test_the_hash_is_as_defined() -> None:
    for count in (0, 1, 2, 3_000):
        entities = some(count)
        assert snapshot_hash(entities) == naive(entities)


def test_the_hash_of_nothing_is_fixed() -> None:
    """Nodes of other versions compute it too, so it may never change."""
    assert snapshot_hash({}).hex() == "c35020473aed1b4642cd726cad727b63fff2824ad68cedd7ffb73c7cbd890479"


def test_the_hash_does_not_depend_on_order() -> None:
    entities = some(500)
    shuffled = list(entities.items())
    random.Random(2).shuffle(shuffled)
    assert snapshot_hash(dict(shuffled)) == snapshot_hash(entities)


def test_every_byte_and_every_key_counts() -> None:
    base = {("services", "a"): b"x"}
    assert snapshot_hash(base) != snapshot_hash({("services", "a"): b"y"})
    assert snapshot_hash(base) != snapshot_hash({("services", "a"): b"x", ("services", "b"): b"x"})


def test_incremental_equals_from_scratch_after_any_history() -> None:
    rng = random.Random(3)
    hashes, entities = SnapshotHash(), dict[Key, bytes]()
    assert hashes.root() == snapshot_hash({})
    for _ in range(400):
        key = ("services", str(rng.randrange(60)))
        if rng.random() < 0.4:
            entities.pop(key, None)
        else:
            entities[key] = rng.randbytes(3)
        bucket = bucket_of(key)
        hashes.put(bucket, (entity_hash(body) for other, body in entities.items() if bucket_of(other) == bucket))
        if rng.random() < 0.3:
            assert hashes.root() == naive(entities)
    for key in entities:
        hashes.put(bucket_of(key), ())
    assert hashes.root() == snapshot_hash({})


def test_buckets_are_used_evenly() -> None:
    counts = [0] * BUCKETS
    for key in some(20_000):
        counts[bucket_of(key)] += 1
    assert min(counts) > 0
    assert max(counts) < 60
