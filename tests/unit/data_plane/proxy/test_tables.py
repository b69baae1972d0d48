"""The plan cache stays bounded and keeps what is in use; Host lines follow the endpoint."""

from __future__ import annotations

from data_plane.balancer.direct import DirectHost
from data_plane.balancer.endpoint import Endpoint
from data_plane.model import ServiceConfig
from data_plane.proxy.tables import HOST_LINES_MAX, PLANNED_PATH_BYTES_MAX, Plan, PlanCache, ServiceRuntime


def key(number: int, path: bytes = b"/") -> tuple[bytes, bytes, bytes, int]:
    return (b"GET", path + b"%d" % number, b"h", 80)


def test_the_cache_is_bounded_and_keeps_what_is_asked_for() -> None:
    cache = PlanCache(10)
    favourite = Plan(route=None, service=None)
    cache.put(key(0), favourite)
    for number in range(1, 1000):
        cache.put(key(number), Plan(route=None, service=None))
        assert cache.get(key(0)) is favourite
        assert len(cache) <= 20
    assert cache.get(key(1)) is None


def test_long_paths_are_not_kept() -> None:
    cache = PlanCache()
    cache.put(key(0, b"/" + b"a" * PLANNED_PATH_BYTES_MAX), Plan(route=None, service=None))
    assert len(cache) == 0


def endpoint(host: str, port: int) -> Endpoint:
    return Endpoint(key=f"{host}:{port}", ip="127.0.0.1", port=port, host=host, weight=1)


def test_host_lines() -> None:
    direct = DirectHost("127.0.0.1", 80)
    plain = ServiceRuntime(ServiceConfig(id="s", host="up"), direct)
    assert plain.host_line(endpoint("a.test", 80)) == b"Host: a.test"
    assert plain.host_line(endpoint("a.test", 81)) == b"Host: a.test:81"
    assert plain.host_line(endpoint("::1", 8080)) == b"Host: [::1]:8080"
    named = ServiceRuntime(ServiceConfig(id="s", host="up"), direct, host_header="named.test")
    assert named.host_line(endpoint("a.test", 81)) == b"Host: named.test:81"


def test_host_lines_are_bounded() -> None:
    runtime = ServiceRuntime(ServiceConfig(id="s", host="up"), DirectHost("127.0.0.1", 80))
    for number in range(3 * HOST_LINES_MAX):
        assert runtime.host_line(endpoint(f"h{number}", 80)) == b"Host: h%d" % number


def test_a_service_without_a_path_joins_at_the_root() -> None:
    assert ServiceRuntime(ServiceConfig(id="s", retries=2), DirectHost("127.0.0.1", 80)).base_path == b"/"
    runtime = ServiceRuntime(ServiceConfig(id="s", path="/p", retries=2), DirectHost("127.0.0.1", 80))
    assert runtime.base_path == b"/p"
    assert runtime.attempts_max == 3
