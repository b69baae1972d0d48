from data_plane.balancer.endpoint cimport Endpoint
from data_plane.proxy.shared cimport Shared
from data_plane.proxy.upstream cimport UpstreamConnection


cpdef UpstreamConnection take_idle(Shared shared, Endpoint endpoint, identity=*)
cpdef object give_back(Shared shared, UpstreamConnection connection)
