# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options that describe a ruleset, for every module that takes them."""

from __future__ import annotations


class ModuleDocFragment:
    """Doors, and what needs no knock."""

    DOCUMENTATION = r"""
options:
  doors:
    description:
      - The doors - each one a knock, the ports that it opens, and for how long.
      - A list of dictionaries. C(raw) because ansible-core would print a value that is not one.
    type: raw
    default: []
    suboptions:
      name:
        description:
          - The door's name - a letter, then letters, digits or C(_), at most 16.
        type: str
        required: true
      knock:
        description:
          - The steps in their order, 1 to 8 of C(PORT), C(PORT/tcp) or C(PORT/udp).
          - Steps are secret. They never show in a result, diff or log.
          - Any port scan opens a door of one step. Steps that a linear scan would hit in order are refused.
        type: list
        elements: str
        required: true
      opens:
        description:
          - The ports that the knock opens, C(PORT), C(PORT/udp) or ranges C(FIRST-LAST).
        type: list
        elements: str
        required: true
      window:
        description:
          - Seconds after the last step in which new connections are accepted. Established connections are not cut.
        type: int
        default: 15
      step_timeout:
        description:
          - The longest pause between two steps, in seconds. With O(engine=knockd), this time for each pause is the limit for all
            steps together, counted from the first one.
        type: int
        default: 5
      sources:
        description:
          - Addresses or networks that may knock. If empty, any source may.
        type: list
        elements: str
        default: []
      close:
        description:
          - An optional knock that closes the door again for its source, in the same form as C(doors[].knock).
        type: list
        elements: str
        default: []
      once:
        description:
          - A knock is good for one new connection only.
        type: bool
        default: false
      to:
        description:
          - Addresses or networks of hosts behind this one, on which the door guards and opens its ports for packets that this
            host forwards, instead of on this host itself.
          - It is knocked at this host, or at the hosts behind it where the packets come this way; with O(engine=knockd) at this
            host alone.
        type: list
        elements: str
        default: []
  policy:
    description:
      - V(reject) refuses whatever is not accepted by a door, O(allow) or the trusted sources and interfaces.
      - V(accept) refuses only new connections to the doors' ports.
    type: str
    choices: [reject, accept]
    default: reject
  published:
    description:
      - What holds for ports that nat sends on to containers or other hosts, as those that Docker publishes.
      - V(doors) guards the ports of doors there too, by the port as it is seen from outside. V(policy) refuses new connections to
        published ports that have no door and are not in O(allow) as well, with O(policy=reject). V(none) leaves them alone.
    type: str
    choices: [doors, policy, none]
    default: doors
  reject_with:
    description:
      - How packets are refused. V(tcp-reset) is for TCP; other protocols then get port-unreachable.
      - Translated for IPv6.
    type: str
    choices: [icmp-port-unreachable, tcp-reset, icmp-admin-prohibited, drop]
    default: icmp-port-unreachable
  allow:
    description:
      - Ports that are open without a knock. They never count as a wrong knock.
      - A list of dictionaries. C(raw) because ansible-core would print a value that is not one.
    type: raw
    default: []
    suboptions:
      port:
        description:
          - A port, or a range C(FIRST-LAST).
        type: str
        required: true
      protocol:
        description:
          - The protocol. C(tcp) if neither this nor the port names it.
        type: str
        choices: [tcp, udp]
      sources:
        description:
          - Addresses or networks the port is open to. If empty, it is open to everyone.
        type: list
        elements: str
        default: []
      comment:
        description:
          - A note that shows in C(iptables -L).
        type: str
        default: ""
  trusted_sources:
    description:
      - Addresses and networks that never need a knock. Name one for break-glass access.
      - Networks that together include everyone are refused.
    type: list
    elements: str
    default: []
  trusted_interfaces:
    description:
      - Interfaces whose packets never need a knock. The loopback interface is always one of them.
      - The interface of the default route is refused, as everybody comes in by it.
    type: list
    elements: str
    default: [lo]
  ip_versions:
    description:
      - The IP versions to manage. IPv6 is left out on a host that does not have it.
      - Rules of this module in a version that is not named are removed.
    type: list
    elements: str
    choices: [ipv4, ipv6]
    default: [ipv4, ipv6]
  ipv6_prefix:
    description:
      - How many leading bits of an IPv6 source must match its knock, 64 to 128.
    type: int
    default: 128
  engine:
    description:
      - What recognises the knock. V(iptables) is the kernel's recent match, V(knockd) the daemon of that name, V(nftables) a table of
        nftables with sets.
      - Doors, policy and everything else mean the same with all of them. knockd only puts a source on the list that the rules look at, so
        when it dies the doors stay closed, and established connections are not cut.
      - V(knockd) needs systemd and the package, which the role installs. The daemon is started, proved by a knock, and only then
        enabled; C(/etc/knockd.conf) and the distribution's file with its options are never used.
      - V(nftables) needs nft 0.9.3 and Linux 5.4, and neither iptables nor xt_recent. Rules of others are left alone, and nothing that
        they accept opens a door, since a packet must pass their tables and this one.
      - What they do differently is in C(docs/engines.md) of the collection.
    type: str
    choices: [iptables, knockd, nftables]
    default: iptables
"""
