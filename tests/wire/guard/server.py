# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a container serves: TCP on the ports 80 to 82, and UDP on 53, which sends back what it gets; both IP versions."""

import socket
import threading


def accept(port: int) -> None:
    """Take connections for ever."""
    with socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        while True:
            listener.accept()[0].close()


def echo() -> None:
    """Send datagrams back for ever."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as handle:
        handle.bind(("::", 53))
        while True:
            handle.sendto(*handle.recvfrom(2048))


for number in (80, 81, 82):
    threading.Thread(target=accept, args=(number,)).start()
echo()
