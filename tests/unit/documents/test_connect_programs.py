# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The two programs that ssh calls (playbooks/files), run against sockets on this machine's loopback: what they send and when."""

import array
import os
import shutil
import socket
import subprocess
import sys
import threading
import time

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._client import connect as _connect
from ansible_collections.sesame.portknock.plugins.module_utils._client import knock as _knock
from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import SETTLE

HOST = "127.0.0.1"
FILES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "playbooks", "files")
BANNER = b"SSH-2.0-x\r\n"


class Door:
    """Two UDP ports to knock at and one to open; knocks are written down, and the last of so many opens it."""

    def __init__(self, knocks):
        self.heard, self._left = [], knocks
        self._steps = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _step in range(2)]
        self._listener = socket.socket()
        for opened in [*self._steps, self._listener]:
            opened.settimeout(200)
            opened.bind((HOST, 0))
        self.steps = ["{0}/udp".format(opened.getsockname()[1]) for opened in self._steps]
        self.port = self._listener.getsockname()[1]
        self._lock, self._listens = threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=self._hear, args=(number,), daemon=True) for number in range(2)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error):
        for opened in [*self._steps, self._listener]:
            opened.close()

    def _hear(self, number):
        try:
            while self._steps[number].recv(9):
                self._write_down(number + 1)
        except OSError:
            # The test is over.
            return

    def _write_down(self, step):
        with self._lock:
            self.heard.append((step, time.monotonic()))
            # A knock is over with its second step behind its first.
            if [each for each, _when in self.heard[-2:]] == [1, 2]:
                self._left -= 1
                if not self._left:
                    self._listener.listen(1)
                    self._listens.set()

    def greet(self):
        """Accept a connection and send a banner; return the connection and when it came."""
        assert self._listens.wait(200), self.heard
        opened, _peer = self._listener.accept()
        came = time.monotonic()
        opened.sendall(BANNER)
        return opened, came


def connect(program, door, engine, tmp_path):
    """Run a program as ssh does; return what it said of the door's banner, and the door's side of it."""
    for module in (_connect, _knock):
        name = os.path.basename(module.__file__)
        shutil.copy(module.__file__, str(tmp_path / ("_" + name)))
    line = " ".join(["target", engine, "0.05", "-", *door.steps])
    (tmp_path / "knocks").write_text("other iptables 0.1 - 9/tcp\n{0}\n".format(line))
    path = os.path.join(FILES, "portknock-connect." + program)
    shutil.copy(path, str(tmp_path))
    here = str(tmp_path / os.path.basename(path))
    words = [sys.executable, "-ISB", here] if program == "py" else ["bash", here]
    ours, its = socket.socketpair()
    with ours, its, subprocess.Popen(
        [*words, "target", HOST, str(door.port)], stdin=subprocess.PIPE, stdout=its, stderr=subprocess.PIPE
    ) as process:
        its.close()
        try:
            opened, came = door.greet()
            said = taken_over(ours) if program == "py" else ours.recv(100)
            opened.close()
            process.stdin.close()
            process.wait(200)
        finally:
            process.kill()
    return said, came


def taken_over(ours):
    """Return what comes over the connection that was handed over."""
    ours.settimeout(200)
    descriptors = array.array("i")
    _data, extra, _flags, _where = ours.recvmsg(1, socket.CMSG_SPACE(descriptors.itemsize))
    descriptors.frombytes(extra[0][2])
    with socket.socket(fileno=descriptors[0]) as connection:
        return connection.recv(100)


@pytest.mark.parametrize("program", ["py", "sh"])
@pytest.mark.parametrize("engine", ["iptables", "knockd"])
def test_the_steps_of_each_try_and_the_wait_after_the_last(program, engine, tmp_path):
    with Door(knocks=2) as door:
        said, came = connect(program, door, engine, tmp_path)
        assert said.startswith(BANNER.rstrip())
        again = [2, 1, 2] if engine == "knockd" else [1, 2]
        heard = [step for step, _when in door.heard]
        # On a busy machine the door may be late: then there are more tries, and it may have read two ports out of turn.
        tries = heard.count(1)
        assert tries >= 2 and sorted(heard) == sorted([1, 2, *again * (tries - 1)])
        assert tries > 2 or heard == [1, 2, *again]
        waited = came - door.heard[-1][1]
        assert waited >= 0.05 + (SETTLE if engine == "knockd" else 0) - 0.02
