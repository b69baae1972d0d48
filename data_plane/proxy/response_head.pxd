cdef class ResponseHead:
    cdef public bint chunked
    cdef public bint has_date
    cdef public bint has_server
    cdef public bint keep_alive
    cdef public object length
    cdef public list segments
    cdef public int status
    cdef public bytes text
    cdef public bytes trailer
    cdef public bytes upgrade
    cdef public bint usual
    cdef public bytes via


cdef class ResponseScanner:
    cdef Py_ssize_t _head_max
    cdef dict _heads
    cdef dict _heads_before
    cdef dict _lines
    cdef dict _lines_before
    cdef dict _names
    cdef ResponseHead _passing
    cdef set _seen
    cdef dict _status_lines

    cpdef object check_incomplete(self, bytes data)
    cpdef ResponseHead scan(self, bytes block)
    cdef ResponseHead _scan(self, bytes block)
    cdef bint _scan_lines(self, list lines, ResponseHead head) except? -1
    cdef object _judge(self, bytes line)
    cdef int _judge_name(self, bytes name, Py_ssize_t colon) except? -1
    cdef bint _came_before(self, bytes octets) except? -1
    cdef tuple _status_line(self, bytes line)
