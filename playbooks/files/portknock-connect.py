# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ssh calls to connect to a host behind a door: ``python3 portknock-connect.py NAME HOST PORT``.

Knocks, connects, knocks again if that did not get in, and hands the open connection to ssh, which then goes on by
itself (ProxyUseFdpass). Where it does not get in at all, it says why, as far as that can be told from here. The steps
are in the file ``knocks`` beside this one, a line for each host: NAME ENGINE PAUSE HOST_TO_KNOCK_AT_OR_- STEP...
where the engine is what recognises the knock, one of _knock.ENGINES.
"""

import contextlib
import fcntl
import math
import os
import re
import socket
import struct
import sys
import time
import zlib
from typing import Callable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

# What only a failure needs is imported there.
from _connect import ANSWERED_SECONDS, NotOpenError, Sockets, connect_after_knock, is_without_host  # noqa: E402
from _knock import KnockError, resolve, send_knock, settle_of, steps_of_turn  # noqa: E402

SECONDS = 10
"""Seconds for all of it where ssh has no ConnectTimeout."""
LOOK_SECONDS = 1.5
"""Seconds to find out why it did not open."""
IN_TIME_SECONDS, LEAST_LOOK_SECONDS = 4.6, 0.4
"""Seconds for all of it where no host answers, and for finding out why at the least."""
KNOCKS = os.path.join(HERE, "knocks")


class ConnectError(Exception):
    """Why no connection could be made, for whoever called ssh."""


class Knock(NamedTuple):
    """A line of the file."""

    engine: str
    """What recognises it."""
    pause: float
    """Seconds between two steps."""
    host: str
    """The host to knock at, '' for the one that ssh connects to."""
    steps: List[Tuple[int, str]]
    """Its (port, protocol) pairs."""


def read_knock(name: str) -> Knock:
    """Return the knock of a host."""
    with open(KNOCKS, encoding="utf-8") as stream:
        for line in stream:
            words = line.split()
            if words[:1] == [name]:
                _name, engine, pause, host = words[:4]
                pairs = [word.partition("/") for word in words[4:]]
                steps = [(int(port), kind) for port, _slash, kind in pairs]
                return Knock(engine, float(pause), "" if host == "-" else host, steps)
    raise ConnectError(f"{name} is not in {KNOCKS}. Run the playbook sesame.portknock.client_config again.")


def knocker(name: str, addresses: Sequence[str], line: Knock) -> Callable[[int], None]:
    """Return a function that knocks once, given how many knocks before were not let in."""
    at = resolve(line.host) if line.host else addresses

    def knock(turn: int) -> None:
        # Steps of two ssh at once to the same host would mix: each host has a byte of the file to lock.
        with open(KNOCKS, "r+b") as stream:
            fcntl.lockf(stream, fcntl.LOCK_EX, 1, zlib.crc32(name.encode()))
            steps = steps_of_turn(line.steps, turn, line.engine)
            send_knock(at, steps, line.pause, settle=settle_of(line.engine))

    return knock


class AsLongAsSsh(Sockets):
    """Sockets that wait for as long as the ssh that started us (ConnectTimeout), which is asked only if an answer is late."""

    def __init__(self) -> None:
        """Begin to count."""
        self._began = time.monotonic()
        self._seconds: Optional[float] = None

    def left(self) -> float:
        """Return the seconds that are left for tries; the last ones are for finding out why it did not open."""
        if self._seconds is None:
            self._seconds = connect_timeout() or SECONDS
        return max(0, self._began + self._seconds - self.look_seconds - time.monotonic())

    @property
    def look_seconds(self) -> float:
        """The seconds for finding out."""
        return min(LOOK_SECONDS, (self._seconds or SECONDS) / 2)

    def seconds_to_look(self, reasons: Mapping[str, str]) -> float:
        """Return for how long to find out: less where there seems to be no host, and another look would again hear nothing."""
        if not is_without_host(reasons):
            return self.look_seconds
        rest = self._began + IN_TIME_SECONDS - time.monotonic()
        return min(self.look_seconds, max(LEAST_LOOK_SECONDS, rest))


def connect_timeout() -> int:
    """Return ssh's ConnectTimeout in seconds, 0 if it has none or cannot be asked: ssh tells a ProxyCommand nothing of it.

    It is asked with the words that it was started with, so that options of the command line count.
    """
    import subprocess

    ssh = f"/proc/{os.getppid()}"
    try:
        program = os.readlink(f"{ssh}/exe")
        with open(f"{ssh}/cmdline", "rb") as stream:
            words = stream.read().split(b"\0")[1:-1]
        if os.path.basename(program) != "ssh":
            return 0
        said = subprocess.run(
            [program, "-G", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            timeout=LOOK_SECONDS, check=False,
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return 0
    found = re.search(rb"^connecttimeout (\d+)$", said, re.M)
    return int(found.group(1)) if found else 0


def hand_over(opened: socket.socket) -> None:
    """Give a connection to the ssh that started us."""
    with socket.fromfd(sys.stdout.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as ssh:
        ssh.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", opened.fileno()))])


def connect(name: str, host: str, port: int) -> None:
    """Knock, connect, and give the connection to ssh."""
    line = read_knock(name)
    sockets = AsLongAsSsh()
    addresses = resolve(host)
    try:
        opened = connect_after_knock(
            knocker(name, addresses, line), addresses, port, math.inf, True, sockets, ANSWERED_SECONDS
        ).socket
    except NotOpenError as error:
        raise ConnectError(explain(error, host, port, line.steps, sockets.seconds_to_look(error.reasons))) from None
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    said = opened.recv(255, socket.MSG_PEEK)
    if b"SSH-" not in said:
        # "Not allowed at this time", "Exceeded MaxStartups": ssh does not show it.
        line = said.decode("ascii", "replace").splitlines()[0]
        print(f"portknock: {host} says: {''.join(filter(str.isprintable, line))}", file=sys.stderr)
    hand_over(opened)


def explain(error: NotOpenError, host: str, port: int, steps: Sequence[Tuple[int, str]], seconds: float) -> str:
    """Return the sentences about a port that did not open."""
    from _answers import ABOUT_THE_KNOCK, describe

    verdicts = {address: why_not(address, reason, port, steps, seconds) for address, reason in error.reasons.items()}
    knocks = f"{error.tries} knock{'s' if error.tries > 1 else ''}"
    advice = (
        " Has the knock changed? Then run the playbook sesame.portknock.client_config again."
        if ABOUT_THE_KNOCK & set(verdicts.values())
        else ""
    )
    return f"no connection to port {port} of {host} after {knocks}: {describe(verdicts)}.{advice}"


def why_not(address: str, reason: str, port: int, steps: Sequence[Tuple[int, str]], seconds: float) -> str:
    """Return the verdict about an address, one of MEANINGS; it is looked at once more for that."""
    import _answers
    from _connect import AS_PROBED, HUNG_UP, MUTE
    from _probe import compare, local_address

    if reason in (MUTE, HUNG_UP):
        return _answers.MUTE if reason == MUTE else _answers.HUNG_UP
    before = AS_PROBED.get(reason, "unreachable")
    with ping(address, seconds) as alive:
        answer, closed = compare((address, port, "tcp"), steps, seconds, "", before)
        return _answers.verdict(answer, closed, alive() if answer == "silent" else None, bool(local_address(address)))


@contextlib.contextmanager
def ping(address: str, seconds: float) -> Iterator[Callable[[], Optional[bool]]]:
    """Within the block ping runs, and the function it gives returns whether the host has answered, None if that is not known."""
    import subprocess

    end = time.monotonic() + seconds
    try:
        running = subprocess.Popen(
            ["ping", "-c", "1", address], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    except OSError:
        yield lambda: None
        return

    def answered() -> Optional[bool]:
        try:
            return {0: True, 1: False}.get(running.wait(max(0.01, end - time.monotonic())))
        except subprocess.TimeoutExpired:
            return False

    try:
        yield answered
    finally:
        running.kill()
        running.wait()


def give_up(text: str) -> None:
    """Say why, and end such that ssh says as little as possible: of a socket without a connection it says one line, of none two."""
    print(f"portknock: {text}", file=sys.stderr)
    with contextlib.suppress(OSError), socket.socket() as unconnected:
        hand_over(unconnected)
    sys.exit(1)


def main() -> None:
    """Take NAME, HOST and PORT from the command line."""
    try:
        name, host, port = sys.argv[1:]
        connect(name, host, int(port))
    except (ConnectError, KnockError) as error:
        give_up(str(error))
    except OSError as error:
        # ssh ended meanwhile, a file is not readable, or ProxyUseFdpass is not yes.
        give_up(f"{error.strerror} {error.filename or 'when ssh was to take the connection'}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
