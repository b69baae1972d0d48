from data_plane.proxy.connection cimport Connection
from data_plane.proxy.exchange cimport Exchange
from data_plane.proxy.forwarding cimport PeerLines
from data_plane.proxy.head cimport RequestHead
from data_plane.proxy.tables cimport Plan, Tables
from data_plane.proxy.shared cimport Shared


cdef class ClientConnection(Connection):
    cdef bint _advancing
    cdef bytes _buffer
    cdef long long _drained
    cdef Exchange _exchange
    cdef bint _half_closed
    cdef int _held
    cdef Plan _plan
    cdef int _port_key
    cdef Py_ssize_t _seen
    cdef Shared _shared
    cdef public object body
    cdef public RequestHead head
    cdef public bint keep
    cdef public PeerLines peer
    cdef public int port
    cdef public double rate_at
    cdef public long long rate_bytes
    cdef public long long requests
    cdef public str scheme
    cdef public bytes sni
    cdef public str speaks_for
    cdef public int state
    cdef public bint write_paused

    cpdef long long measure_body(self, double now) except? -1
    cdef object _advance(self)
    cdef bint _next_request(self) except? -1
    cpdef Plan _match(self, Tables tables, RequestHead head)
    cdef Plan _match_by_more(self, Tables tables, RequestHead head)
    cdef Plan _plan_for(self, Tables tables, RequestHead head, tuple key, str proto)
    cdef Plan _make_plan(self, Tables tables, RequestHead head, str proto)
    cdef object _begin_body(self, Plan plan, RequestHead head)
    cdef object _guarded_body(self, bytes data)
    cdef object _body(self, bytes data)
    cpdef tuple debug_lines(self)
    cpdef object _answer_plan(self, Plan plan)
    cdef object _refuse_in_flight(self, int status, str message)
    cdef object _crashed(self)
    cpdef object cut(self)
    cpdef object request_done(self)
    cdef object _end_early(self)
    cdef object _drain(self, bytes data)
    cdef object _linger(self)
    cpdef object close_idle(self)
    cpdef object end(self)
    cpdef object time_out(self)
    cdef object _abandon(self)
    cpdef object upstream_stalled(self)
    cpdef object upstream_flows(self)
    cdef object _hold(self, int reason)
    cdef object _release(self, int reason)
    cpdef object begin_tunnel(self, bytes data)
    cpdef object tunnel_ended(self)
