# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the kernel says of nftables without the command nft: base chains, and rules that iptables-save prints otherwise. Pure.

iptables-save of the backend nft prints a rule that another program wrote as something else, and says nothing: a set becomes no condition,
a range its last address, a field that it does not know is left out. So each rule is looked at as the kernel holds it, and compared
with what was printed of it. Which forms of rules it knows differs from release to release.

See linux/netfilter/nf_tables.h, and nft.c and nft-shared.c of iptables.
"""

import functools
import re
import struct
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.netlink import (
    FAMILIES,
    attributes,
    each_attribute,
)


class KernelRule(NamedTuple):
    """A rule as the kernel holds it."""

    table: str
    """The table that it is in."""
    chain: str
    """The chain that it is in."""
    handle: int
    """Its number, which nft -a shows."""
    options: Optional[Tuple[str, ...]]
    """What must be in what iptables-save prints of it, alternatives with ``|`` between; None where no release prints it as it is."""
    counts: bool = False
    """Whether it counts packets, as each rule does that iptables has written."""

    @property
    def is_newer(self) -> bool:
        """Whether a newer release of iptables may have written it, and an older one leaves out of what it prints some of what it asks."""
        return self.counts and bool(self.options) and _WRITTEN_SINCE.issuperset(self.options or ())


def read_rule(body: bytes) -> KernelRule:
    """Return a rule from the body of the message that holds it."""
    parts = attributes(body[4:])
    handle = _number(parts.get(3, b""))
    expressions = parts.get(4, b"")
    counts = any(element.startswith(_COUNTER, 4) for _kind, element in each_attribute(expressions))
    table, chain = _text(parts.get(1, b"")), _text(parts.get(2, b""))
    return KernelRule(table, chain, handle, _options(expressions, body[0]), counts)


def read_chain(body: bytes) -> Dict[str, Any]:
    """Return a chain as ``nft -j`` lists it, from the body of the message that holds it."""
    parts = attributes(body[4:])
    family = next((name for name, number in FAMILIES.items() if number == body[0]), "")
    chain = dict(family=family, table=_text(parts.get(1, b"")), name=_text(parts.get(3, b"")))
    if 4 in parts:
        number = _number(attributes(parts[4]).get(1, b""))
        chain["hook"] = "ingress" if family == "netdev" else _HOOKS.get(number, "")
        chain["policy"] = "drop" if 5 in parts and not _number(parts[5]) else "accept"
    return {"chain": chain}


def table_name(body: bytes) -> str:
    """Return the name of the table that a message holds."""
    return _text(attributes(body[4:]).get(1, b""))


def is_dormant(body: bytes, table: str) -> bool:
    """Return whether a message holds a table of some name, and says that none of its chains is in force."""
    return table_name(body) == table and bool(_number(attributes(body[4:]).get(2, b"")) & 1)


def is_owned(body: bytes, table: str) -> bool:
    """Return whether a message holds a table of some name that one process alone may change, as long as it runs."""
    parts = attributes(body[4:])
    return _text(parts.get(1, b"")) == table and bool(_number(parts.get(2, b"")) & 2)


_HOOKS = {0: "prerouting", 1: "input", 2: "forward", 3: "output", 4: "postrouting", 5: "ingress"}


def first_misprinted(
    rules: Sequence[KernelRule], table: str, save: str, but_newer: bool = False
) -> Optional[KernelRule]:
    """Return the first rule of a table that iptables-save does not print as it is, or None.

    :param rules: of one family.
    :param save: what iptables-save printed of that family.
    :param but_newer: whether those do not count that a newer release of iptables may have written.
    """
    chains: Dict[str, List[KernelRule]] = {}
    for rule in rules:
        if rule.table == table:
            chains.setdefault(rule.chain, []).append(rule)
    doubtful = {name for name, found in chains.items() if any(rule.options != () for rule in found)}
    printed = _printed(save, table) if doubtful else {}
    for name in chains:
        texts: Sequence[Optional[str]] = printed.get(name, ())
        if len(texts) != len(chains[name]):
            # Others have changed the chain between the two looks: only what no release prints is known then.
            texts = [None] * len(chains[name])
        for rule, text in zip(chains[name], texts) if name in doubtful else ():
            if not _is_printed(rule, text) and not (but_newer and rule.is_newer):
                return rule
    return None


def first_unknown(rules: Sequence[KernelRule], table: str) -> Optional[KernelRule]:
    """Return the first rule of a table that has what no release up to 1.8.11 knows, or None.

    :param rules: of one family.
    """
    return next((rule for rule in rules if rule.table == table and _is_unknown(rule)), None)


def _is_unknown(rule: KernelRule) -> bool:
    return rule.options is None or bool({*_NOT_YET.values(), _STATE} & set(rule.options))


def _printed(save: str, table: str) -> Dict[str, List[str]]:
    """Return chain to its rules as a save prints them."""
    block = f"\n{save}".partition(f"\n*{table}\n")[2].partition("\nCOMMIT")[0]
    found: Dict[str, List[str]] = {}
    for chain, text in re.findall(r"^(?:\[\d+:\d+\] )?-A (\S+) ?(.*)$", block, re.M):
        found.setdefault(chain, []).append(text)
    return found


def _is_printed(rule: KernelRule, text: Optional[str]) -> bool:
    if rule.options is None or text is None:
        return rule.options is not None
    return all(any(one in text for one in option.split("|")) for option in rule.options)


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode("utf-8", "replace")


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")


# The forms of rules that iptables knows: they load a field of the packet, mask it, and compare it; or they call an extension.


class _Field(NamedTuple):
    """What a rule has put into a register."""

    option: str = ""
    """What iptables-save prints of it; '' where every release prints it."""
    is_masked: bool = False
    """Whether iptables looks at parts of it, or must."""
    is_ordered: bool = False
    """Whether it compares it with more than one value."""


_ADDRESS, _ONE_OF_FEW = _Field(is_masked=True), _Field()
_SPORT, _DPORT = _Field("--sport|--icmp", is_ordered=True), _Field("--dport", is_ordered=True)
_MARK, _FLAGS, _FRAGMENT, _WHOLE_FRAGMENT = (
    _Field("--mark", True),
    _Field("--tcp-flags", True),
    _Field("-f", True),
    _Field("-f"),
)
_VALUE, _NEW_MARK = _Field("a value"), _Field("a new mark")
_META = {
    3: _MARK, 4: _ONE_OF_FEW, 5: _ONE_OF_FEW, 6: _ONE_OF_FEW, 7: _ONE_OF_FEW, 10: _Field("--uid-owner"), 11: _Field("--gid-owner"),
    16: _ONE_OF_FEW, 19: _Field("--pkt-type"), 20: _Field("--cpu"),
}  # fmt: skip
_STATE = "state "
_CT = {0: _Field(_STATE, True)}
_META_MARK, _META_TRACE = 3, 12
_TRANSPORT = {
    (2, 0, 2): _SPORT,
    (2, 2, 2): _DPORT,
    # Both ports at once, as iptables from 1.8.8 on writes them as well.
    (2, 0, 4): _Field("--dport"),
    (2, 13, 1): _FLAGS,
    (2, 0, 1): _Field("--icmp"),
}
_NETWORK = {
    2: {(1, 9, 1): _ONE_OF_FEW, (1, 8, 1): _Field("--ttl"), (1, 6, 2): _FRAGMENT},
    10: {(1, 6, 1): _ONE_OF_FEW, (1, 7, 1): _Field("--hl")},
}
"""Family to base (1 is the network header, 2 the transport header), offset and length of the fields that iptables knows."""
_ADDRESSES = {2: {12: 4, 16: 4}, 10: {8: 16, 24: 16}}
"""Family to offset and most bytes of addresses; of a prefix the first bytes alone are loaded."""
_COUNTER = b"counter\0"
_EXTENSIONS = (b"match\0", b"target\0", _COUNTER)
_WRITTEN_SINCE = frozenset((_SPORT.option, _DPORT.option, _FLAGS.option, _MARK.option))
"""What iptables from 1.8.8 on writes in forms of its own, where releases before it call an extension, and print no other form."""
_NOT_YET = {
    b"connlimit\0": "--connlimit", b"masq\0": "-j MASQUERADE", b"nat\0": "NAT ", b"notrack\0": "--notrack", b"queue\0": "-j NFQUEUE",
    b"quota\0": "--quota", b"redir\0": "-j REDIRECT", b"reject\0": "-j REJECT", b"tproxy\0": "-j TPROXY",
}  # fmt: skip
"""What no release up to 1.8.11 reads: it prints no table that holds it. To what a later one will print."""
_OFFSET_OF_FRAGMENT = b"\x1f\xff"


class _Unknown(Exception):
    """A form that iptables does not know."""


class _Rule:
    """Reads the expressions of a rule, one after the other."""

    def __init__(self, family: int) -> None:
        self._family = family
        self._fields: Dict[int, _Field] = {}
        self.options: Set[str] = set()

    def meta(self, parts: Dict[int, bytes]) -> None:
        key = _number(parts.get(2, b""))
        if 3 not in parts:
            self._load(parts[1], _META.get(key))
        elif key == _META_TRACE and self._field(parts[3]) == _VALUE:
            self.options.add("-j TRACE")
        elif key == _META_MARK and self._field(parts[3]) in (_VALUE, _MARK, _NEW_MARK):
            self.options.add("MARK ")
        else:
            raise _Unknown

    def ct(self, parts: Dict[int, bytes]) -> None:
        self._load(parts[1], _CT.get(_number(parts[2])))

    def payload(self, parts: Dict[int, bytes]) -> None:
        place = _number(parts[2]), _number(parts[3]), _number(parts[4])
        field = _TRANSPORT.get(place) or _NETWORK[self._family].get(place)
        if field is None and place[0] == 1 and place[2] <= _ADDRESSES[self._family].get(place[1], 0):
            field = _ADDRESS
        # Without a register to load it writes the field.
        self._load(parts[1], field)

    def bitwise(self, parts: Dict[int, bytes]) -> None:
        field = self._field(parts[1])
        mask, flipped = (attributes(parts.get(kind, b"")).get(1, b"") for kind in (4, 5))
        if any(flipped) and field == _MARK:
            field = _NEW_MARK
        elif field == _FRAGMENT and mask == _OFFSET_OF_FRAGMENT:
            field = _WHOLE_FRAGMENT
        elif not field.is_masked or field == _FRAGMENT or any(flipped) or _number(parts.get(6, b"")):
            raise _Unknown
        self._load(parts[2], field)

    def cmp(self, parts: Dict[int, bytes]) -> None:
        self._compare(self._field(parts[1]), _number(parts.get(2, b"")) <= 1)

    def range(self, parts: Dict[int, bytes]) -> None:
        self._compare(self._field(parts[1]), is_one=False)

    def immediate(self, parts: Dict[int, bytes]) -> None:
        if _number(parts.get(1, b"")):
            self._load(parts[1], _VALUE)

    def limit(self, parts: Dict[int, bytes]) -> None:
        counts_bytes, is_over = (_number(parts.get(kind, b"")) for kind in (4, 5))
        if counts_bytes or is_over:
            raise _Unknown

    def log(self, parts: Dict[int, bytes]) -> None:
        # NFLOG has a group; LOG is an extension.
        if 1 not in parts:
            raise _Unknown

    def _compare(self, field: _Field, is_one: bool) -> None:
        if field in (_VALUE, _NEW_MARK, _FRAGMENT) or not (is_one or field.is_ordered):
            raise _Unknown
        self.options |= {field.option} - {"", "-f"}

    def _load(self, register: bytes, field: Optional[_Field]) -> None:
        if field is None:
            raise _Unknown
        self._fields[_number(register)] = field

    def _field(self, register: bytes) -> _Field:
        return self._fields[_number(register)]


_READ: Dict[bytes, Callable[[_Rule, Dict[int, bytes]], None]] = {
    b"meta\0": _Rule.meta,
    b"payload\0": _Rule.payload,
    b"bitwise\0": _Rule.bitwise,
    b"cmp\0": _Rule.cmp,
    b"ct\0": _Rule.ct,
    b"range\0": _Rule.range,
    b"immediate\0": _Rule.immediate,
    b"limit\0": _Rule.limit,
    b"log\0": _Rule.log,
}


def _options(expressions: bytes, family: int) -> Optional[Tuple[str, ...]]:
    """Return what iptables-save must print of a rule, None where no release prints all of it."""
    rule = _Rule(family)
    try:
        for _kind, element in each_attribute(expressions):
            if not element.startswith(_EXTENSIONS, 4):
                name, parts = _expression(element)
                if name in _NOT_YET:
                    rule.options.add(_NOT_YET[name])
                else:
                    _READ[name](rule, parts)
    except (_Unknown, KeyError, struct.error):
        return None
    return tuple(sorted(rule.options))


@functools.lru_cache(maxsize=4096)
def _expression(element: bytes) -> Tuple[bytes, Dict[int, bytes]]:
    """Return the name of an expression, and its attributes. The same ones come again and again."""
    parts = attributes(element)
    return parts[1], attributes(parts.get(2, b""))


__all__ = (
    "KernelRule",
    "first_misprinted",
    "first_unknown",
    "is_dormant",
    "is_owned",
    "read_chain",
    "read_rule",
    "table_name",
)
