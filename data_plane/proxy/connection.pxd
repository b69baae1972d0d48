cdef class Connection:
    cdef public double active_at
    cdef public Py_ssize_t stalled_bytes
    cdef public object transport

    cpdef object begin_on(self, transport, Py_ssize_t buffer_bytes_max)
