from data_plane.observe.counters cimport Counters
from data_plane.proxy.head cimport RequestScanner
from data_plane.proxy.response_head cimport ResponseScanner
from data_plane.proxy.tables cimport Active


cdef class Shared:
    cdef public bytes _date_line
    cdef public object _date_s
    cdef public object access_log
    cdef public Active active
    cdef public bint allow_debug_header
    cdef public set clients
    cdef public double complained_at
    cdef public set connecting
    cdef public Counters counters
    cdef public bint draining
    cdef public Py_ssize_t gathered_bytes
    cdef public dict greetings
    cdef public bint idle_ends
    cdef public double keepalive_requests_max
    cdef public tuple latency_lines
    cdef public object loop
    cdef public object mirroring
    cdef public double now
    cdef public dict ports
    cdef public object read_buffer
    cdef public object request_id
    cdef public bint request_id_upstream
    cdef public RequestScanner request_scanner
    cdef public ResponseScanner response_scanner
    cdef public str scheme
    cdef public bytes server_line
    cdef public object settings
    cdef public bytes tail_close
    cdef public bytes tail_keep
    cdef public Py_ssize_t upstream_idle_max
    cdef public double upstream_requests_max
    cdef public set upstreams
    cdef public bint usual
    cdef public bytes via_token

    cpdef bytes date_line(self)
