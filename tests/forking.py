"""Child processes that are forked from one that has imported what most need: that takes half a second.

Not `lazynwb` itself, which reads settings from the environment when it is imported.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

#: Forks for each request; the child goes on behind `serve` and ends as any interpreter does.
_SERVER = """
import h5py, numpy, polars

def serve(number):
    import json, os, socket, sys, warnings

    warnings.filterwarnings("ignore", message="Using fork")
    connection = socket.socket(fileno=number)
    while True:
        message, files, _, _ = socket.recv_fds(connection, 1 << 20, 3)
        if not message:
            os._exit(0)
        child = os.fork()
        if not child:
            break
        for file in files:
            os.close(file)
        connection.send(b"%d" % child)
        connection.send(b"%d" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    connection.close()
    for place, file in enumerate(files):
        os.dup2(file, place)
        os.close(file)
    code, sys.argv, environment, folder = json.loads(message)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    warnings.resetwarnings()
    return compile(code, "<string>", "exec")

exec(serve(int(__import__("sys").argv[1])))
"""


def can_fork(environment: dict[str, str]) -> bool:
    """Return whether a process may be forked: its environment differs in settings of lazynwb only."""
    return sys.platform == "linux" and _settings(environment) == _settings(dict(os.environ))


def _settings(environment: dict[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name != "PYTHONPATH" and not name.startswith(("LAZYNWB_", "PYTEST_"))
    }


def run(
    code: str, arguments: list[str], environment: dict[str, str], stdin: bytes, timeout: float
) -> tuple[int, bytes, bytes]:
    """Run Python code in a forked process.

    Returns
    -------
    tuple
        Its exit code, and what it wrote to stdout and stderr.

    Raises
    ------
    subprocess.TimeoutExpired
        If it does not end in time; it is killed.
    """
    server = _server(environment["PYTHONPATH"])
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(stdin)
        given.seek(0)
        request = json.dumps([code, ["-c", *arguments], environment, str(Path.cwd())]).encode()
        socket.send_fds(server, [request], [file.fileno() for file in (given, out, err)])
        child = int(server.recv(100))
        server.settimeout(timeout)
        try:
            status = int(server.recv(100))
        except TimeoutError:
            os.kill(child, signal.SIGKILL)
            server.settimeout(None)
            server.recv(100)
            raise subprocess.TimeoutExpired("a forked process", timeout) from None
        finally:
            server.settimeout(None)
        out.seek(0)
        err.seek(0)
        return status, out.read(), err.read()


@functools.cache
def _server(path: str) -> socket.socket:
    """Start the process that forks; it ends when this one does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        subprocess.Popen(  # noqa: S603 - our own code
            [sys.executable, "-X", "faulthandler", "-c", _SERVER, str(theirs.fileno())],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
    return ours
