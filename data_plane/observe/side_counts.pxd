cdef class SideCounts:
    cdef public long long closed_late
    cdef public long long connect_errors
    cdef public long long errors_5xx
    cdef public double first_at
    cdef public double last_at
    cdef public list latency
    cdef public long long mirror_errors_5xx
    cdef public long long mirror_failed
    cdef public long long mirror_sent
    cdef public long long mirror_skipped
    cdef public list quick_ms
    cdef public str service
    cdef public str service_name
    cdef public long long slow
    cdef public tuple told
    cdef public str upstream
    cdef public str upstream_name

    cpdef object answered(self, int status, double seconds)
    cpdef object failed(self)
    cpdef object left(self, double seconds)
    cpdef object broke_off(self, int status)


cdef class SideBook:
    cdef object _rng
    cdef dict _turns
    cdef public dict sides
