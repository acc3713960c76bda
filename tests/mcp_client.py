"""A client of nwb-mcp-server in a separate process, over its stdio protocol (JSON-RPC, one message per line).

with McpServer(python, "--root-dir", folder, PYTHONPATH=...) as server:
    server.call("get_tables")
"""

import json
import os
import queue
import subprocess
import threading

_MAIN = "from nwb_mcp_server.server import main; main()"
_SECONDS = 120


class McpServer:
    """A server with its session; `call` returns the value of a tool."""

    def __init__(self, python, *arguments, **env):
        self._process = subprocess.Popen(  # noqa: S603 - the interpreter that the test's user names
            [python, "-c", _MAIN, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**{k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, **env},
            text=True,
        )
        self._messages = queue.Queue()
        self._errors = []
        self._number = 0
        for stream, put in (
            (self._process.stdout, self._messages.put),
            (self._process.stderr, self._errors.append),
        ):
            threading.Thread(target=lambda s=stream, p=put: [p(line) for line in s], daemon=True).start()

    def __enter__(self):
        client = {"name": "tests", "version": "0"}
        begin = {"protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": client}
        self.ask("initialize", begin)
        self._send({"method": "notifications/initialized"})
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _send(self, message):
        self._process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        self._process.stdin.flush()

    def ask(self, method, params):
        self._number += 1
        self._send({"id": self._number, "method": method, "params": params})
        while True:
            try:
                answer = json.loads(self._messages.get(timeout=_SECONDS))
            except queue.Empty:
                message = "no answer; its errors:\n" + "".join(self._errors[-40:])
                raise AssertionError(message) from None
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def tools(self):
        """Each tool's name, with the names of its parameters."""
        tools = self.ask("tools/list", {})["tools"]
        return {tool["name"]: sorted(tool["inputSchema"]["properties"]) for tool in tools}

    def call(self, tool, **arguments):
        """The value that a tool returns; an error has the tool's message."""
        result = self.ask("tools/call", {"name": tool, "arguments": arguments})
        texts = [part["text"] for part in result["content"]]
        assert not result.get("isError"), texts
        return result.get("structuredContent", texts)
