"""Plain requests on a TLS port: each is answered 400 with nginx's words, in the form it asked for, and is the last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from data_plane.proxy.client import ClientConnection
from data_plane.proxy.tables import Plan

if TYPE_CHECKING:
    from data_plane.proxy.head import RequestHead
    from data_plane.proxy.tables import Tables

PLAIN_ON_TLS = "The plain HTTP request was sent to HTTPS port"


class MisdirectedConnection(ClientConnection):
    """A client connection that matches no routes: its client has the wrong scheme, and nothing of it may be served."""

    __slots__ = ()

    @override
    def _match(self, tables: Tables, head: RequestHead) -> Plan:
        self.keep = False
        plan = Plan(route=None, service=None)
        plan.status = 400
        plan.message = PLAIN_ON_TLS
        return plan

    @override
    def _answer_plan(self, plan: Plan) -> None:
        self.answer(plan.status, plan.message, engine=True)
