"""What somebody gets from a deployment who has its address and its certificate, and at most a key of its own."""

import http.client
import socket
import ssl

import httpx
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest, RegisterNodeFleetRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from tests.helpers.deployed import OUTSIDE

#: Each reaches the Control or Runtime API, the documentation or the health of a SuperLink that is not fenced.
PATHS = (
    "/v1/control/start-run",
    "/v1/runtime/acquire-task",
    "/docs",
    "/openapi.json",
    "/health",
    "/",
    "/v1/fleet/../control/list-runs",
    "/v1/fleet/%2e%2e/control/list-runs",
    "/v1/fleet/..%2fcontrol/list-runs",
    "/v1/fleet/x/../../control/list-runs",
    "//v1//control//list-runs",
)


def status_of(deployed, path):
    """Return the status with which nginx answers a request, as it is written."""
    tls = ssl.create_default_context(cafile=deployed.certificate)
    connection = http.client.HTTPSConnection(OUTSIDE, deployed.gate, timeout=30, context=tls)
    connection.putrequest("POST", path, skip_host=True)
    connection.putheader("Host", "localhost")
    connection.putheader("Content-Length", "0")
    connection.endheaders()
    return connection.getresponse().status


def answer_of_the_superlink_itself(deployed):
    """Return what comes of connecting to the SuperLink past nginx."""
    try:
        with socket.create_connection((OUTSIDE, deployed.port), timeout=30):
            return "answered"
    except ConnectionRefusedError:
        return "refused"


def answers_to_a_supernode(deployed, node_id, key=None):
    """Return what a SuperNode gets that has not been let in as the one that it claims to be.

    Args:
        deployed: The deployment.
        node_id: The other SuperNode, whose messages it asks for.
        key: Path of its own private key; None for a new one, with which it first registers and comes in.
    """
    private, public = generate_key_pairs()
    said = public_key_to_bytes(public)
    pulls = ("PullMessages", PullMessagesRequest(node=Node(node_id=node_id)))
    calls = [
        ("RegisterNode", RegisterNodeFleetRequest(public_key=said)),
        ("ActivateNode", ActivateNodeRequest(public_key=said, heartbeat_interval=30)),
        pulls,
    ]
    if key is not None:
        private, calls = load_ssh_private_key(key.read_bytes(), None), [pulls]
    signs = NodeAuthHttpInterceptor(private, private.public_key())
    interceptors = (RuntimeVersionHttpInterceptor(component_name="SuperNode"), signs)
    address, certificate = f"{OUTSIDE}:{deployed.gate}", str(deployed.certificate)
    with FleetHttpClient.from_server_address(address, False, certificate, interceptors) as client:
        return {name: _answer(getattr(client, name), request) for name, request in calls}


def _answer(call, request):
    try:
        call(request)
    except httpx.HTTPStatusError as error:
        return error.response.status_code
    return "answered"
