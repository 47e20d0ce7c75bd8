# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection: it may change at any time. Do not import it from elsewhere.

"""The configuration of knockd, the daemon that recognises knocks where the kernel does not: texts of its files. Pure.

All that knockd does is to put a source on the door's own list of xt_recent, where the kernel would have put it. So
nothing is left behind when it dies, the window ends by itself, and the rules that let in are the same.

What is known of knockd 0.8 (its knockd.c), and what follows from it:

- It looks at packets to the ports of its own sections alone, so a wrong port breaks no knock. Ports that are nobody's
  are therefore named in sections that do nothing (traps): a scan steps on them.
- It listens on one interface, and only to the addresses that this had when knockd began (see ADDRESSES_SCRIPT).
- ``seq_timeout`` counts from the first step, in whole seconds of the clock, so that its last second may be cut short.
- ``start_command_6`` that is missing falls back to the command for IPv4: both are always written.
- It has one list of attempts for all sources, and forgets all of them when the first one ends, well or not. So knocks that
  come at the same moment disturb each other, and the client knocks again.
- Its own sections ``[options]`` and those of doors share one space of names: ours begin with a word and a blank.
"""

import hashlib
import itertools
import re

from ansible_collections.sesame.portknock.plugins.module_utils._engine import Finding
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.lists import Lists
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.match_text import knockers
from ansible_collections.sesame.portknock.plugins.module_utils._paths import (
    KNOCKD_ADDRESSES_UNIT,
    KNOCKD_PREFIX_HELPER,
    RECENT_LISTS,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import FAMILIES, IPV4, IPV6
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ranges
from ansible_collections.sesame.portknock.plugins.module_utils._spec.sequences import sequences_of

TRAPS = 64
"""Ports per protocol in traps, all over the range. Of scans that take all ports in a random order, one in (TRAPS + 1)(TRAPS + 2)
at the most opens a door of three steps by chance, one in TRAPS + 2 a door of two."""
_POPULAR = {
    "tcp": (
        7, 26, 79, 81, 88, 106, 113, 144, 179, 199, 427, 444, 465, 513, 514, 515, 543, 544, 548, 554, 631, 646, 990, 1026, 1027,
        1029, 1110, 1433, 1720, 1900, 2000, 2001, 2121, 5000, 5009, 5101, 5190, 5357, 5631, 5666, 5800, 6000, 6001, 7070, 8008,
        8009, 32768, 49152, 49153, 49154, 49155, 49156,
    ),
    "udp": (),
}  # fmt: skip
"""More traps, for scanners that look at popular ports alone (of nmap's hundred most frequent, nmap-services), in a random order
but for the first 25; those that clients of a real service come to all the time are left out."""
_SEQUENCE = 32
"""Ports that a section can hold (SEQ_MAX)."""
_TRAP_PORTS = {"tcp": (1024, 65535), "udp": (1024, 32767)}
"""Where traps are. Not among the ports that Linux sends datagrams from: an answer is no knock at a wrong port."""

_LAST = 65535
_TURNS = 4096
"""Ends the search for a free port where all of them are taken."""

_HEADER = "# Written by sesame.portknock, id {0}; changes to this file are lost.\n"
_ID = re.compile(r"\A# Written by sesame\.portknock, id ([0-9a-f]{16});")
_STEPS = re.compile(r"^\[open ([A-Za-z0-9_]+)\]\nsequence = (\S+)$", re.M)
_INTERFACE = re.compile(r"^interface = (\S+)$", re.M)


def listens(spec):
    """Return whether a Spec (None: nothing of ours) needs knockd to run: without doors there is nothing to hear."""
    return spec is not None and bool(spec.doors)


def seq_timeout(door, steps):
    """Return the seconds that knockd gives a whole knock: as many pauses as it has, and one for the clock's resolution."""
    return door.step_timeout * (len(steps) - 1) + 1


def config_text(spec, families, interface, directory):
    """Return knockd's configuration.

    :param spec: a Spec with doors.
    :param families: those that are managed; knocks over another one do nothing.
    :param interface: the one to listen on.
    :param directory: where the file and its helper lie.
    """
    lines = ["[options]", "interface = " + interface] + (["UseSyslog"] if spec.log else [])
    for index, key, steps in sequences_of(spec.doors):
        word, sign = _EFFECTS[key]
        lines += _section(spec, families, directory, spec.doors[index], steps, word, sign)
    for number, sequence in enumerate(_trap_sequences(spec), 1):
        # Nothing but to break the attempt of whoever comes here; it is forgotten at once.
        lines += ["", "[trap {0}]".format(number), "sequence = " + sequence, "seq_timeout = 1", _FLAGS]
    body = "\n".join(lines) + "\n"
    return _HEADER.format(_digest(body)) + body


_EFFECTS = {"knock": ("open", "+"), "close": ("close", "-")}
"""How a section is called, and what its command does to a source."""

_FLAGS = "tcpflags = syn,!ack,!rst,!fin"
"""As the kernel's rules: a step is a packet that begins a connection."""


def _section(spec, families, directory, door, steps, word, sign):
    commands = {family: _command(spec, family, directory, door, sign) for family in FAMILIES}
    quiet = ":"
    return [
        "",
        "[{0} {1}]".format(word, door.name),
        "sequence = " + _sequence(steps),
        "seq_timeout = {0}".format(seq_timeout(door, steps)),
        _FLAGS,
        "start_command = " + (commands[IPV4] if _may_knock(door, IPV4, families) else quiet),
        "start_command_6 = " + (commands[IPV6] if _may_knock(door, IPV6, families) else quiet),
    ]


def _may_knock(door, family, families):
    return family in families and bool(knockers(door, family))


def _sequence(steps):
    return ",".join("{0}:{1}".format(step.port, step.protocol) for step in steps)


def _command(spec, family, directory, door, sign):
    """Return what puts a source on a list, for system(3). %IP% is made by knockd from a packet's four or sixteen bytes."""
    address = "%IP%"
    if family == IPV6 and spec.ipv6_prefix != 128:
        # The kernel masks what a rule puts on a list, and not what is written to its file.
        address = "$(sh {0}/{1} {2} %IP%)".format(directory, KNOCKD_PREFIX_HELPER, spec.ipv6_prefix)
    return "echo {0}{1} > {2}/{3}".format(sign, address, RECENT_LISTS, Lists(family, spec.ipv6_prefix).door(door))


def _trap_sequences(spec):
    texts = []
    for protocol in sorted({step.protocol for step in _steps_of(spec)}):
        ports = trap_ports(spec, protocol)
        for start in range(0, len(ports), _SEQUENCE):
            texts.append(",".join("{0}:{1}".format(port, protocol) for port in ports[start : start + _SEQUENCE]))
    return texts


def trap_ports(spec, protocol):
    """Return ports that are nobody's: all over the range, and one at least between every two steps, where there is room.

    They follow from the steps, so that they are as secret and as lasting as these.
    """
    seed = _seed(spec)
    used = _used(spec, protocol)
    chosen = list(itertools.islice(_candidates(seed, used, *_TRAP_PORTS[protocol]), TRAPS))
    chosen += [port for port in _POPULAR[protocol] if port not in chosen and not used.overlaps(port, port)]
    between = _used(spec, protocol, (protocol,))
    for gap in _gaps(spec, protocol):
        if not any(low <= port <= high for low, high in gap for port in chosen):
            found = (port for low, high in gap for port in _candidates(seed, between, low, high))
            chosen += itertools.islice(found, 1)
    return tuple(chosen)


def _used(spec, protocol, of_steps=("tcp", "udp")):
    """Return Ranges of the ports that mean something; a step's over either protocol, so that none is given away.

    :param of_steps: over which protocols a step counts, where there may be no other room.
    """
    ranges = [(step.port, step.port) for step in _steps_of(spec) if step.protocol in of_steps]
    ranges += [(each.first, each.last) for door in spec.doors for each in door.opens if each.protocol == protocol]
    ranges += [(each.ports.first, each.ports.last) for each in spec.allow if each.ports.protocol == protocol]
    return Ranges(ranges)


def _gaps(spec, protocol):
    """Return the ports that a scan may pass from each step to the next, as tuples of (first, last).

    It passes those between the two; where it begins again at its end, those around them; and where it goes on with another
    protocol, all behind the one and in front of the other.
    """
    gaps = set()
    for _index, _key, steps in sequences_of(spec.doors):
        for one, other in zip(steps, steps[1:]):
            if protocol not in (one.protocol, other.protocol):
                continue
            low, high = sorted((one.port, other.port))
            gaps |= {((low + 1, high - 1),), ((high + 1, _LAST), (1, low - 1))}
            if one.protocol != other.protocol:
                port = one.port if one.protocol == protocol else other.port
                gaps |= {((port + 1, _LAST),), ((1, port - 1),)}
    return sorted(tuple((low, high) for low, high in gap if low <= high) for gap in gaps)


def _seed(spec):
    return hashlib.sha256(" ".join("{0}/{1}".format(*step) for step in _steps_of(spec)).encode("ascii"))


def _steps_of(spec):
    return [step for _index, _key, steps in sequences_of(spec.doors) for step in steps]


def _candidates(seed, used, low, high):
    """Yield different ports from low to high that are not used, in an order that follows from the steps."""
    seen = set()
    for turn in range(_TURNS if used.first_outside(low, high) else 0):
        digest = seed.copy()
        digest.update(" {0} {1} {2}".format(low, high, turn).encode("ascii"))
        start = low + int.from_bytes(digest.digest()[:4], "big") % (high - low + 1)
        port = used.first_outside(start, high) or used.first_outside(low, start)
        if port is not None and port not in seen:
            seen.add(port)
            yield port


def is_too_old(said):
    """Tell from what ``knockd -V`` says whether it lacks what the configuration needs (start_command_6, since 0.8)."""
    found = re.match(r"knockd (\d+)\.(\d+)", said)
    return bool(found) and (int(found.group(1)), int(found.group(2))) < (0, 8)


# What is read back


def config_id(text):
    """Return the id that a configuration names, '' for none of ours."""
    found = _ID.search(text)
    return found.group(1) if found else ""


def is_edited(text):
    """Tell whether a configuration of ours was changed by hand."""
    return config_id(text) != _digest(text.partition("\n")[2])


def steps_of(text):
    """Return door name to how many steps its knock has."""
    return {name: sequence.count(",") + 1 for name, sequence in _STEPS.findall(text)}


def interface_of(text):
    """Return the interface that a configuration names, or ''."""
    found = _INTERFACE.search(text)
    return found.group(1) if found else ""


def _digest(body):
    return hashlib.sha256(body.encode("utf-8", "surrogateescape")).hexdigest()[:16]


# Which interface

_UP, _REJECT = 0x1, 0x200


def default_interfaces(route, ipv6_route):
    """Return family to the interface of its default route, as far as there is one.

    :param route: the text of /proc/net/route.
    :param ipv6_route: the text of /proc/net/ipv6_route.
    """
    found = {}
    for line in route.splitlines()[1:]:
        words = line.split()
        if len(words) > 7 and words[1] == words[7] == "00000000" and int(words[3], 16) & _UP:
            found.setdefault(IPV4, []).append((int(words[6]), words[0]))
    for line in ipv6_route.splitlines():
        words = line.split()
        is_default = len(words) > 9 and words[:2] == ["0" * 32, "00"] and words[9] != "lo"
        if is_default and not int(words[8], 16) & _REJECT:
            found.setdefault(IPV6, []).append((int(words[5], 16), words[9]))
    return {family: min(routes)[1] for family, routes in found.items()}


def choose_interface(wanted, known, defaults, families):
    """Return the interface to listen on.

    :param wanted: the option, '' for none.
    :param known: the names of the host's interfaces.
    :param defaults: what default_interfaces() returns.
    :param families: those that are managed.
    :raises SpecError: if it is not there, or if nothing says which one it is.
    """
    others = ", ".join(sorted(name for name in known if name != "lo"))
    if wanted:
        if wanted not in known:
            raise SpecError("knockd_interface", "this host has no interface {0}. It has {1}.".format(wanted, others))
        return wanted
    found = sorted({defaults[family] for family in families if family in defaults})
    if len(found) == 1:
        return found[0]
    if found:
        raise SpecError(
            "knockd_interface",
            "the default routes of IPv4 and IPv6 leave by different interfaces ({0}), and knockd listens on one. Name the one "
            "that knocks come in by.".format(", ".join(found)),
        )
    raise SpecError(
        "knockd_interface",
        "this host has no default route to tell the interface by. Name the one that knocks come in by: {0}.".format(
            others
        ),
    )


_ETHERNET = ("1", "772")
"""ARPHRD_ETHER and ARPHRD_LOOPBACK of linux/if_arp.h: where knockd knows how to find an IPv6 header."""


def findings(spec, families, interface, kind):
    """Return what an operator should know of knockd on this host.

    :param kind: the text of /sys/class/net/INTERFACE/type.
    """
    found = []
    if IPV6 in families and kind.strip() not in _ETHERNET:
        message = (
            "knockd_interface: {0} is no Ethernet interface, and on others knockd sees no IPv6: over IPv6 the doors open to "
            "nobody. Choose another interface, knock over IPv4, or set engine to iptables.".format(interface)
        )
        found.append(Finding("knockd", IPV6, "", message))
    found += [
        Finding(
            "knockd", "", "",
            "doors[{0}].{1}[0]: this first step is also a later step of another knock. After a packet that got lost knockd may take one "
            "for the other until the time is over; our clients know how to get in all the same, others do not. Begin it with a port "
            "of its own.".format(index, key),
        )
        for index, key in _ambiguous(spec)
    ]  # fmt: skip
    times = [
        "{0}: {1} s for {2} steps".format(door.name, seq_timeout(door, door.knock), len(door.knock))
        for door in spec.doors
        if len(door.knock) > 1
    ]
    if times:
        message = (
            "doors[].step_timeout: knockd knows no time between two steps, only one for the whole knock from its first step on. "
            "It gets the same time in all ({0}).".format("; ".join(times))
        )
        found.append(Finding("knockd", "", "", message))
    return found


def _ambiguous(spec):
    """Return (door's index, key) of the sequences that begin with a later step of any."""
    sequences = sequences_of(spec.doors)
    later = {step for _index, _key, steps in sequences for step in steps[1:]}
    return [(index, key) for index, key, steps in sequences if steps[0] in later]


# Units and scripts

_WRITTEN = "# Written by sesame.portknock; changes to this file are lost.\n"


def drop_in_text(program, config, noted):
    """Return the part of knockd.service that is ours.

    The package's own configuration, which on Debian has live doors with well-known steps, and its file of options never
    count, whatever a distribution calls them. knockd needs no capability but to capture packets: it writes to the kernel's
    lists as their owner.

    :param program: the path of knockd.
    :param config: the path of the configuration.
    :param noted: the path of ADDRESSES_SCRIPT, or '' where addresses are not watched.
    """
    lines = ["[Unit]", "StartLimitIntervalSec=0"] + (["Wants=" + KNOCKD_ADDRESSES_UNIT] if noted else [])
    lines += ["", "[Service]", "Type=simple", "PIDFile=", "RuntimeDirectory=portknock-knockd", "ExecStartPre="]
    if noted:
        lines += ["ExecStartPre=/bin/sh {0} note".format(noted), "EnvironmentFile=-/run/portknock-knockd/interface"]
    lines += [
        "ExecStart=",
        "ExecStart={0} -c {1}{2}".format(program, config, " $PORTKNOCK_INTERFACE" if noted else ""),
        "Restart=always",
        "RestartSec=1",
        "TimeoutStopSec=3",
        # What it exits with when it is told to end.
        "SuccessExitStatus=0 2 15",
        "CapabilityBoundingSet=",
        "CapabilityBoundingSet=CAP_NET_RAW",
        "NoNewPrivileges=yes",
        "LogRateLimitIntervalSec=60",
        "LogRateLimitBurst=60",
    ]
    return _WRITTEN + "\n".join(lines) + "\n"


ADDRESSES_UNIT = (
    _WRITTEN
    + """[Unit]
Description=Port knocking: restarts knockd when the addresses of its interface change
PartOf=knockd.service
After=knockd.service
StartLimitIntervalSec=0

[Service]
ExecStart=/bin/sh {0} watch
Restart=always
RestartSec=2
NoNewPrivileges=yes
"""
)

ADDRESSES_SCRIPT = """#!/bin/sh
# Written by sesame.portknock; changes to this file are lost.
# knockd hears knocks at the addresses that its interface had when it began, and at none that came later: from DHCP,
# from IPv6's autoconfiguration, a floating one. So they are noted before it begins, and it is restarted when they differ.
# Where its interface is gone (a new kernel may name it anew), it gets that of the default route: better than to be deaf.
set -u
PATH=/usr/sbin:/sbin:/usr/bin:/bin
NOTED=/run/portknock-knockd/addresses
OPTION=/run/portknock-knockd/interface
configured=$(sed -n 's/^interface = //p' /etc/portknock/knockd.conf)

find_interface() {
    [ ! -e "/sys/class/net/$configured" ] || { echo "$configured" && return; }
    { ip -4 -o route show default && ip -6 -o route show default; } 2>/dev/null | sed -n 's/.* dev \\([^ ]*\\).*/\\1/p' | head -n 1
}

addresses() {
    echo "$interface"
    ip -o address show dev "$interface" 2>/dev/null | while read -r _number _name family address _rest; do
        echo "$family $address"
    done | sort
}

note() {
    addresses > "$NOTED"
    if [ "$interface" = "$configured" ] || [ -z "$interface" ]; then
        : > "$OPTION"
    else
        echo "there is no interface $configured: knockd listens on $interface, that of the default route" >&2
        echo "PORTKNOCK_INTERFACE=-i $interface" > "$OPTION"
    fi
}

# Nothing is noted for a knockd that a change still to be confirmed has started.
check() {
    noted=$(cat "$NOTED" 2>/dev/null) || return 0
    [ "$(addresses)" = "$noted" ] || systemctl --no-block try-restart knockd.service
}

interface=$(find_interface)
case ${1:-} in
note)
    note
    ;;
watch)
    # One look a second after the watch began, for what came in between; then one for each change.
    { (sleep 1 && echo) & exec ip -o monitor address; } | while read -r _line; do
        interface=$(find_interface)
        check
    done
    ;;
esac
"""

PREFIX_SCRIPT = """#!/bin/sh
# Written by sesame.portknock; changes to this file are lost.
# Prints the network that an IPv6 address belongs to: ipv6-prefix LENGTH ADDRESS, as knockd's commands need it.
set -u
left=$1 head=${2%%::*} tail='' groups='' colon=''
case $2 in *::*) tail=${2#*::} ;; esac
IFS=:
# shellcheck disable=SC2086  # split at the colons
set -- $head && before=$#
# shellcheck disable=SC2086
set -- $tail && missing=$((8 - before - $#))
while [ "$missing" -gt 0 ]; do
    tail=0:$tail missing=$((missing - 1))
done
# shellcheck disable=SC2086
set -- $head $tail
for group; do
    [ "$left" -gt 0 ] || group=0
    [ "$left" -ge 16 ] || group=$(printf '%x' $((0x$group & (0xffff << (16 - (left > 0 ? left : 0))) & 0xffff)))
    groups=$groups$colon$group colon=: left=$((left - 16))
done
printf '%s\\n' "$groups"
"""

__all__ = (
    "ADDRESSES_SCRIPT",
    "ADDRESSES_UNIT",
    "PREFIX_SCRIPT",
    "TRAPS",
    "choose_interface",
    "config_id",
    "config_text",
    "default_interfaces",
    "drop_in_text",
    "findings",
    "interface_of",
    "is_edited",
    "is_too_old",
    "listens",
    "seq_timeout",
    "steps_of",
    "trap_ports",
)
