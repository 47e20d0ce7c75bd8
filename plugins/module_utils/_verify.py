# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection: it may change at any time. Do not import it from elsewhere.

"""Whether doors are as they should be, seen from outside: where to look, what was seen, and what it means.

Three parts: places (which address of which family, and why it may not be looked at from here), looking (the one part
that sends and waits, behind seams) and judging (observations to rows, pure). No observation and no row holds a step.
"""

import contextlib
import ipaddress
import re
import time
from typing import NamedTuple

from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import (
    KNOCKD,
    PAUSE,
    KnockError,
    steps_of_turn,
)
from ansible_collections.sesame.portknock.plugins.module_utils._client.probe import AWAY, OPEN, REFUSED, RESET, SILENT
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import FAMILIES, IPV4, IPV6
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import port_text

OK, WRONG, UNSEEN = "ok", "wrong", "unseen"
"""What a row says: as it should be, not as it should be, cannot be told from here."""

TRIES = 3
"""Knocks at a door before it counts as one that does not open: a packet may get lost."""

MORE_TRIES = 1
"""And for knockd, which may wait for the rest of another knock, one that begins with this one's last step."""

SLACK = 1.0
"""Seconds after a window's end until it is looked whether the door is shut: the kernel counts in whole ticks."""

PORTS_OF_A_DOOR = 4
REST_PORTS = 3
"""How many ports that are nobody's are looked at: one of them may be let in by a rule of the administrator's."""

NAMES = {IPV4: "IPv4", IPV6: "IPv6"}
_VIRTUAL = re.compile(r"^(docker|br-|veth|virbr|cni|flannel|cali|podman|lxc|lxd)")


# Places: where to look


Place = NamedTuple(
    "Place",
    [
        ("family", str),
        ("address", str),
        ("given", bool),
        ("client", str),
        ("interface", str),
        ("unseen", str),
    ],
)
"""An address of the host. given: by the inventory, not by the host itself. client: whom the host sees. unseen: why nothing
can be told from here, or nothing."""

Facts = NamedTuple("Facts", [("client", str), ("server", str), ("addresses", tuple), ("listed", bool)])
"""What the host said. addresses: (interface, address, whether it is one to be used by others) of each."""


def read_facts(text):
    """Read what the host says of the connection and its addresses (the role's verify.sh). Pure."""
    client = server = ""
    addresses, listed = [], False
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["connection"] and len(words) == 5:
            client, server = _plain(words[1]), _plain(words[3])
        elif words[:1] == ["listed"]:
            listed = True
        elif len(words) > 4 and words[0] == "address" and words[3] in ("inet", "inet6"):
            flags = words[5:]
            usable = not {"deprecated", "temporary", "tentative", "dadfailed"} & set(flags)
            addresses.append((words[2].split("@", 1)[0], words[4].split("/", 1)[0], usable))
    return Facts(client, server, tuple(addresses), listed)


def _plain(address):
    """sshd may write an IPv4 address as one that is mapped into IPv6."""
    address = address.split("%", 1)[0]
    return address[7:] if address.startswith("::ffff:") and "." in address else address


def family_of(address):
    """Return ``ipv4`` or ``ipv6`` for an address."""
    return IPV6 if ":" in address else IPV4


def is_address(text):
    """Tell whether a text is an IP address."""
    try:
        ipaddress.ip_address(text.split("%", 1)[0])
    except ValueError:
        return False
    return True


def places(addresses, facts, spec, local_address):
    """Return a Place for each family. Pure but for local_address.

    :param addresses: those that the inventory gives, a name's in the resolver's order.
    :param local_address: function of an address: which one this machine sends from, '' if it has no way there.
    """
    return [_place(family, addresses, facts, spec, local_address) for family in FAMILIES]


def _place(family, addresses, facts, spec, local_address):
    mine = [address for address in addresses if family_of(address) == family]
    address = mine[0] if mine else _other_address(family, addresses, facts)
    place = Place(family, address, bool(mine), "", "", "")
    if not address:
        why = (
            "the host has no {0} address that others could use"
            if facts.listed
            else "no {0} address of the host is known"
        )
        return place._replace(unseen=why.format(NAMES[family]))
    if family not in spec.ip_versions:
        return place._replace(unseen="portknock_ip_versions leaves it out: nothing is guarded there")
    local = local_address(address)
    if not local:
        return place._replace(unseen="this controller has no way to {0}".format(address))
    client = facts.client if facts.client and family_of(facts.client) == family else local
    place = place._replace(client=client, interface=_interface(address, facts))
    return place._replace(unseen=_trust(place, local, spec))


def _other_address(family, known, facts):
    """Return the host's own address of a family, best one on the interface that we come in by."""
    own = {address: interface for interface, address, _usable in facts.addresses}
    interface = next((own[address] for address in [facts.server] + list(known) if address in own), "")
    candidates = sorted(
        (name != interface, not usable, index, address)
        for index, (name, address, usable) in enumerate(facts.addresses)
        if family_of(address) == family and (name == interface or not _VIRTUAL.match(name))
    )  # fmt: skip
    return candidates[0][-1] if candidates else ""


def _interface(address, facts):
    return next((name for name, its, _usable in facts.addresses if its == address), "")


def _trust(place, local, spec):
    client = ipaddress.ip_address(place.client.split("%", 1)[0])
    if client.is_loopback or local == place.address:
        return "this controller is the host itself, which never needs a knock"
    if _within(client, spec.trusted_sources):
        return "this controller is in portknock_trusted_sources: it never needs a knock"
    for name in spec.trusted_interfaces:
        if place.interface and (place.interface == name or (name[-1] == "+" and place.interface.startswith(name[:-1]))):
            return "this controller comes in by {0}, a trusted interface: it never needs a knock".format(
                place.interface
            )
    return ""


def _within(address, networks):
    address = ipaddress.ip_address(str(address).split("%", 1)[0])
    return any(address in network for network in networks if network.version == address.version)


def may_use(sources, place):
    """Tell whether a door or an exception that is for these sources is for this controller."""
    if not sources:
        return True
    return _within(place.client, sources)


Way = NamedTuple("Way", [("host", str), ("jump", str), ("source", str)])
"""What ssh makes of a host: its name after ssh's aliases, the jump host, the address to send from."""


def find_way(dump, host):
    """Read the output of ``ssh -G``; where there is none, the host is what it is called. Pure."""
    facts = {}
    for line in dump.splitlines():
        key, _blank, value = line.partition(" ")
        facts.setdefault(key.lower(), value.strip())
    jump = next((facts[key] for key in ("proxyjump", "proxycommand") if facts.get(key, "none").lower() != "none"), "")
    source = facts.get("bindaddress", "")
    return Way(facts.get("hostname") or host, jump, source if is_address(source) else "")


def seconds_left(told):
    """Return a function of a door's name and family: for how many seconds somebody has it open, 0 where nobody is known."""

    def left(name, family):
        return max((_info(told, name, family).get("open_for") or {"": 0}).values())

    return left


# What is looked at


def ports_of(ranges, only_tcp=True):
    """Return some (port, protocol) of ranges of ports: the ends of each; TCP alone where there is any, as it tells more."""
    found = [(port, each.protocol) for each in ranges for port in dict.fromkeys((each.first, each.last))]
    tcp = [pair for pair in found if pair[1] == "tcp"]
    return tuple((tcp if only_tcp and tcp else found)[:PORTS_OF_A_DOOR])


def ports_of_door(door):
    """Return the ports of a door that are looked at: one of a door that a single connection shuts."""
    return ports_of(door.opens)[:1] if door.once else ports_of(door.opens)


def is_free(spec, port):
    """Tell whether a port means nothing to any door or exception, over either protocol."""
    ranges = [each for door in spec.doors for each in door.opens] + [allow.ports for allow in spec.allow]
    steps = {step.port for door in spec.doors for step in door.knock + door.close}
    return port not in steps and not any(each.first <= port <= each.last for each in ranges)


def free_ports(spec, count, chooser):
    """Return so many ports that mean nothing to anybody.

    :param chooser: function of a low and a high number, a random one between them.
    """
    found = []
    for _turn in range(10000):
        port = chooser(20000, 60999)
        if port not in found and is_free(spec, port):
            found.append(port)
        if len(found) == count:
            break
    return tuple(found)


def wrong_knock(door, port):
    """Return a door's knock with another port, which must mean nothing to anybody, in place of the last step."""
    last = door.knock[-1]
    return door.knock[:-1] + (last._replace(port=port),)


# Looking


class Tools:
    """What looking needs: to send, to look and to wait. A test replaces it."""

    def __init__(self, send_knock, probe, pause=PAUSE, source="", settle=0.0):
        """Take the functions of _knock and _probe, and how to knock."""
        self._send_knock, self._probe, self._source = send_knock, probe, source
        self._pause, self._settle = pause, settle

    def knock(self, addresses, steps):
        """Send a knock to the addresses; where there is no way to any of them, looking says so."""
        with contextlib.suppress(KnockError):
            self._send_knock(addresses, steps, self._pause, self._source, settle=self._settle)

    def probe(self, targets):
        """Return target to what became of it."""
        return self._probe(targets, source=self._source)

    def now(self):
        """Return seconds that only go up."""
        return time.monotonic()

    def sleep(self, seconds):
        """Wait."""
        time.sleep(max(0, seconds))


class Observer:
    """Looks at all doors of a host in as little time as their windows allow: they are waited for together."""

    def __init__(self, spec, places, tools, longest, left, chooser):
        """Take what is wanted and where.

        :param places: those that can be looked at.
        :param longest: seconds; a longer window is not waited for.
        :param left: function of a door's name and family: seconds for which the host has it open for somebody, or 0.
        :param chooser: see free_ports().
        """
        self._spec, self._places, self._tools = spec, places, tools
        self._longest, self._left, self._chooser = longest, left, chooser
        self._seen = {(door.name, place.family): {} for door in spec.doors for place in places}
        self._steps = [(door, place) for door in spec.doors for place in places]

    def run(self):
        """Return what was seen: door to family to observation, and the same for exceptions and for all the rest."""
        allowed, rest = self._look_around()
        self._wait_for_openings()
        self._knock_wrongly()
        ends = self._knock_rightly() if self._steps else {}
        self._look_after(ends)
        doors = [
            dict(door=door.name, family=place.family, **self._seen[door.name, place.family])
            for door in self._spec.doors
            for place in self._places
        ]
        return dict(doors=doors, allow=allowed, rest=rest)

    def _look(self, key, pairs):
        """Look at the doors' ports and keep what was seen under a name; return the pairs that are not let in."""
        return self._keep(key, pairs, self._tools.probe(_door_targets(pairs)))

    def _keep(self, key, pairs, found):
        shut = []
        for door, place in pairs:
            answers = {_name(target): found[target] for target in _targets(ports_of_door(door), place)}
            self._note(door, place, **{key: answers})
            if not self._is_open(door, place, key):
                shut.append((door, place))
        return shut

    def _note(self, door, place, **what):
        self._seen[door.name, place.family].update(what)

    def _is_open(self, door, place, key):
        return is_open(self._seen[door.name, place.family], key, self._spec.reject_with)

    def _look_around(self):
        """Look at everything before the first knock."""
        free = free_ports(self._spec, REST_PORTS, self._chooser) if self._spec.policy == "reject" else ()
        rest = {(place, port): (place.address, port, "tcp") for place in self._places for port in free}
        allow = {
            (place, index): _targets(ports_of((each.ports,)), place)
            for place in self._places
            for index, each in enumerate(self._spec.allow)
        }
        more = list(rest.values()) + [target for targets in allow.values() for target in targets]
        found = self._tools.probe(_door_targets(self._steps) + more)
        self._steps = self._keep("first", self._steps, found)
        allowed = [
            dict(index=index, family=place.family, answers={_name(target): found[target] for target in targets})
            for (place, index), targets in allow.items()
        ]
        others = [
            dict(family=place.family, answers={
                str(port): found[target] for (its, port), target in rest.items() if its == place})
            for place in self._places if free
        ]  # fmt: skip
        return allowed, others

    def _wait_for_openings(self):
        """Wait for doors that are open because somebody here has knocked before, and look again."""
        pairs = [(door, place) for door in self._spec.doors for place in self._places]
        early = [pair for pair in pairs if pair not in self._steps]
        early = self._shut(early)
        waits = [(pair, self._wait_of(*pair)) for pair in early]
        for door, place in [pair for pair, seconds in waits if seconds is None]:
            self._note(door, place, waited="no")
        waits = [(pair, seconds) for pair, seconds in waits if seconds is not None]
        if waits:
            self._tools.sleep(max(seconds for _pair, seconds in waits))
            self._steps += self._look("second", [pair for pair, _seconds in waits])

    def _shut(self, pairs):
        """Shut what has a close knock, which saves the waiting; return what is still open."""
        groups = [(door, group) for door, group in _by_door(pairs) if door.close]
        for door, group in groups:
            self._tools.knock([place.address for place in group], door.close)
        tried = [(door, place) for door, group in groups for place in group]
        shut = self._look("second", tried) if tried else []
        self._steps += shut
        return [pair for pair in pairs if pair not in shut]

    def _wait_of(self, door, place):
        """Return the seconds until a door must be shut again, None if that is too long."""
        if door.once:
            # Having looked has used it up.
            return 0
        # Somebody else may have knocked last; no window is longer than the door's.
        seconds = min(self._left(door.name, place.family) or door.window, door.window)
        return seconds + SLACK if seconds <= self._longest else None

    def _knock_wrongly(self):
        groups = _by_door(self._steps)
        free = free_ports(self._spec, 1, self._chooser)
        for door, group in groups if free else ():
            self._tools.knock([place.address for place in group], wrong_knock(door, free[0]))
        self._steps = self._look("wrong", self._steps)

    def _knock_rightly(self):
        """Knock at one door after the other, the longest window first; return pair to when it must be shut again."""
        ends = {}
        groups = sorted(_by_door(self._steps), key=lambda item: -min(item[0].window, self._longest))
        for door, group in groups:
            opened = self._open(door, group)
            if door.once and opened:
                self._look("again", [(door, place) for place in opened])
            if door.close and opened:
                self._tools.knock([place.address for place in opened], door.close)
                self._look("closed", [(door, place) for place in opened])
            if door.window > self._longest:
                continue
            if (door.once or door.close) and opened:
                # What follows would be seen shut anyway, if nobody had opened it again.
                self._tools.knock([place.address for place in opened], door.knock)
                if not door.once:
                    self._look("reopened", [(door, place) for place in opened])
            ends.update({(door, place): self._tools.now() + door.window + SLACK for place in opened})
        return ends

    def _open(self, door, group):
        """Knock until the door is open or enough was tried; return the places where it opened."""
        left, opened = list(group), []
        # knockd has not seen that the wrong knock ended with a wrong port, and waits for what comes after it.
        steps = steps_of_turn(door.knock, 1, self._spec.engine)
        by_knockd = self._spec.engine == KNOCKD
        for turn in range(TRIES + (MORE_TRIES if by_knockd else 0)):
            self._tools.knock([place.address for place in left], steps)
            shut = [place for _door, place in self._look("right", [(door, place) for place in left])]
            for place in left:
                self._note(door, place, tries=turn + 1)
            opened += [place for place in left if place not in shut]
            # Whoever may not knock is refused once, not three times; nor can UDP be asked until it answers, but the first
            # knock that knockd gets may be one that it does not hear.
            heard = ports_of_door(door)[0][1] == "tcp" or by_knockd
            left = [place for place in shut if may_use(door.sources, place) and heard]
            if not left:
                break
        return opened + [place for place in group if place not in opened and ports_of_door(door)[0][1] == "udp"]

    def _look_after(self, ends):
        windows = sorted({door.window for door, _place in ends})
        for window in windows:
            pairs = [pair for pair in ends if pair[0].window == window]
            self._tools.sleep(max(ends[pair] for pair in pairs) - self._tools.now())
            self._look("later", pairs)


def _by_door(pairs):
    groups = {}
    for door, place in pairs:
        groups.setdefault(door, []).append(place)
    return list(groups.items())


def _door_targets(pairs):
    return [target for door, place in pairs for target in _targets(ports_of_door(door), place)]


def _targets(ports, place):
    return [(place.address, port, protocol) for port, protocol in ports]


def _name(target):
    return "{0}/{1}".format(target[1], target[2])


# Judging


YES, NO, MAYBE = "yes", "no", "maybe"


def let_in(answer, protocol, reject_with):
    """Tell whether an answer means that the firewall let the packet in: YES, NO or MAYBE. Pure.

    A host's kernel answers a packet that was let in, and that nobody listens for, with a reset, or with
    port-unreachable for a datagram; what the firewall answers is told by reject_with.
    """
    if answer == OPEN:
        return YES
    if protocol == "udp":
        return _let_in_udp(answer, reject_with)
    if answer == RESET:
        return MAYBE if reject_with == "tcp-reset" else YES
    if answer == REFUSED:
        return YES if reject_with == "drop" else MAYBE
    return NO


def _let_in_udp(answer, reject_with):
    unreachable = answer == REFUSED or answer in ("icmp 3/3", "icmp 1/4")
    if unreachable:
        return YES if reject_with in ("drop", "icmp-admin-prohibited") else MAYBE
    return MAYBE if answer == SILENT else NO


def is_open(seen, key, reject_with):
    """Tell whether any port was let in for certain. After a knock, a datagram that is no longer refused was let in."""
    return any(_verdict(seen, key, name, reject_with) == YES for name in seen.get(key, {}))


def _verdict(seen, key, name, reject_with):
    answer, before = seen[key][name], seen.get("second", seen.get("first", {})).get(name)
    protocol = name.partition("/")[2]
    found = let_in(answer, protocol, reject_with)
    if protocol == "udp" and found == MAYBE and key in ("right", "reopened"):
        return YES if answer == SILENT and _is_refusal(before) else MAYBE
    return found


def _is_refusal(answer):
    return answer == REFUSED or str(answer).startswith("icmp")


def look_of(answers):
    """Return what answers look like to somebody outside, in a word or two."""
    found = sorted(set(answers.values()))
    for kind in [answer for answer in found if answer.startswith("icmp")] + [OPEN, RESET, REFUSED, SILENT, AWAY]:
        if kind in found:
            return {
                OPEN: "open", RESET: "refused (reset)", REFUSED: "refused", SILENT: "silent", AWAY: "no way there",
            }.get(kind, "refused ({0})".format(kind))  # fmt: skip
    return "-"


Context = NamedTuple("Context", [("spec", object), ("places", dict), ("told", dict), ("after", dict), ("longest", int)])
"""places: family to Place. told, after: what knock_ruleset_info said before and, where it was asked again, afterwards."""


def rows(seen, context):
    """Return a row for every door and family, exception, the rest, and the host. Pure."""
    found = []
    for family in FAMILIES:
        place = context.places.get(family)
        if place and place.unseen:
            found += [_row("door " + door.name, family, UNSEEN, place.unseen) for door in context.spec.doors]
            if not context.spec.doors:
                found.append(_row("all", family, UNSEEN, place.unseen))
    silent = _silent_families(seen, context)
    found += [_door_row(each, context, silent) for each in seen.get("doors", ())]
    found += [_allow_row(each, context, silent) for each in seen.get("allow", ())]
    found += [_rest_row(each, context, silent) for each in seen.get("rest", ())]
    order = {"door": 0, "allow": 1, "rest": 2, "all": 3}
    names = [door.name for door in context.spec.doors]
    found.sort(
        key=lambda row: (
            order[row["what"].split(" ", 1)[0]],
            _place_in(names, row["what"]),
            row["what"],
            row["ip_version"],
        )
    )
    return found + host_rows(context)


def _place_in(names, what):
    name = what.partition(" ")[2]
    return names.index(name) if what.startswith("door ") and name in names else 0


def _row(what, family, state, note, **cells):
    row = dict(what=what, ip_version=family, without="-", wrong="-", right="-", later="-", state=state, note=note)
    row.update(cells)
    return row


def unseen_row(jump):
    """Return the row for a host behind a jump host."""
    return _row("all", "", UNSEEN, (
        "the host is reached through a jump host{0}, so what this controller sees says nothing about its doors. "
        "Run sesame.portknock.verify where the jump host is, or set ansible_knock_via to direct if it can be reached from here."
    ).format(" (" + jump + ")" if jump else ""))  # fmt: skip


def _silent_families(seen, context):
    """Return the families of which the host itself named the address, and in which nothing at all answered."""
    answered = set()
    for each in [one for kind in ("doors", "allow", "rest") for one in seen.get(kind, ())]:
        answers = [value for item in each.values() if isinstance(item, dict) for value in item.values()]
        if any(answer not in (SILENT, AWAY) for answer in answers):
            answered.add(each["family"])
    return {family for family, place in context.places.items() if not place.given and family not in answered}


def _nothing(what, family, context):
    note = "nothing answers at {0}, which the host names as its own: it may not be reachable from here at all".format(
        context.places[family].address
    )
    return _row(what, family, UNSEEN, note)


def _door_row(seen, context, silent):
    door = next(door for door in context.spec.doors if door.name == seen["door"])
    family, what = seen["family"], "door " + seen["door"]
    if family in silent:
        return _nothing(what, family, context)
    reject_with = context.spec.reject_with
    cells = dict(without=_state_cell(seen, "second" if "second" in seen else "first", reject_with))
    for key, cell in (("wrong", "wrong"), ("right", "right"), ("later", "later")):
        if key in seen:
            cells[cell] = _state_cell(seen, key, reject_with)
    if "closed" in seen and "later" not in seen:
        cells["later"] = _state_cell(seen, "closed", reject_with)
    state, note = _door_verdict(seen, door, context)
    if state == OK and door.window > context.longest and "right" in seen and not door.close:
        cells["later"] = "not waited for"
    return _row(what, family, state, note, **cells)


def _state_cell(seen, key, reject_with):
    if is_open(seen, key, reject_with):
        return "open"
    return look_of(seen[key])


def _door_verdict(seen, door, context):
    """Return (state, note): the first thing that is wrong, or what there is to say of a door that is right."""
    opens = [
        key
        for key in ("first", "second", "wrong", "again", "closed", "later")
        if is_open(seen, key, context.spec.reject_with)
    ]
    if seen.get("waited") == "no":
        return _not_waited(seen, door, context)
    if "second" in opens or ("first" in opens and "second" not in seen):
        return WRONG, _void(seen["family"], context)
    if "wrong" in opens:
        return WRONG, (
            "a wrong knock opens it. The host's knock is not the inventory's, or something lets in whoever was refused "
            "before. Run sesame.portknock.site."
        )
    return _opening(seen, door, context) or _closing(seen, opens, door, context)


def _not_waited(seen, door, context):
    if not _info(context.told, door.name, seen["family"]).get("open_for"):
        return WRONG, "open, and the host knows of nobody who has knocked. " + _void(seen["family"], context)
    return UNSEEN, (
        "open because somebody has knocked, and its window of {0} s is not waited for (portknock_verify_wait is {1}). "
        "Run this again when it is over, or with a longer wait.".format(door.window, context.longest)
    )


def _void(family, context):
    if family not in context.told.get("ip_versions", (family,)):
        return "open without a knock: the host has no rules of ours for {0}. Run sesame.portknock.site.".format(
            NAMES[family]
        )
    drift = _drift_of(context.told, family)
    if drift:
        return "open without a knock: the rules were changed by hand ({0}). Run sesame.portknock.site.".format(drift)
    return (
        "open without a knock, also when nobody's window runs: something lets it in before the doors. Look at what is above "
        "PORTKNOCK in INPUT, and at nat and raw, with iptables-save; then run sesame.portknock.site."
    )


def _opening(seen, door, context):
    """Return what is wrong or cannot be told about the right knock, or nothing."""
    place = context.places[seen["family"]]
    reject_with = context.spec.reject_with
    found = is_open(seen, "right", reject_with)
    if not may_use(door.sources, place):
        if found:
            return WRONG, "opens for {0}, which is not in the door's sources. Run sesame.portknock.site.".format(
                place.client
            )
        return OK, "this controller is not in the door's sources: it stays shut for it"
    if found:
        return None
    knocked, entered = (_more(name, seen, context) for name in ("knocked", "let_in"))
    maybe = any(_verdict(seen, "right", name, reject_with) == MAYBE for name in seen.get("right", {}))
    if maybe and entered:
        return None
    if knocked == 0:
        return WRONG, (
            "does not open, and the host has not counted the right knock: a firewall on the way drops a step, the steps "
            "come from another address, or the host has another knock than the inventory. Run sesame.portknock.site, "
            "then look at what is between."
        )
    if seen["right"] and set(seen["right"].values()) == {AWAY}:
        return (
            WRONG,
            "cannot be reached: there is no way to {0} from here. Look at routes and firewalls on the way.".format(
                place.address
            ),
        )
    if knocked:
        return _knocked_but_shut(maybe, seen)
    if maybe:
        return UNSEEN, "opens or not: its answer is the same with and without a knock, as nothing answers behind it"
    return WRONG, (
        "does not open to the right knock: a step or the connection is dropped on the way, {0}or the host has another knock "
        "than the inventory. Run sesame.portknock.site, then look at what is between."
    ).format(_deaf(context))


def _deaf(context):
    """Return how knockd may be deaf, which nothing but its own log would tell."""
    if context.spec.engine != KNOCKD:
        return ""
    interface = (context.told.get("daemon") or {}).get("interface", "")
    return "the knock does not come in by the interface that knockd listens on{0}, ".format(
        " (" + interface + ")" if interface else ""
    )


def _knocked_but_shut(maybe, seen):
    if maybe:
        if any(name.endswith("/udp") for name in seen["right"]):
            return (
                UNSEEN,
                "the host counted the knock; whether it lets datagrams in cannot be told, as nothing answers behind it",
            )
        return (
            WRONG,
            "the host counted the right knock and still refuses, or nothing listens there. Run sesame.portknock.site.",
        )
    return WRONG, (
        "the host counted the right knock, but the connection does not get in: another firewall, on the host or on the way, "
        "drops it. Look at what is below the doors and between."
    )


def _closing(seen, opens, door, context):
    if "again" in opens:
        return WRONG, "lets in more than one connection a knock, though once is set. Run sesame.portknock.site."
    if "closed" in opens:
        return (
            WRONG,
            "its close knock does not shut it. A firewall on the way may drop a step; else run sesame.portknock.site.",
        )
    if "later" in opens:
        return (
            WRONG,
            "still open {0} s after the knock. The host has another window; run sesame.portknock.site.".format(
                door.window
            ),
        )
    if door.close and "reopened" in seen and not is_open(seen, "reopened", context.spec.reject_with):
        return WRONG, "does not open a second time after its close knock. Run sesame.portknock.site."
    notes = []
    deaf = sorted(name for name, answer in seen["right"].items() if answer in (RESET, REFUSED))
    if deaf:
        notes.append("nothing listens on " + ", ".join(deaf))
    if door.window > context.longest:
        notes.append("its window of {0} s is not waited for".format(door.window))
    elif any(name.endswith("/udp") for name in seen["right"]) and set(seen.get("later", {}).values()) == {SILENT}:
        notes.append("silence over UDP does not tell whether it is shut again")
    if door.close:
        notes.append("shut by its close knock")
    if door.once:
        notes.append("one connection a knock")
    return OK, "; ".join(notes)


def _info(told, name, family):
    for door in (told or {}).get("doors") or ():
        if door.get("name") == name and door.get("ip_version") == family:
            return door
    return {}


def _more(name, seen, context):
    """Return how many packets more the host counted afterwards, None where that is not known."""
    before, after = (_info(told, seen["door"], seen["family"]) for told in (context.told, context.after))
    if name not in before or name not in after:
        return None
    return max(0, after[name] - before[name])


def _allow_row(seen, context, silent):
    allow = context.spec.allow[seen["index"]]
    family = seen["family"]
    what = "allow {0}/{1}".format(port_text(allow.ports).replace(":", "-"), allow.ports.protocol)
    if family in silent:
        return _nothing(what, family, context)
    reject_with = context.spec.reject_with
    verdicts = {name: let_in(answer, name.partition("/")[2], reject_with) for name, answer in seen["answers"].items()}
    cells = dict(without=look_of(seen["answers"]))
    wanted = may_use(allow.sources, context.places[family])
    return _row(what, family, *_allow_verdict(verdicts, wanted, context.spec.policy, seen["answers"]), **cells)


def _allow_verdict(verdicts, wanted, policy, answers):
    if not wanted:
        if YES in verdicts.values() and policy == "reject":
            return (
                WRONG,
                "open to this controller, which is not in its sources. Look for a rule that lets it in, with iptables-save.",
            )
        return OK, "not for this controller"
    if NO in verdicts.values():
        return WRONG, (
            "allowed, but not let in. Run sesame.portknock.site; if that changes nothing, a firewall on the way or another rule "
            "on the host refuses it."
        )
    if MAYBE in verdicts.values():
        return UNSEEN, "let in or not: nothing answers there"
    deaf = sorted(name for name, answer in answers.items() if answer != OPEN)
    return OK, "nothing listens on " + ", ".join(deaf) if deaf else ""


def _rest_row(seen, context, silent):
    family, what = seen["family"], "rest"
    if family in silent:
        return _nothing(what, family, context)
    answers = seen["answers"]
    verdicts = [let_in(answer, "tcp", context.spec.reject_with) for answer in answers.values()]
    cells = dict(without=look_of(answers))
    if verdicts and all(verdict == YES for verdict in verdicts):
        cells["without"] = "let in"
        return _row(what, family, WRONG, (
            "ports that nobody asked for are not refused, though portknock_policy is reject: the last rule is gone, or a rule "
            "before it lets everything in. Run sesame.portknock.site."
        ), **cells)  # fmt: skip
    if verdicts and NO not in verdicts:
        note = "a host without the last rule answers the same; its own account of its rules is what tells"
        return _row(what, family, OK if "ip_versions" in context.told else UNSEEN, note, **cells)
    return _row(what, family, OK, "", **cells)


def host_rows(context):
    """Return what the host's own account (knock_ruleset_info) gives reason to say: drift and changes that wait."""
    found = []
    for family in FAMILIES:
        drift = _drift_of(context.told, family)
        if drift:
            note = "the rules are not as they were written: {0}. Run sesame.portknock.site.".format(drift)
            found.append(_row("rules", family, WRONG, note))
        elif _lacks_rules(family, context):
            note = "the host has no rules of ours for {0}. Run sesame.portknock.site.".format(NAMES[family])
            found.append(_row("rules", family, WRONG, note))
    engine = _engine_note(context)
    if engine:
        found.append(_row("rules", "", WRONG, engine))
    more = sorted(
        {door["name"] for door in context.told.get("doors") or ()} - {door.name for door in context.spec.doors}
    )
    if more:
        note = "the host has doors that the inventory does not have ({0}). Run sesame.portknock.site.".format(
            ", ".join(more)
        )
        found.append(_row("rules", "", WRONG, note))
    if context.told and "ip_versions" not in context.told:
        note = "the host could not be asked for its own account of them: knock first, or use the connection knock_ssh"
        found.append(_row("rules", "", UNSEEN, note))
    pending = context.told.get("pending")
    if pending:
        note = "a change by {0} waits to be confirmed: run this again when that is over.".format(
            pending.get("owner", "somebody")
        )
        found.append(_row("rules", "", WRONG, note))
    return found


def _engine_note(context):
    """Return what is wrong with who recognises the knocks on the host, or nothing."""
    engine, wanted = context.told.get("engine"), context.spec.engine
    if not engine or not context.spec.doors:
        return ""
    if engine != wanted:
        return "{0} recognises the knocks on the host, and portknock_engine is {1}. Run sesame.portknock.site.".format(
            engine, wanted
        )
    if engine == KNOCKD and not (context.told.get("daemon") or {}).get("running", True):
        return (
            "knockd does not run on the host, so no knock opens a door. Look at 'journalctl -u knockd' there; then run "
            "sesame.portknock.site."
        )
    return ""


def _lacks_rules(family, context):
    place = context.places.get(family)
    guarded = context.spec.doors or context.spec.policy == "reject"
    return bool(
        guarded and place and place.address and family in context.spec.ip_versions
        and family not in context.told.get("ip_versions", (family,))
    )  # fmt: skip


def _drift_of(told, family):
    prefix = family + ": "
    lines = [str(line)[len(prefix):] for line in (told or {}).get("drift") or () if str(line).startswith(prefix)]  # fmt: skip
    if not lines:
        return ""
    # A rule says more than the name of its chain.
    first = next((line for line in lines if " -A " in line), lines[0])
    word = {"+": "missing: ", "-": "unwanted: "}.get(first[:1], "")
    return word + first[1:].strip() + (" and {0} more".format(len(lines) - 1) if lines[1:] else "")


def problems(found):
    """Return a sentence for each row that is wrong."""
    return [
        "{0}{1}: {2}".format(row["what"], " over " + NAMES[row["ip_version"]] if row["ip_version"] else "", row["note"])
        for row in found
        if row["state"] == WRONG
    ]


def wants_counters(seen, context):
    """Tell whether the host's counters would tell more: a door did not open for certain, or did and nothing answered."""
    doors = {door.name: door for door in context.spec.doors}
    return any(
        "right" in each
        and may_use(doors[each["door"]].sources, context.places[each["family"]])
        and not is_open(each, "right", context.spec.reject_with)
        for each in seen.get("doors", ())
    )


__all__ = (
    "OK",
    "UNSEEN",
    "WRONG",
    "Context",
    "Facts",
    "Observer",
    "Place",
    "Tools",
    "Way",
    "family_of",
    "find_way",
    "free_ports",
    "host_rows",
    "is_address",
    "is_free",
    "is_open",
    "let_in",
    "look_of",
    "may_use",
    "places",
    "ports_of",
    "problems",
    "read_facts",
    "rows",
    "seconds_left",
    "unseen_row",
    "wants_counters",
    "wrong_knock",
)
