from data_plane.observe.side_counts cimport SideCounts
from data_plane.observe.traffic cimport RouteTraffic


cdef class ServiceRuntime:
    cdef public object attempts_max
    cdef public object balancer
    cdef public bytes base_path
    cdef public object config
    cdef public double connect_timeout_s
    cdef public bint counted_in
    cdef public SideCounts figures
    cdef public str host_header
    cdef public dict host_lines
    cdef public double read_timeout_s
    cdef public str side
    cdef public str side_name
    cdef public object sides
    cdef public object tls
    cdef public double write_timeout_s

    cpdef object count_in(self, book)
    cpdef bytes host_line(self, endpoint)


cdef class Plan:
    cdef public bint buffered
    cdef public object captures
    cdef public tuple debug
    cdef public tuple fields
    cdef public bytes forwarded
    cdef public bytes host_line
    cdef public bint is_head
    cdef public bytes line
    cdef public str message
    cdef public bytes prefix
    cdef public bint remembered
    cdef public bint replayable
    cdef public object route
    cdef public ServiceRuntime service
    cdef public bytes start
    cdef public int status
    cdef public RouteTraffic traffic


cdef class PlanCache:
    cdef Py_ssize_t _max
    cdef dict _old
    cdef public dict young

    cpdef Plan get(self, tuple key)
    cpdef object put(self, tuple key, Plan plan)


cdef class Tables:
    cdef public tuple header_names
    cdef public PlanCache plans
    cdef public object router
    cdef public object server_names
    cdef public object services
    cdef public long long version


cdef class Active:
    cdef public double due
    cdef public object fenced
    cdef public Tables tables
    cdef public object turn

    cpdef object arm(self, at_ns, turn)
    cpdef object disarm(self)
