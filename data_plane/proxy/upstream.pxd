from data_plane.balancer.endpoint cimport Endpoint
from data_plane.proxy.connection cimport Connection
from data_plane.proxy.response_head cimport ResponseHead
from data_plane.proxy.shared cimport Shared


cdef class UpstreamConnection(Connection):
    cdef bytes _buffer
    cdef object _decoder
    cdef int _interim
    cdef bint _keep
    cdef object _left
    cdef Shared _shared
    cdef bint _unread
    cdef public Endpoint endpoint
    cdef public object exchange
    cdef public object identity
    cdef public long long requests
    cdef public int state

    cpdef object send(self, exchange, bytes data)
    cpdef object detach(self)
    cpdef object part(self)
    cpdef object forget(self)
    cdef bint _silent(self) except? -1
    cdef object _uncount(self)
    cpdef object close(self)
    cdef object _read_head(self, exchange, bytes data)
    cdef bint _interim_answer(self, exchange, ResponseHead head) except? -1
    cdef object _read_fixed(self, exchange, bytes data)
    cdef object _begin_chunked(self, exchange, ResponseHead head, bytes data, Py_ssize_t start)
    cdef object _read_chunked(self, exchange, bytes data, list out)
    cdef object _end(self, exchange, bint clean)
