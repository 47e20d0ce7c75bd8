# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Single values of options: each is checked and converted, or refused with the option's path. Pure.

A knock is a secret, and a step may stand where it does not belong: no message repeats a value that could be one.
"""

import ipaddress
import re
import unicodedata
from typing import Any, Iterable, List, Optional, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import PROTOCOLS, Network, Step, family_of
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports

MAX_STEPS = 8

_NEAR = 0.75
"""How much of two names must be the same for one to be taken for a mistyped other."""

DAY = 86400

_PORT = re.compile(r"^(0|[1-9][0-9]*)\Z")

_TRUE, _FALSE = ("yes", "true", "on", "1", "y", "t"), ("no", "false", "off", "0", "n", "f")
"""What ansible-core takes for a boolean."""

DOOR_NAME = re.compile(r"^[A-Za-z][A-Za-z0-9_]{0,15}\Z")

_INTERFACE = re.compile(r"^[A-Za-z0-9_.-]{1,15}\Z|^[A-Za-z0-9_.-]{1,14}\+\Z")
_MORE_THAN_A_NAME = re.compile(r"^([A-Za-z0-9_.-]{1,15})[:@][A-Za-z0-9_.-]*\Z")
"""An address's label (``eth0:1``), or an interface with its parent as ``ip link`` shows it (``eth0@if3``)."""

_COMMENT_SIGNS = " ,.:;/_()@+#=-"
_COMMENT_MOST = 80
_COMMENT_BYTES = 220
"""The kernel takes 255 bytes of a comment; the collection's own words stand in front of this."""

_PLAIN_PORT = "PORT, PORT/tcp or PORT/udp"
_TURNED = re.compile(r"^[0-9]+:(tcp|udp)\Z|^(tcp|udp)[:/][0-9]+\Z", re.I)
"""A port with its protocol as knockd and others write it."""

_ADDRESS = re.compile(r"^[0-9]{1,3}(\.[0-9]{1,3}){3}(/[0-9]{1,2})?\Z|^[0-9a-fA-F:]*::[0-9a-fA-F:]*(/[0-9]{1,3})?\Z")


_WORDS = re.compile(r"^(?:[^0-9]|(?<=[A-Za-z])[0-9](?![0-9])){0,80}\Z")
"""Text whose only digits are single ones behind a letter: eth0, ipv6."""


def shown(value: Any) -> str:
    """Return a value as it is written, for a message, with a blank behind; '' where it could hold a step."""
    text = str(value)
    return f"{text!r} " if isinstance(value, str) and (_WORDS.match(text) or _ADDRESS.match(text)) else ""


_KINDS: Tuple[Tuple[Any, str], ...] = (
    (bool, "true or false"), ((int, float), "a number"), (str, "a text"), (dict, "a dictionary"), ((list, tuple), "a list"),
)  # fmt: skip
"""Types of Python, and what a value of them is in YAML; the first that fits counts."""


def kind_of(value: Any) -> str:
    """Return what a value is in YAML, for a message."""
    return next((word for types, word in _KINDS if isinstance(value, types)), "empty")


def check_given(value: Any, path: str) -> None:
    """Refuse what is written with nothing behind it, which YAML reads as null."""
    if value is None:
        raise SpecError(path, "is empty (null). Give it a value, or remove the line.")


def read_strings(value: Any, path: str) -> List[Tuple[Any, str]]:
    """Return the items of a list, or of what people write for one: a number, or a text with commas."""
    if isinstance(value, str):
        value = [item.strip() for item in value.split(",")] if value.strip() else []
    elif isinstance(value, int) and not isinstance(value, bool):
        value = [value]
    return read_items(value, path)


def read_items(value: Any, path: str) -> List[Tuple[Any, str]]:
    """Return the items of a list, each with its own path."""
    if not isinstance(value, (list, tuple)):
        raise SpecError(path, f"is {kind_of(value)}, but must be a list: each entry begins with '- ', and [] has none.")
    return [(item, f"{path}[{index}]") for index, item in enumerate(value)]


def read_text(value: Any, path: str) -> str:
    """Return a text; a number is one as well."""
    if isinstance(value, bool):
        raise SpecError(path, "is true or false, but must be a text. YAML reads yes, no, on and off as that: quote it.")
    if value is None or isinstance(value, (dict, list, tuple)):
        raise SpecError(path, f"is {kind_of(value)}, but must be a text.")
    return str(value)


def read_comment(value: Any, path: str) -> str:
    """Return a comment: letters and digits of any language, blanks and some signs."""
    text = read_text(value, path)
    if len(text) > _COMMENT_MOST or not all(_fits_comment(sign) for sign in text):
        raise SpecError(
            path, f"must be at most {_COMMENT_MOST} letters, digits, blanks and {' '.join(_COMMENT_SIGNS.strip())}"
        )
    if len(text.encode("utf-8")) > _COMMENT_BYTES:
        raise SpecError(path, f"is longer than {_COMMENT_BYTES} bytes in UTF-8, more than a rule can hold. Shorten it.")
    return text


def _fits_comment(sign: str) -> bool:
    return sign in _COMMENT_SIGNS or unicodedata.category(sign)[0] in "LMN"


def read_choice(value: Any, path: str, choices: Sequence[str]) -> str:
    """Return one of some words."""
    if not isinstance(value, str) or value not in choices:
        given = shown(value).rstrip()
        raise SpecError(path, f"{'is ' + given + ', but ' if given else ''}must be one of {', '.join(choices)}.")
    return str(value)


def read_flag(value: Any, path: str) -> bool:
    """Return a boolean, also from the words that YAML 1.1 and the command line have for it."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word not in _TRUE + _FALSE:
        raise SpecError(path, "must be true or false.")
    return word in _TRUE


def read_number(value: Any, path: str, least: int, most: int) -> int:
    """Return a whole number from least to most."""
    text = str(value).strip()
    if isinstance(value, (bool, float)) or not _PORT.match(text) or not least <= int(text) <= most:
        raise SpecError(path, f"must be a whole number from {least} to {most}.")
    return int(text)


def check_keys(item: Any, path: str, known: Sequence[str]) -> None:
    """Refuse what is not a dictionary of known keys."""
    if not isinstance(item, dict):
        raise SpecError(path, f"is {kind_of(item)}, but must be a dictionary with the keys {', '.join(known)}.")
    for key in item:
        if key not in known:
            named = f"{path}.{key}" if isinstance(key, str) and re.match(r"[A-Za-z_]{1,40}\Z", key) else path
            what = "there is no such key" if named != path else "has a key that there is not"
            raise SpecError(named, f"{what}.{did_you_mean(key, known)} The keys are {', '.join(known)}.")
        check_given(item[key], f"{path}.{key}")


def nearest(word: str, known: Iterable[str], near: float = _NEAR) -> str:
    """Return the nearest of some names, '' where none is so near that it may be meant.

    :param near: how much of both must be the same, 0 to 1.
    """
    import difflib  # As late as this: a run on a host that refuses nothing has no need of it.

    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=near)), "")


def did_you_mean(word: Any, known: Iterable[str]) -> str:
    """Return a question with the nearest of some names, a blank before it; '' where none is near."""
    near = nearest(str(word), known)
    return f" Did you mean {near}?" if near else ""


def _port(text: str, path: str, secret: bool = False) -> int:
    """Return a port's number; a text with a leading zero is refused, YAML may have read it as octal elsewhere."""
    if not _PORT.match(text) or not 1 <= int(text) <= 65535:
        what = ("" if secret else shown(text)) or "this "
        advice = "A port is a whole number from 1 to 65535, with no leading zero."
        if _PORT.match(text) and int(text) > 65535:
            advice += " Without quotes YAML reads 22:22 and 0777 as other numbers."
        elif len(text.split()) > 1:
            advice += " Several are a list, or have commas between them."
        raise SpecError(path, f"{what}is not a valid port. {advice}")
    return int(text)


def split_protocol(value: Any, path: str) -> Tuple[str, str]:
    """Return the port's text and the protocol of ``PORT/PROTOCOL``; blanks around it come from a text with commas."""
    text = str(value).strip(" ")
    if value is None or isinstance(value, (bool, float, dict, list, tuple)):
        raise SpecError(path, f"is {kind_of(value)}, but must be {_PLAIN_PORT}.")
    if _TURNED.match(text):
        raise SpecError(path, f"the protocol stands behind the port and a slash. Write {_PLAIN_PORT}.")
    port, slash, protocol = text.partition("/")
    if slash and protocol not in PROTOCOLS:
        raise SpecError(path, f"the protocol is unknown. Write {_PLAIN_PORT}.")
    return port, protocol or "tcp"


def _step(value: Any, path: str) -> Step:
    port, protocol = split_protocol(value, path)
    return Step(_port(port, path, secret=True), protocol)


def read_ports(value: Any, path: str, protocol: Optional[str] = None) -> Ports:
    """Return the Ports of ``PORT`` or ``FIRST-LAST``, each perhaps with ``/PROTOCOL``.

    :param protocol: the protocol where the value names none.
    """
    text, found = split_protocol(value, path)
    if re.match(r"^[0-9]+:[0-9]+\Z", text):
        raise SpecError(path, "a range has a dash in it. Write FIRST-LAST.")
    first, dash, last = text.partition("-")
    ports = Ports(_port(first, path), _port(last if dash else first, path), protocol or found)
    if ports.first > ports.last:
        raise SpecError(path, "the range ends before it begins. Write FIRST-LAST.")
    return ports


def read_network(value: Any, path: str, versions: Sequence[str]) -> Network:
    """Return an address or a network of one of the families."""
    try:
        network = ipaddress.ip_network(str(value), strict=False)
    except ValueError:
        raise SpecError(
            path,
            f"{shown(value)}is neither an address nor a network. Write an address or a CIDR such as 192.0.2.0/24.",
        ) from None
    if "/" in str(value) and ipaddress.ip_address(str(value).split("/", 1)[0]) != network.network_address:
        raise SpecError(path, f"{str(value)!r} has host bits set. Did you mean {network}?")
    if family_of(network) not in versions:
        raise SpecError(
            path,
            f"{network} is an IPv{network.version} network, but ip_versions does not name {family_of(network)}. Add it there or "
            "remove the network.",
        )
    return network


def read_trusted_network(value: Any, path: str, versions: Sequence[str]) -> Network:
    """Return a network that never needs a knock; the whole internet is refused."""
    network = read_network(value, path, versions)
    if network.prefixlen == 0:
        raise SpecError(path, f"{network} includes everyone, so no door would need a knock. Name your own addresses.")
    return network


def read_networks(value: Any, path: str, versions: Sequence[str]) -> Tuple[Network, ...]:
    """Return a list of networks."""
    return tuple(read_network(item, where, versions) for item, where in read_strings(value, path))


def read_interface(value: Any, path: str) -> str:
    """Return the name of an interface, or a prefix of names that ends in ``+``."""
    _check_is_a_name(read_text(value, path), path)
    if not _INTERFACE.match(str(value)):
        raise SpecError(
            path,
            f"{shown(value)}is not an interface name. Write one such as wg0, or wg+ for a prefix.",
        )
    return str(value)


def read_single_interface(value: Any, path: str) -> str:
    """Return the name of one interface."""
    _check_is_a_name(read_text(value, path), path)
    if not _INTERFACE.match(str(value)) or "+" in str(value):
        raise SpecError(path, f"{shown(value)}is not an interface name. Write one such as eth0.")
    return str(value)


def _check_is_a_name(text: str, path: str) -> None:
    """Refuse what people take for an interface's name and no packet comes in by."""
    found = _MORE_THAN_A_NAME.match(text)
    if found:
        what = "the label of an address" if ":" in text else "an interface with its parent, as ip link shows it"
        raise SpecError(
            path,
            f"{text!r} is {what}, and no packet comes in by that name. Write the interface's own: {found.group(1)}.",
        )


def read_steps(value: Any, path: str, least: int) -> Tuple[Step, ...]:
    """Return the steps of a knock, at least so many."""
    steps = tuple(_step(item, where) for item, where in read_strings(value, path))
    if not least <= len(steps) <= MAX_STEPS:
        raise SpecError(path, f"has {len(steps)} steps. Give it 1 to {MAX_STEPS}.")
    return steps


__all__ = (
    "DAY",
    "DOOR_NAME",
    "MAX_STEPS",
    "check_given",
    "check_keys",
    "did_you_mean",
    "kind_of",
    "nearest",
    "read_choice",
    "read_comment",
    "read_flag",
    "read_interface",
    "read_items",
    "read_network",
    "read_networks",
    "read_number",
    "read_ports",
    "read_single_interface",
    "read_steps",
    "read_strings",
    "read_text",
    "read_trusted_network",
    "shown",
    "split_protocol",
)
