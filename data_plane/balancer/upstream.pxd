from data_plane.balancer.endpoint cimport Endpoint


cdef class Upstream:
    cdef public str id
    cdef public bint plain
    cdef public object hashing
    cdef public object sticky
    cdef public bint measures
    cdef public bint watches
    cdef object _rng
    cdef object _on_retire
    cdef object _clock
    cdef object _report
    cdef set _down
    cdef bytes _secret
    cdef set _told
    cdef double _threshold
    cdef dict _endpoints
    cdef bint _usable
    cdef str _algorithm
    cdef object _passive
    cdef object _policies
    cdef object _regular
    cdef object _failover
    cdef object _group
    cdef object _policy
    cdef tuple _loads
    cdef tuple _times
    cdef object _sessions
    cdef object _slow_start

    cpdef Endpoint pick(self, tried=*, bytes key=*)
    cpdef object take(self, Endpoint endpoint)
    cpdef object release(self, Endpoint endpoint)
    cpdef object reconcile(self, config, targets, answers)
    cdef object _follow_config(self, config)
    cdef object _policies_of(self, str algorithm)
    cdef Endpoint _last_holder(self, tried, bytes key)
    cdef Endpoint _warmed(self, Endpoint endpoint, tried, bytes key)
    cdef Endpoint _adopt(self, address)
    cdef object _retire(self, Endpoint endpoint)
    cdef object _judge(self)
