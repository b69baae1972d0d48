cdef class RequestHead:
    cdef public bytes block
    cdef public bint block_http10
    cdef public bint by_method
    cdef public bint chunked
    cdef public bytes ending
    cdef public bint expect_continue
    cdef public bytes field_host
    cdef public bytes forwarded_for
    cdef public bytes host
    cdef public bint http10
    cdef public bint keep_alive
    cdef public bint last_hop
    cdef public long long length
    cdef public bytes method
    cdef public bytes path
    cdef public bytes query
    cdef public list segments
    cdef public bint te_trailers
    cdef public list trusted
    cdef public bint usual
    cdef public bytes via
    cdef public bint websocket

    cpdef list values(self, bytes name)


cdef class RequestScanner:
    cdef Py_ssize_t _head_max
    cdef Py_ssize_t _line_max
    cdef Py_ssize_t _lines_max
    cdef Py_ssize_t _request_line_max
    cdef dict _hosts

    cpdef Py_ssize_t end_of(self, bytes data, Py_ssize_t seen, RequestHead head) except? -2
    cpdef object check_incomplete(self, bytes data, Py_ssize_t seen)
    cpdef object scan(self, bytes data, Py_ssize_t end, RequestHead head)
    cdef object _fields(self, bytes block, RequestHead head)
    cdef bint _names_too_long(self, bytes data) except? -1
    cdef bytes _host(self, bytes raw)
    cdef object _other_version(self, bytes version, bytes target, bytes method, RequestHead head)
    cdef tuple _other_target(self, bytes method, bytes target)
