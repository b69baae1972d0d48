"""The TLS side of the next version: certificates tried before they may serve, names, and each service's identity.

Loading a pair takes OpenSSL most of a millisecond, so every step yields. What was made for one version is found again
for the next as long as it did not change.
"""

from __future__ import annotations

from collections.abc import Generator

from data_plane.model import CertificateConfig, ServiceConfig, UpstreamConfig
from data_plane.proxy.settings import ProxySettings
from data_plane.proxy.tls import ServerContexts, ServerNames
from data_plane.proxy.upstream_tls import UpstreamContexts, UpstreamTls
from data_plane.worker.catalogue import StagedCatalogue
from data_plane.worker.faults import BAD_CERTIFICATE, DANGLING_REFERENCE, BuildFault, BuildFaults
from pointsman.rules.pems import UnusablePem

Work = Generator[None, None, None]


class Credentials:
    """What a worker keeps for TLS from version to version. `serves` = it has a listener with TLS."""

    def __init__(self, settings: ProxySettings | None = None, *, serves: bool = False, trusted: str = "") -> None:
        settings = settings or ProxySettings()
        self._servers = ServerContexts(settings) if serves else None
        self._upstreams = UpstreamContexts(settings, trusted=trusted)

    def check(self, catalogue: StagedCatalogue, faults: BuildFaults) -> Work:
        """Try every certificate that is new, and look for names without one."""
        certificates = catalogue.certificates
        for certificate in certificates.upserts.values():
            if self._servers is not None:
                try:
                    self._servers.of(certificate)
                except UnusablePem as error:
                    faults.add(_bad(certificate.id, error))
            yield
        for sni in catalogue.snis.upserts.values():
            if sni.certificate not in certificates:
                text = f"the certificate {sni.certificate} does not exist"
                faults.add(BuildFault(DANGLING_REFERENCE, text, "snis", sni.id, sni.name, "certificate"))
            yield
        if certificates.deletes:
            for sni in catalogue.snis:
                if sni.certificate in certificates.deletes and sni.id not in catalogue.snis.upserts:
                    text = f"the certificate {sni.certificate} is removed"
                    faults.add(BuildFault(DANGLING_REFERENCE, text, "snis", sni.id, sni.name, "certificate"))
                yield

    def server_names(
        self, previous: ServerNames | None, catalogue: StagedCatalogue
    ) -> Generator[None, None, ServerNames | None]:
        """The names of the next version; the former object when nothing about them changed, None without TLS."""
        if self._servers is None:
            return None
        if previous is not None and not catalogue.snis.changed and not catalogue.certificates.changed:
            return previous
        by_name: dict[str, CertificateConfig] = {}
        for sni in catalogue.snis:
            certificate = catalogue.certificates.get(sni.certificate)
            if certificate is not None:
                by_name[sni.name] = certificate
            yield
        return ServerNames(by_name, self._servers)

    def service(
        self, service: ServiceConfig, upstream: UpstreamConfig | None, catalogue: StagedCatalogue, faults: BuildFaults
    ) -> UpstreamTls | None:
        """How connections for the service are made; None = in the clear, or a fault was added.

        The service's own client certificate goes before its upstream's. An id among `ca_certificates` that is not
        there adds nothing to what is trusted: nobody checks it when it is written.
        """
        if service.protocol != "https":
            return None
        wanted = _client_certificate(service, upstream)
        certificate = catalogue.certificates.get(wanted) if wanted else None
        if wanted and certificate is None:
            text = f"the certificate {wanted} does not exist"
            faults.add(BuildFault(DANGLING_REFERENCE, text, "services", service.id, service.name, "client_certificate"))
            return None
        authorities: list[str] | None = None
        if service.ca_certificates:
            found = (catalogue.ca_certificates.get(authority) for authority in service.ca_certificates)
            authorities = [authority.cert for authority in found if authority is not None]
        try:
            return self._upstreams.of(
                verify=service.tls_verify,
                depth=service.tls_verify_depth,
                authorities=authorities,
                certificate=certificate,
            )
        except UnusablePem as error:
            text = f"its certificates can't be used: {error}"
            faults.add(BuildFault(BAD_CERTIFICATE, text, "services", service.id, service.name, "client_certificate"))
            return None


def services_concerned(catalogue: StagedCatalogue) -> Generator[None, None, list[ServiceConfig]]:
    """The services that stay as they are, but whose client or CA certificates change."""
    changed = {*catalogue.certificates.changed_ids(), *catalogue.ca_certificates.changed_ids()}
    concerned: list[ServiceConfig] = []
    if not changed:
        return concerned
    for service in catalogue.services:
        if service.protocol == "https":
            sides = (catalogue.upstream_named(service.host), *catalogue.side_upstreams(service.id))
            certificates = {_client_certificate(service, upstream) for upstream in sides}
            if not (changed.isdisjoint(certificates) and changed.isdisjoint(service.ca_certificates)):
                concerned.append(service)
        yield
    return concerned


def _client_certificate(service: ServiceConfig, upstream: UpstreamConfig | None) -> str:
    return service.client_certificate or (upstream.client_certificate if upstream is not None else "")


def _bad(certificate_id: str, error: UnusablePem) -> BuildFault:
    return BuildFault(BAD_CERTIFICATE, f"it can't be used: {error}", "certificates", certificate_id, "", "cert")
