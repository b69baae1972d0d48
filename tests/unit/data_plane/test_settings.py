from __future__ import annotations

from ipaddress import ip_network

import pytest

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
        "--upstream-tls-trusted-certificate=/none.pem",
    ],
)
def test_what_does_not_make_sense_names_its_setting(flag: str) -> None:
    given = settings(flag)
    with pytest.raises(SettingsError, match=r"setting (proxy_listen|trusted_ips|ssl_|upstream_tls_)"):
        assert (given.listens(), given.proxy()) is None


def test_a_handover_survives_the_command_line() -> None:
    handover = Handover(
        proxy=ProxySettings(trusted_ips=(ip_network("10.0.0.0/8"),), real_ip_recursive=True, keepalive_timeout_s=1.5),
        backlogs=(1, 2),
        tls=(False, True),
        log_level=LogLevel.ERROR,
        log_format=LogFormat.JSON,
    )
    assert Handover.from_json(handover.to_json()) == handover
    assert Handover.from_json(Handover().to_json()) == Handover()
