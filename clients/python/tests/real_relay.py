"""The real relay as a process of its own, by the program that RELAY_BIN names."""

from __future__ import annotations

import os
import queue
import socket
import subprocess
import tempfile
import threading
import unittest
from pathlib import Path

START_S = 60.0


def program() -> str:
    """The path of the relay. Skips the test without it, or fails it with REQUIRE_PROGRAMS=1."""
    path = os.environ.get("RELAY_BIN")
    if path and os.path.exists(path):
        return path
    if os.environ.get("REQUIRE_PROGRAMS") == "1":
        raise AssertionError("RELAY_BIN does not name the program of the relay")
    raise unittest.SkipTest("RELAY_BIN does not name the program of the relay")


class RealRelay:
    """A relay with a store in a temporary directory."""

    def __init__(self, config: str = "", scheme: str = "http") -> None:
        self._program = program()
        self.directory = tempfile.TemporaryDirectory(prefix="relay-client-")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"{scheme}://127.0.0.1:{port}"
        self._config = Path(self.directory.name) / "relay.toml"
        lines = [f'address = "127.0.0.1:{port}"', config, '[admin]\naddress = ""']
        lines.append(f'[storage]\nkind = "redb"\npath = "{self.directory.name}/store"')
        lines.append("min_free_bytes = 0\n[rate_limit]\nenabled = false\n")
        self._config.write_text("\n".join(lines))
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> RealRelay:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.directory.cleanup()

    def start(self) -> None:
        """Starts the process, and returns when it serves."""
        self._process = subprocess.Popen(
            [self._program, "--config", str(self._config)],
            cwd=self.directory.name,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(self._process, lines), daemon=True).start()
        seen: list[str] = []
        while True:
            line = lines.get(timeout=START_S)
            if not line:
                raise AssertionError("the relay does not start: " + "".join(seen))
            if line.startswith("listening on"):
                return
            seen.append(line)

    def _read(self, process: subprocess.Popen[str], lines: queue.SimpleQueue[str]) -> None:
        assert process.stdout is not None, "the output is a pipe"
        with process.stdout:
            for line in process.stdout:
                lines.put(line)
        lines.put("")

    def kill(self) -> None:
        """Ends the process at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
