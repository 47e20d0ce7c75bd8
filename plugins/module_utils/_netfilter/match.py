# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What one rule asks of a packet: the part of a rule's text that a decision about its position needs. Pure.

The packets in question are the first of a connection, unicast, to this host, from anywhere but a trusted
source or interface. A match that is not known counts as "perhaps".
"""

import ipaddress
from typing import Callable, Dict, Iterable, List, Optional, Sequence

from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.condition import (
    BROAD_PREFIX,
    NOWHERE,
    AnyAddress,
    AnyNetwork,
    Arrival,
    Condition,
    Reading,
    is_interface,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.rule_text import options

_PLAIN_MATCHES = frozenset(
    "tcp udp multiport conntrack state comment addrtype pkttype recent set iprange mac geoip hashlimit connlimit tcpmss "
    "rpfilter mark".split()
)

_PROTOCOL_NUMBERS = {"6": "tcp", "17": "udp", "0": "all"}

_SILENT = frozenset(
    "--loose --validmark --accept-local --comment --rsource --rdest --mask --seconds --hitcount --rttl --reap --set".split()
)

_TARGET_OPTIONS = frozenset(
    "--reject-with --log-prefix --log-level --log-ip-options --log-tcp-options --log-tcp-sequence --log-uid "
    "--nflog-group --nflog-prefix --nflog-threshold --to-destination --to-source --to-ports --to --random --persistent "
    "--set-mark --set-xmark --queue-num --queue-bypass --queue-balance --add-set --del-set --exist --timeout "
    "--on-port --on-ip --tproxy-mark --notrack".split()
)

_HASHLIMIT = frozenset(
    "--hashlimit-name --hashlimit-burst --hashlimit-htable-expire --hashlimit-htable-size "
    "--hashlimit-htable-max --hashlimit-htable-gcinterval --connlimit-saddr".split()
)

_CHANGES_NOTHING = _SILENT | _HASHLIMIT | _TARGET_OPTIONS


def read_condition(
    text: str,
    trusted_interfaces: Iterable[str],
    trusted_sources: Sequence[AnyNetwork],
    source: Optional[AnyAddress] = None,
    first: bool = True,
    arrival: Arrival = NOWHERE,
) -> Condition:
    """Return the Condition of a rule's text.

    :param trusted_interfaces: names whose packets are accepted before any of this; ``lo`` is always one.
    :param trusted_sources: ``ipaddress`` networks whose packets are, too.
    :param first: whether only first packets of connections are in question, so that their TCP flags are known.
    :param source: an ``ipaddress`` address if the packets in question come from this one alone.
    """
    state = Reading(frozenset(trusted_interfaces) | {"lo"}, trusted_sources, source, first, arrival)
    for option, values, negated in options(text):
        value = values[0] if values else ""
        handler = _HANDLERS.get(option)
        if handler:
            handler(state, value, values, negated)
        elif option not in _CHANGES_NOTHING:
            state.perhaps()
    return state.result()


def _protocol(state: Reading, value: str, _values: List[str], negated: bool) -> None:
    name = _PROTOCOL_NUMBERS.get(value, value).lower()
    if name == "all":
        return
    both = frozenset(("tcp", "udp", "other"))
    one = frozenset((name if name in ("tcp", "udp") else "other",))
    if "other" in one:
        state.some()
    state.protocols = (both - one if "other" not in one else both) if negated else one


def _source(state: Reading, value: str, _values: List[str], negated: bool) -> None:
    read = [_network(item) for item in value.split(",")]
    networks = [network for network in read if network is not None]
    complete = len(networks) == len(read)
    if state.source is not None and complete:
        state.fits(any(state.source in network for network in networks) != negated)
    elif negated:
        state.some()
    elif not complete:
        # A name is one host; a mask with holes in it may be anyone.
        state.only("/" not in value)
    elif all(_inside(network, state.sources) for network in networks):
        state.never = True
    elif not all(network.prefixlen == 0 for network in networks):
        state.only(all(_is_particular(network) for network in networks))


def _is_particular(network: AnyNetwork) -> bool:
    """Return whether a source is some, and not so many that a few such rules are a catch-all in disguise."""
    return network.prefixlen >= BROAD_PREFIX[network.version] or _inside(network, _NO_SOURCES)


def _network(text: str) -> Optional[AnyNetwork]:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _inside(network: AnyNetwork, trusted: Iterable[AnyNetwork]) -> bool:
    return any(
        other.version == network.version
        and other.prefixlen <= network.prefixlen
        and int(other.network_address) <= int(network.network_address) <= int(other.broadcast_address)
        for other in trusted
    )


_NOT_UNICAST = [
    ipaddress.ip_network(text) for text in ("127.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32", "::1/128", "ff00::/8")
]


_NO_SOURCES = [ipaddress.ip_network(text) for text in ("224.0.0.0/3", "ff00::/8")]
"""Multicast and reserved addresses, which rules against spoofing name however broad they are."""


def _destination(state: Reading, value: str, _values: List[str], negated: bool) -> None:
    network = _network(value)
    if network is None:
        state.perhaps()
    elif network.prefixlen == 0:
        state.fits(not negated)
    elif _inside(network, _NOT_UNICAST):
        state.fits(negated)
    else:
        _own_destination(state, network, negated)


def _own_destination(state: Reading, network: AnyNetwork, negated: bool) -> None:
    """Compare a destination with the host's own addresses, if they are known: packets to others are not in question."""
    own = [each for each in state.arrival.own if each.version == network.version]
    inside = [_inside(each, [network]) for each in own]
    if not own:
        state.perhaps()
    elif all(inside):
        state.fits(not negated)
    elif any(inside) or any(_inside(network, [each]) for each in own):
        state.some()
    else:
        state.fits(negated)


def _interface(state: Reading, value: str, _values: List[str], negated: bool) -> None:
    if value in state.interfaces:
        state.fits(negated)
    elif value != "+":
        state.some()
        state.interface = "" if negated else value
        outside = state.arrival.outside
        named = [name for name in outside if is_interface(value, name)]
        state.elsewhere = state.elsewhere or (bool(outside) and set(named) == set(outside) if negated else not named)


def _ports(state: Reading, value: str, _values: List[str], negated: bool) -> None:
    ranges = []
    for item in value.split(","):
        first, _colon, last = item.partition(":")
        low, high = _port(first or "0"), _port((last or "65535") if _colon else first)
        if low is None or high is None:
            state.perhaps()
            return
        ranges.append((low, high))
    if state.ports is not None:
        state.perhaps()
        return
    state.ports, state.but_ports = tuple(sorted(ranges)), negated
    if negated:
        state.some()


SERVICES = {"ssh": 22, "http": 80, "https": 443, "domain": 53, "smtp": 25, "telnet": 23, "ftp": 21, "imaps": 993}


def _port(text: str) -> Optional[int]:
    return int(text) if text.isdigit() else SERVICES.get(text)


def _either_port(state: Reading, value: str, values: List[str], negated: bool) -> None:
    _ports(state, value, values, negated)
    state.ports = None
    state.perhaps()


def _syn(state: Reading, _value: str, _values: List[str], negated: bool) -> None:
    _tcp_flags(state, "", ["FIN,SYN,RST,ACK", "SYN"], negated)


_KNOWN_FLAGS = frozenset(("SYN", "ACK", "FIN", "RST"))

_FLAGS = _KNOWN_FLAGS | {"PSH", "URG"}


def _tcp_flags(state: Reading, _value: str, values: List[str], negated: bool) -> None:
    """A first packet has SYN and none of ACK, FIN and RST; of PSH and URG nothing is known, it opens with them too."""
    _only_tcp(state)
    if len(values) != 2 or not state.first:
        state.perhaps()
        return
    mask, wanted = (_FLAGS if "ALL" in item.split(",") else set(item.split(",")) - {"NONE"} for item in values)
    fits = wanted & _KNOWN_FLAGS == {"SYN"} & mask
    if not fits:
        state.fits(negated)
    elif mask - _KNOWN_FLAGS:
        state.perhaps()
    else:
        state.fits(not negated)


def _only_tcp(state: Reading) -> None:
    if state.protocols is None:
        state.protocols = frozenset(("tcp",))


def _states(state: Reading, value: str, _values: List[str], negated: bool) -> None:
    named = frozenset(value.upper().split(","))
    every = frozenset(("NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED"))
    taken = every - named if negated else named
    state.states = taken if state.states is None else state.states & taken


def _match(state: Reading, value: str, _values: List[str], _negated: bool) -> None:
    if value not in _PLAIN_MATCHES:
        state.perhaps()


def _recent(state: Reading, _value: str, _values: List[str], negated: bool) -> None:
    state.only(not negated)
    state.asks_list = not negated


def _list_name(state: Reading, value: str, _values: List[str], _negated: bool) -> None:
    state.list_name = value


def _match_set(state: Reading, _value: str, values: List[str], negated: bool) -> None:
    state.only(not negated and len(values) > 1 and "src" in values[1].split(","))


def _source_range(state: Reading, value: str, _values: List[str], negated: bool) -> None:
    first, _dash, last = value.partition("-")
    try:
        low, high = ipaddress.ip_address(first), ipaddress.ip_address(last or first)
    except ValueError:
        state.only(False)
        return
    bits = low.max_prefixlen - BROAD_PREFIX[low.version]
    state.only(not negated and int(high) - int(low) < 2**bits)


def _some_sources(state: Reading, _value: str, _values: List[str], negated: bool) -> None:
    state.only(not negated)


def _hashlimit_mode(state: Reading, value: str, _values: List[str], _negated: bool) -> None:
    state.per_source = "srcip" in value.split(",")
    state.perhaps()


def _hashlimit_above(state: Reading, _value: str, _values: List[str], negated: bool) -> None:
    state.above = not negated
    state.perhaps()


def _counted_mask(state: Reading, value: str, _values: List[str], _negated: bool) -> None:
    """Take note of a limit that counts many sources as one, such as a mask of 0."""
    state.counts_many = not value.isdigit() or int(value) < min(BROAD_PREFIX.values())
    state.perhaps()


def _connlimit(state: Reading, _value: str, _values: List[str], negated: bool) -> None:
    state.per_source, state.above = True, not negated
    state.perhaps()


def _counts_many(state: Reading, _value: str, _values: List[str], _negated: bool) -> None:
    state.counts_many = True
    state.perhaps()


def _destination_type(state: Reading, value: str, _values: List[str], negated: bool) -> None:
    state.fits(("LOCAL" in value.split(",") or "UNICAST" in value.split(",")) != negated)


def _source_type(state: Reading, value: str, _values: List[str], negated: bool) -> None:
    kinds = set(value.split(","))
    if "UNICAST" in kinds or kinds <= {"LOCAL", "BROADCAST", "ANYCAST", "MULTICAST", "UNSPEC"}:
        state.fits(("UNICAST" in kinds) != negated)
    else:
        state.perhaps()


def _fragment(state: Reading, _value: str, _values: List[str], negated: bool) -> None:
    """Connection tracking, which our rules need, puts fragments together before any table sees them."""
    state.fits(negated)


_USUAL_MSS = (536, 8960)


def _segment_size(state: Reading, value: str, _values: List[str], negated: bool) -> None:
    low, _colon, high = value.partition(":")
    if low.isdigit() and (high or low).isdigit() and int(low) <= _USUAL_MSS[0] and int(high or low) >= _USUAL_MSS[1]:
        _only_tcp(state)
        if negated:
            # What no ordinary client sends, and an attacker can.
            state.only(True)
    else:
        state.perhaps()


def _reverse_path(state: Reading, _value: str, _values: List[str], negated: bool) -> None:
    """``--invert`` asks for packets that come in where no route leads back: no way to come for whom it answers."""
    state.fits(negated)


def _mark(state: Reading, value: str, _values: List[str], negated: bool) -> None:
    mark, _slash, mask = value.partition("/")
    try:
        zero = int(mark, 0) & int(mask or "0xffffffff", 0) == 0
    except ValueError:
        zero = False
    if state.arrival.unmarked:
        state.fits(zero != negated)
    else:
        state.perhaps()


def _packet_type(state: Reading, value: str, _values: List[str], negated: bool) -> None:
    state.fits((value in ("unicast", "host")) != negated)


def _jump(state: Reading, value: str, _values: List[str], _negated: bool) -> None:
    state.target = value


def _goto(state: Reading, value: str, _values: List[str], _negated: bool) -> None:
    state.target, state.goto = value, True


_HANDLERS: Dict[str, Callable[[Reading, str, List[str], bool], None]] = {
    "-p": _protocol,
    "-s": _source,
    "-d": _destination,
    "-i": _interface,
    "-m": _match,
    "-j": _jump,
    "-g": _goto,
    "--dport": _ports,
    "--dports": _ports,
    "--ports": _either_port,
    "--port": _either_port,
    "--syn": _syn,
    "--tcp-flags": _tcp_flags,
    "--state": _states,
    "--ctstate": _states,
    "--rcheck": _recent,
    "--update": _recent,
    "--remove": _recent,
    "--name": _list_name,
    "--match-set": _match_set,
    "--src-range": _source_range,
    "--mac-source": _some_sources,
    "--src-cc": _some_sources,
    "--connlimit-above": _connlimit,
    "--connlimit-mask": _counted_mask,
    "--connlimit-daddr": _counts_many,
    "--hashlimit-mode": _hashlimit_mode,
    "--hashlimit-above": _hashlimit_above,
    "--hashlimit-srcmask": _counted_mask,
    "--dst-type": _destination_type,
    "--src-type": _source_type,
    "--mss": _segment_size,
    "--invert": _reverse_path,
    "--mark": _mark,
    "-f": _fragment,
    "--pkt-type": _packet_type,
}


__all__ = ("SERVICES", "read_condition")
