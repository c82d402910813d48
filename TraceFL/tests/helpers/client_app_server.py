"""``python -m tests.helpers.client_app_server SOCKET``: Flower's ``flwr-clientapp`` in forked processes.

A SuperNode starts one for every message, and most of its time is the import of these libraries. TraceFL itself is not
among them: it comes from the app that Flower has installed.
"""

import sys

import datasets  # noqa: F401
import torchvision  # noqa: F401
from flwr.supernode.cli import flwr_clientapp

from tests.helpers.fork_server import serve

if __name__ == "__main__":
    serve(sys.argv[1], {"flwr-clientapp": lambda arguments, environment: flwr_clientapp()})
