# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Echo what is sent, on every port given, IPv4 and IPv6: something to find open or closed."""

import asyncio
import socket
import sys


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line)
    writer.close()


def listening_socket(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("", port))
    return sock


async def main(ports: list[int]) -> None:
    for port in ports:
        await asyncio.start_server(echo, sock=listening_socket(port))
    await asyncio.Event().wait()


asyncio.run(main([int(word) for word in sys.argv[1:]]))
