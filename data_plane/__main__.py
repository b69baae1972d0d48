"""`python -m data_plane` and `pointsman data-plane`: one node until a signal."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections.abc import Sequence

from data_plane import BUILD
from data_plane.front import Front
from data_plane.node.identity import Identity, IdentityError
from data_plane.node.sockets import ListenError
from data_plane.settings import NodeSettings
from pointsman import logs
from pointsman.rules.cluster_mtls import ClusterMtls
from pointsman.settings import SettingsError, load
from pointsman.version import software_version

EXIT_USAGE = 64
EXIT_FAILED = 1


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 0 after a good end, 64 for unusable settings, 1 for what else stops a start."""
    try:
        settings = load(
            NodeSettings,
            arguments,
            os.environ,
            program="pointsman data-plane",
            description="Serve traffic by the configuration of the control plane, or by the last good one.",
            version=lambda: f"{software_version()}, hot path {BUILD}",
        )
        logs.set_up(level=settings.log_level, form=settings.log_format)
        _raise_descriptor_limit()
        with (
            contextlib.closing(Identity(settings.state_dir)) as identity,
            Front(settings, _node_id(settings, identity.node_id)) as front,
        ):
            # The first workers start meanwhile: this takes as long as they do.
            from data_plane import wiring  # noqa: PLC0415

            wiring.run(settings, identity.node_id, front)
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the logs may not be set up
        return EXIT_USAGE
    except (IdentityError, ListenError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - as above
        return EXIT_FAILED
    return 0


def _node_id(settings: NodeSettings, own_id: str) -> str:
    """The id by which workers name this node in their logs; a certificate of an own authority may give it.

    Raises SettingsError.
    """
    if settings.cluster_mtls is not ClusterMtls.PKI:
        return own_id
    from data_plane import wiring  # noqa: PLC0415  # what reads certificates is there, and no worker can start without

    _, node_id = wiring.fleet_access(settings, own_id)
    return node_id


def _raise_descriptor_limit() -> None:
    """Allow as many connections as the system lets us: the usual soft limit of 1,024 is for programs that use select().

    Workers inherit it.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # an unlimited hard limit may be above what the kernel takes
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
