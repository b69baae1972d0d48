from data_plane.proxy.head cimport RequestHead


cdef class PeerLines:
    cdef object _settings
    cdef bytes _via
    cdef public bytes address
    cdef public bint asks_requests
    cdef public bytes client
    cdef public bytes common
    cdef public bint trusted

    cpdef bytes lines(self, RequestHead head)
    cpdef bytes client_address(self, RequestHead head)
