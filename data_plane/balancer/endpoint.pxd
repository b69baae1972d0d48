cdef class Endpoint:
    cdef public tuple address
    cdef public bint available
    cdef public bint failover
    cdef public str host
    cdef public object idle
    cdef public long long in_flight
    cdef public str ip
    cdef public str key
    cdef public object port
    cdef public bint retired
    cdef public str target_id
    cdef public str upstream
    cdef public object weight
