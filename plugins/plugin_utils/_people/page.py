# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The page that goes with the bundle for one person: how to use it, and the knocks by hand. Pure, but for the QR code's library.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

import html
import importlib
from collections.abc import Iterator, Sequence

from ansible_collections.sesame.portknock.plugins.plugin_utils._people.clients import Client

CODE_BYTES = 600
"""Bytes in one QR code: a phone's camera reads more of them badly from a screen."""

_SECRET = "Keep this to yourself: the knocks in it open these hosts to whoever has them."
_TEXT = """\
How {person} gets in
{line}
{secret}

The knocks
----------
{knocks}

By hand: send one packet to each port, in this order, 0.1 seconds apart, and then connect. Over TCP a packet is a try to
connect, over UDP any datagram. A packet to another closed port in between makes the knock void.

Linux and macOS
---------------
1. Copy this folder to ~/.ssh/{folder}:
     mkdir -p ~/.ssh/{folder} && cp -R . ~/.ssh/{folder} && chmod -R go= ~/.ssh/{folder}
2. Make this the first line of ~/.ssh/config:
     Include {folder}/config
3. {use}

Windows 10 and later
--------------------
1. Copy this folder to %USERPROFILE%\\.ssh\\{folder}
2. Make this the first line of %USERPROFILE%\\.ssh\\config:
     Include {folder}/windows.config
3. {use_on_windows}
{not_on_windows}
If you have another one
-----------------------
An earlier one for {person} is replaced by this one. One with another name has a folder and an Include line of its own: keep
both. Where both have the same host, the line that comes first counts. If two people gave you one for {person} each, ask one of
them for another name, because they would have the same folder.
"""
_NOT_ON_WINDOWS = (
    "Not there: {names}. A jump host must knock for them, and the program for Windows cannot have it do that. "
    "In WSL they work as on Linux.\n"
)
_STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:46em;margin:2em auto;padding:0 1em;color:#222;background:#fff}"
    "table{border-collapse:collapse}td,th{border:1px solid #bbb;padding:.3em .6em;text-align:left}"
    "code,pre{font-family:monospace}pre{background:#f3f3f3;padding:.6em;white-space:pre-wrap}svg{margin:1em 1em 0 0}"
)


def folder_of(person: str) -> str:
    """Return the name of the directory for a person or machine, here and there: others that they have must stay."""
    return f"portknock-{person}"


def plain_list(clients: Sequence[Client]) -> list[str]:
    """Return a line for each host: ``host, port/protocol …``."""
    return [f"{_label(client)}, {' '.join(client.words)}" for client in clients]


def _label(client: Client) -> str:
    where = client.at or client.address
    return f"{client.name} ({where})" if where else client.name


def _use(clients: Sequence[Client]) -> str:
    if not clients:
        return "There is no host yet."
    name = clients[0].name
    return f"ssh {name}    (with another name to log in: ssh LOGIN@{name})"


def _then(client: Client) -> str:
    user = f"{client.user}@" if client.user else ""
    by = "by ssh through its jump host, which must send the knock" if client.jump else "by ssh"
    return f"within {client.window:g} seconds {by}: {user}{client.address or client.name}, port {client.port}"


def text_page(person: str, clients: Sequence[Client]) -> str:
    """Return the page as plain text."""
    knocks = [
        f"{line}\n    then {_then(client)}" for line, client in zip(plain_list(clients), clients, strict=True)
    ]  # fmt: skip
    title = f"How {person} gets in"
    behind = ", ".join(client.name for client in clients if client.jump)
    return _TEXT.format(
        person=person,
        folder=folder_of(person),
        line="=" * len(title),
        secret=_SECRET,
        knocks="\n".join(knocks) or "none",
        use=_use(clients),
        use_on_windows=_use([client for client in clients if not client.jump]),
        not_on_windows=_NOT_ON_WINDOWS.format(names=behind) if behind else "",
    )


def html_page(person: str, clients: Sequence[Client], codes: Sequence[str]) -> str:
    """Return the page as HTML that needs nothing from elsewhere.

    :param codes: QR codes as SVG.
    """
    title = html.escape(f"How {person} gets in")
    rows = "".join(
        f"<tr><td>{html.escape(_label(client))}</td><td><code>{html.escape(' '.join(client.words))}</code></td>"
        f"<td>{html.escape(_then(client))}</td></tr>\n"
        for client in clients
    )
    text = text_page(person, clients)
    how = html.escape(text[text.index("By hand:") :].rstrip())
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n<title>{title}</title>\n'
        f'<meta name="viewport" content="width=device-width">\n<style>{_STYLE}</style></head>\n<body>\n'
        f"<h1>{title}</h1>\n<p>{html.escape(_SECRET)}</p>\n"
        f"<table>\n<tr><th>host</th><th>knock</th><th>then</th></tr>\n{rows}</table>\n"
        f"{''.join(codes)}\n<pre>{how}</pre>\n</body></html>\n"
    )


def qr_codes(lines: Sequence[str]) -> list[str] | None:
    """Return the lines as QR codes, each an SVG element; None where the library segno is not installed."""
    try:
        segno = importlib.import_module("segno")
    except ImportError:
        return None
    return [segno.make(text, micro=False).svg_inline(scale=4, light="#fff") for text in _parts(lines)]


def _parts(lines: Sequence[str]) -> Iterator[str]:
    """Yield the lines, as many together as a code holds."""
    part: list[str] = []
    for line in lines:
        if part and len("\n".join([*part, line]).encode()) > CODE_BYTES:
            yield "\n".join(part)
            part = []
        part.append(line)
    if part:
        yield "\n".join(part)


__all__ = ("folder_of", "html_page", "plain_list", "qr_codes", "text_page")
