"""Which sockets processes listen on, and what a stranger gets who knows only their addresses."""

import http.client

import grpc
import psutil

#: A call of each of Ray's services. Its content is nothing, but who calls is asked before that is looked at.
RAY_CALLS = (
    "/ray.rpc.InternalKVGcsService/InternalKVKeys",
    "/ray.rpc.NodeManagerService/GetSystemConfig",
    "/ray.rpc.ObjectManagerService/Push",
    "/ray.rpc.CoreWorkerService/PushTask",
)


def listening(pid, before=()):
    """Return the sockets on which a process and all below it listen: ``{port: (address, name of the process)}``.

    Args:
        before: Ports to leave out. A worker of the tests has children of other tests, such as a browser's driver.
    """
    found = {}
    for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        try:
            for socket in process.net_connections("tcp"):
                if socket.status == psutil.CONN_LISTEN and socket.laddr.port not in before:
                    found[socket.laddr.port] = (socket.laddr.ip.removeprefix("::ffff:"), process.name())
        except psutil.NoSuchProcess:
            continue
    return found


def answer_to_a_stranger(port, host="127.0.0.1", calls=RAY_CALLS):
    """Return what a port of this machine says to who brings nothing: the gRPC status, or that of HTTP, as a number."""
    said = set()
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        for call in calls:
            try:
                channel.unary_unary(call)(b"", timeout=10)
                said.add("answered")
            except grpc.RpcError as error:
                said.add(error.code().name)
    if said == {"UNAVAILABLE"}:  # it does not speak gRPC
        asked = http.client.HTTPConnection(host, port, timeout=10)
        asked.request("POST", "/", b"")
        return str(asked.getresponse().status)
    return ", ".join(sorted(said - {"UNIMPLEMENTED"}))  # by services that this port does not have
