from data_plane.observe.side_counts cimport SideBook
from data_plane.observe.traffic cimport TrafficBook


cdef class Counters:
    cdef public long long answers_own
    cdef public long long attempts_failed
    cdef public long long connections_accepted
    cdef public long long connections_open
    cdef public long long errors_internal
    cdef public long long in_flight
    cdef public long long requests
    cdef public long long requests_malformed
    cdef public long long retries
    cdef public SideBook sides
    cdef public TrafficBook traffic
    cdef public long long upstream_connections_open
    cdef public long long upstream_connections_opened
    cdef public long long upstream_connections_reused
