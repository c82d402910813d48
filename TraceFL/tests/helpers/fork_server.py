"""Programs that answer within a moment: a process that has imported all is forked, instead of another Python started.

``write_program`` makes a small program, whose name, arguments, folder, environment and files reach a process that calls
``serve``. That forks, and the fork does what the program is to do; its exit status becomes the program's.
"""

import json
import os
import select
import signal
import socket
import sys
import traceback

_PROGRAM = """#!{python} -IS
import json, os, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect({address!r})
words = json.dumps([{name!r}, sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(connection, [words + b"\\n"], [0, 1, 2])
sys.exit(int(connection.recv(16) or b"1"))
"""


def write_program(folder, name, address):
    """Write a program, for a folder on the PATH, that asks the server at this address."""
    program = folder / name
    program.write_text(_PROGRAM.format(python=sys.executable, address=str(address), name=name))
    program.chmod(0o755)


def serve(address, do):
    """Serve until standard input closes, as it does when the process that started this one ends.

    Args:
        address: The path of the socket.
        do: By name, what a program does in the asker's folder, given its arguments and environment; it may exit.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forked processes
    server = socket.socket(socket.AF_UNIX)
    server.bind(address)
    server.listen()
    while sys.stdin not in select.select([server, sys.stdin], [], [])[0]:
        connection, _ = server.accept()
        words, descriptors, _, _ = socket.recv_fds(connection, 1 << 20, 3)
        while not words.endswith(b"\n"):
            words += connection.recv(1 << 20)
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            server.close()
            _answer(connection, descriptors, do, *json.loads(words))
        connection.close()
        for descriptor in descriptors:
            os.close(descriptor)


def _answer(connection, descriptors, do, name, arguments, folder, environment):
    """Do what is asked in a process of its own, with the asker's folder, environment and files, and send its status."""
    pid = os.fork()
    if pid:
        connection.sendall(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
        os._exit(0)
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [name, *arguments]
    status = 1
    try:
        do[name](arguments, environment)
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:  # noqa: BLE001 - shown to the asker
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
