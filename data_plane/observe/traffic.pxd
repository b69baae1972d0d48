cdef class RouteTraffic:
    cdef TrafficBook _book
    cdef public long long bytes_in
    cdef public long long bytes_out
    cdef public dict codes
    cdef public list kong_ms
    cdef public double kong_s
    cdef public long long quick
    cdef public list request_ms
    cdef public double request_s
    cdef public str route
    cdef public str service
    cdef public long long told
    cdef public list upstream_ms
    cdef public double upstream_s

    cpdef object settled(self, int code, double kong_s, double upstream_s, double request_s)
    cdef object _count(self, int code)


cdef class TrafficBook:
    cdef public long long _series
    cdef public long long _series_max
    cdef public long long folded
    cdef public RouteTraffic overflow
    cdef public dict routes

    cpdef RouteTraffic of(self, str service, str route)
    cpdef bint admit(self, RouteTraffic traffic, int code) except? -1
