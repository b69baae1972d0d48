from data_plane.balancer.endpoint cimport Endpoint
from data_plane.proxy.client cimport ClientConnection
from data_plane.proxy.head cimport RequestHead
from data_plane.proxy.response_head cimport ResponseHead
from data_plane.proxy.shared cimport Shared
from data_plane.proxy.tables cimport Plan, ServiceRuntime
from data_plane.proxy.upstream cimport UpstreamConnection


cdef class Exchange:
    cdef object _attempts
    cdef bint _body_flowed
    cdef object _choice
    cdef ClientConnection _client
    cdef object _connecting
    cdef Endpoint _endpoint
    cdef bytes _last_chunk
    cdef list _pending
    cdef Py_ssize_t _pending_bytes
    cdef list _pieces
    cdef bint _sent
    cdef ServiceRuntime _service
    cdef Shared _shared
    cdef bint _stale_retry
    cdef int _status
    cdef list _tried
    cdef bint _unbuffered_body
    cdef public tuple answer_lines
    cdef public bint answering
    cdef public list attempts
    cdef public double balanced_at
    cdef public long long bytes_in
    cdef public long long bytes_out
    cdef public int code
    cdef public bint http10
    cdef public bint is_head
    cdef public Plan plan
    cdef public double proxy_s
    cdef public bytes request_id
    cdef public bint request_sent
    cdef public double started_at
    cdef public bint stream_chunked
    cdef public bint streaming
    cdef public bint te_trailers
    cdef public UpstreamConnection upstream
    cdef public double upstream_s
    cdef public long long version
    cdef public bint websocket

    cpdef str describe(self)
    cpdef bint waits_for_client(self) except? -1
    cpdef object start(self, Plan plan, RequestHead head, bytes body_line, bytes content, bint streaming)
    cdef object _choose(self, balancer, Plan plan)
    cdef object _attempt(self)
    cdef object _connect(self, Endpoint endpoint)
    cdef object _identity(self, Endpoint endpoint)
    cpdef object connected(self, UpstreamConnection upstream)
    cpdef object connect_failed(self, int status)
    cdef object _send(self, UpstreamConnection upstream)
    cdef bytes _framed(self, list pieces)
    cpdef Py_ssize_t request_bytes(self) except? -1
    cpdef object bad_answer(self, str reason)
    cpdef object timed_out(self)
    cpdef object crashed(self)
    cpdef object close_late(self)
    cpdef object abandon(self)
    cdef object _no_endpoint(self, none)
    cdef object _fail(self, int status)
    cdef object _broke_off(self, int status)
    cdef object _release(self)
    cdef object _forget(self)
    cpdef object send_body(self, list pieces)
    cpdef object end_body(self, list trailers)
    cpdef object upstream_stalled(self)
    cpdef object upstream_flows(self)
    cpdef list begin_answer(self, ResponseHead head, bytes text)
    cdef bint _close_delimits(self, ResponseHead head) except? -1
    cpdef object write(self, bytes data)
    cpdef object finished(self, UpstreamConnection reusable)
    cpdef object settle(self)
    cpdef object log(self, access_log, double now)
    cpdef object begin_tunnel(self, ResponseHead head)
    cpdef object tunnel_ended(self)
