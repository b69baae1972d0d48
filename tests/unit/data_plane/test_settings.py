from __future__ import annotations

from ipaddress import ip_network

import pytest

from data_plane.flavours import RouterFlavour
from data_plane.handover import Handover
from data_plane.proxy.settings import ProxySettings
from data_plane.settings import NodeSettings
from pointsman.logs import LogFormat, LogLevel
from pointsman.settings import SettingsError, load


def settings(*arguments: str) -> NodeSettings:
    return load(NodeSettings, arguments, {}, program="pointsman data-plane")


def test_defaults_are_kongs_ports() -> None:
    plain = settings()
    assert [str(spec.address) for spec in plain.listens()] == ["0.0.0.0:8000", "0.0.0.0:8443"]
    assert [spec.ssl for spec in plain.listens()] == [False, True]
    assert str(plain.status_listen) == "127.0.0.1:8007"
    assert [str(address) for address in plain.control_plane] == ["127.0.0.1:8005"]
    assert plain.worker_count() >= 1
    assert plain.proxy() == ProxySettings()


def test_listeners_are_a_list_and_settings_reach_the_proxy() -> None:
    given = settings(
        "--proxy-listen=127.0.0.1:1 reuseport, [::1]:2 backlog=9", "--trusted-ips=10.0.0.0/8,::1", "--workers=3"
    )
    assert [spec.backlog for spec in given.listens()] == [16384, 9]
    assert given.proxy().trusted_ips == (ip_network("10.0.0.0/8"), ip_network("::1"))
    assert given.worker_count() == 3


@pytest.mark.parametrize(
    "flag",
    [
        "--proxy-listen=127.0.0.1:1 http2",
        "--trusted-ips=x",
        "--ssl-cipher-suite=best",
        "--ssl-protocols=SSLv3",
        "--ssl-session-timeout=1d",
        "--ssl-session-cache-size=10m",
        "--ssl-dhparam=/none.pem",
        "--port-maps=80",
        "--port-maps=80:0",
        "--port-maps=80:99999",
        "--port-maps=80:8000,81:8000",
        "--headers=X-Kong-Total-Latency",
        "--headers-upstream=server_tokens",
        "--upstream-tls-trusted-certificate=/none.pem",
    ],
)
def test_what_does_not_make_sense_names_its_setting(flag: str) -> None:
    given = settings(flag)
    with pytest.raises(SettingsError, match=r"setting (proxy_listen|trusted_ips|ssl_|upstream_tls_|headers|port_maps)"):
        assert (given.listens(), given.proxy()) is None


def test_limits_and_times_reach_the_proxy() -> None:
    given = settings(
        "--client-header-timeout-s=1",
        "--client-body-timeout-s=2",
        "--client-body-rate-min=3",
        "--send-timeout-s=4",
        "--keepalive-requests=5",
        "--request-line-bytes-max=1000",
        "--header-line-bytes-max=2000",
        "--head-bytes-max=3000",
        "--header-count-max=60",
        "--headers=server_tokens",
        "--headers-upstream=off",
        "--port-maps=80:8000, 443:8443",
    ).proxy()
    assert (given.head_timeout_s, given.body_idle_timeout_s, given.body_rate_min_bytes) == (1, 2, 3)
    assert (given.send_timeout_s, given.keepalive_requests_max, given.request_line_bytes_max) == (4, 5, 1000)
    assert (given.header_line_bytes_max, given.head_bytes_max, given.header_count_max) == (2000, 3000, 60)
    assert given.port_maps == ((8000, 80), (8443, 443))
    assert [given.server, given.via] == [True] * 2
    assert [given.upstream_latency, given.proxy_latency, given.response_latency, given.upstream_status] == [False] * 4
    assert [given.request_id_downstream, given.request_id_upstream] == [False] * 2


def test_a_handover_survives_the_command_line() -> None:
    handover = Handover(
        proxy=ProxySettings(
            trusted_ips=(ip_network("10.0.0.0/8"),),
            real_ip_recursive=True,
            port_maps=((8000, 80), (8443, 443)),
            keepalive_timeout_s=1.5,
        ),
        backlogs=(1, 2),
        tls=(False, True),
        proxy_protocol=(True, False),
        router_flavour=RouterFlavour.TRADITIONAL,
        log_level=LogLevel.ERROR,
        log_format=LogFormat.JSON,
    )
    assert Handover.from_json(handover.to_json()) == handover
    assert Handover.from_json(Handover().to_json()) == Handover()
