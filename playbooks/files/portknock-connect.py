# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ssh calls to connect to a host behind a door: ``python3 portknock-connect.py NAME HOST PORT``.

Knocks, connects, knocks again if that did not get in, and hands the open connection to ssh, which then goes on by
itself (ProxyUseFdpass). The steps are in the file ``knocks`` beside this one, a line for each host:
NAME ENGINE PAUSE HOST_TO_KNOCK_AT_OR_- STEP... where the engine is what recognises the knock, one of _knock.ENGINES.
"""

import fcntl
import os
import socket
import struct
import sys
import zlib
from typing import Callable, List, Sequence, Tuple

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from _connect import NotOpenError, connect_after_knock  # noqa: E402
from _knock import KnockError, resolve, send_knock, settle_of, steps_of_turn  # noqa: E402

SECONDS = 20
KNOCKS = os.path.join(HERE, "knocks")


class ConnectError(Exception):
    """Why no connection could be made, for whoever called ssh."""


def read_knock(name: str) -> Tuple[str, float, str, List[Tuple[int, str]]]:
    """Return (engine, pause, host to knock at or '', steps) of a host."""
    with open(KNOCKS, encoding="utf-8") as stream:
        for line in stream:
            words = line.split()
            if words[:1] == [name]:
                _name, engine, pause, host = words[:4]
                pairs = [word.partition("/") for word in words[4:]]
                return engine, float(pause), "" if host == "-" else host, [(int(p), kind) for p, _s, kind in pairs]
    raise ConnectError(f"{name} is not in {KNOCKS}. Run the playbook sesame.portknock.client_config again.")


def knocker(name: str, addresses: Sequence[str]) -> Callable[[int], None]:
    """Return a function that knocks once, given how many knocks before were not let in."""
    engine, pause, host, steps = read_knock(name)
    at = resolve(host) if host else addresses

    def knock(turn: int) -> None:
        # Steps of two ssh at once to the same host would mix: each host has a byte of the file to lock.
        with open(KNOCKS, "r+b") as stream:
            fcntl.lockf(stream, fcntl.LOCK_EX, 1, zlib.crc32(name.encode()))
            send_knock(at, steps_of_turn(steps, turn, engine), pause, settle=settle_of(engine))

    return knock


def hand_over(opened: socket.socket) -> None:
    """Give a connection to the ssh that started us."""
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    with socket.fromfd(sys.stdout.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as ssh:
        ssh.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", opened.fileno()))])


def connect(name: str, host: str, port: int) -> None:
    """Knock, connect, and give the connection to ssh."""
    addresses = resolve(host)
    try:
        opened = connect_after_knock(knocker(name, addresses), addresses, port, SECONDS, speaks_first=True)
    except NotOpenError as error:
        raise ConnectError(
            f"port {port} of {host} did not open with {error.tries} knock(s): {error}. Has the knock changed? Then run the "
            "playbook sesame.portknock.client_config again."
        ) from None
    hand_over(opened.socket)


def main() -> None:
    """Take NAME, HOST and PORT from the command line."""
    try:
        name, host, port = sys.argv[1:]
        connect(name, host, int(port))
    except (ConnectError, KnockError) as error:
        sys.exit(f"portknock: {error}")
    except OSError as error:
        # ssh ended meanwhile, a file is not readable, or ProxyUseFdpass is not yes.
        sys.exit(f"portknock: {error.strerror} {error.filename or 'when ssh was to take the connection'}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
