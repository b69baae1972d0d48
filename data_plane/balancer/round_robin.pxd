from data_plane.balancer.endpoint cimport Endpoint


cdef class _Turns:
    cdef public Endpoint endpoint
    cdef public object order
    cdef public object revolution
    cdef public object taken
    cdef public object weight

    cpdef double due(self) except? -1


cdef class RoundRobin:
    cdef list _due
    cdef object _flips
    cdef list _live
    cdef bint _live_changed
    cdef double _now
    cdef object _revolution
    cdef object _salt
    cdef dict _turns

    cpdef reconcile(self, endpoints)
    cpdef availability_changed(self, Endpoint endpoint)
    cpdef Endpoint pick(self, excluded, bytes key)
    cdef Endpoint _pick_other(self, excluded)
    cdef bint _queue(self) except? -1
    cdef object _queue_live(self)
    cdef object _fill(self)
    cdef object _order(self, index, Endpoint endpoint)
