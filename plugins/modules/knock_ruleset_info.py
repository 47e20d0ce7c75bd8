#!/usr/bin/python
# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: knock_ruleset_info
short_description: Return the doors of a host, and the sources that have them open
version_added: 1.0.0
description:
  - Reads the knock ruleset that M(sesame.portknock.knock_ruleset) wrote - doors, the sources that have knocked and for how many more
    seconds the door is open to them, packet counters, drift, and findings.
  - Never writes. Steps of a knock are never returned.
author:
  - sesame.portknock contributors (@sesame)
extends_documentation_fragment:
  - sesame.portknock.attributes.read_only
attributes:
  platform:
    description: Linux with iptables 1.8.4 or later, nft or legacy.
    support: full
    platforms: linux
requirements:
  - Python 3.6 or later on the host
seealso:
  - module: sesame.portknock.knock_ruleset
"""

EXAMPLES = r"""
- name: Look at the doors
  sesame.portknock.knock_ruleset_info:
  register: knocks

- name: Fail if the rules were changed by hand
  ansible.builtin.assert:
    that: knocks.drift == []
"""

RETURN = r"""
backend:
  description: The backend that the iptables commands of the host use, empty if they are not installed, and with engine V(nftables).
  returned: success
  type: str
  sample: nft
daemon:
  description: The state of knockd, empty if it has no configuration of this collection.
  returned: success
  type: dict
  contains:
    running:
      description: Whether it runs and listens.
      type: bool
    interface:
      description: The interface that it listens on.
      type: str
  sample: {}
doors:
  description: The doors found, one entry for each door and IP version.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The door's name.
      type: str
    ip_version:
      description: V(ipv4) or V(ipv6).
      type: str
    opens:
      description: The ports that it opens.
      type: list
      elements: str
    to:
      description: The hosts behind this one whose ports these are. Missing if they are this host's.
      type: list
      elements: str
    steps:
      description: How many steps its knock has.
      type: int
    window:
      description: Seconds for which a knock opens it.
      type: int
    open_for:
      description: Sources that it is open to, and for how many more seconds.
      type: dict
    let_in:
      description: New connections that were accepted since the rules were loaded.
      type: int
    knocked:
      description: Packets that completed the knock since the rules were loaded. Missing with engine V(knockd), whose knocks the
        kernel does not count.
      type: int
    refused:
      description: Packets that were refused at the door's ports since the rules were loaded; at a port of several doors they count
        for each. Missing where rules of an earlier release do not tell them from those to other doors.
      type: int
  sample:
    - name: ssh
      ip_version: ipv4
      opens: ["22/tcp"]
      steps: 3
      window: 15
      open_for: {"192.0.2.7": 9}
      let_in: 4
      knocked: 5
      refused: 12
drift:
  description:
    - How the rules in the kernel differ from what was written, as lines of a diff - V(-) for what is there and should not be,
      V(+) for what is missing.
    - If nothing is restored at boot, only rules that were edited, added or moved are seen, not those that were removed.
  returned: success
  type: list
  elements: str
engine:
  description: What recognises the knocks, V(iptables), V(knockd) or V(nftables), empty if there are no rules of this collection.
  returned: success
  type: str
  sample: iptables
findings:
  description: As M(sesame.portknock.knock_ruleset) returns them.
  returned: success
  type: list
  elements: dict
ip_versions:
  description: The IP versions in which there are rules of this collection.
  returned: success
  type: list
  elements: str
lists:
  description: How full the lists of sources are that the kernel keeps; the kernel drops the oldest one of a full list.
  returned: success
  type: list
  elements: dict
  contains:
    door:
      description: The door whose list it is, empty for the one of the sources in the middle of a knock.
      type: str
    ip_version:
      description: V(ipv4) or V(ipv6).
      type: str
    entries:
      description: The sources that are on it, also those whose time is over.
      type: int
    size:
      description: How many it takes; V(0) where the kernel does not say.
      type: int
panic:
  description: Since when the doors and allowed ports are closed by C(portknock panic), in seconds since 1970, V(0) if they are not.
  returned: success
  type: int
  sample: 0
pending:
  description: The change that waits to be confirmed, empty if there is none.
  returned: success
  type: dict
  contains:
    id:
      description: Its id.
      type: str
    owner:
      description: Who makes it.
      type: str
    seconds_left:
      description: Seconds until it is rolled back, if it is not confirmed.
      type: int
proof:
  description:
    - What the prover says of each door, each allowed port and, under policy V(reject), the rest, for each IP version, and of the ssh
      connection that this is asked through, on the tables raw, mangle, nat and filter as they are in the kernel. With the engine
      V(nftables) it is the tables of nftables, as nft lists them, and those of both backends of iptables.
    - It looks at every first packet of a TCP or UDP connection to an address of this host. What else decides on packets, such as
      native tables of nftables beside the engine V(iptables), is not part of it; the findings are about that.
    - What this host forwards is not walked. A packet to the port of a door that a rule of nat sends to another host is V(void), with
      that rule, whatever chain C(FORWARD) does with it; it refuses no change, for the finding C(unguarded) is about it. Where all else is
      refused, rules that send packets to other hosts are among RV(proof[].exceptions).
  returned: success
  type: list
  elements: dict
  contains:
    what:
      description: V(door NAME), V(allow PORT/PROTOCOL), V(rest) or V(connection).
      type: str
    door:
      description: The door's name; empty for the others.
      type: str
    exceptions:
      description: Of the rest, the foreign rules that let packets in, or send them to another host.
      type: list
      elements: str
    ip_version:
      description: V(ipv4) or V(ipv6).
      type: str
    ruleset:
      description: V(live).
      type: str
    result:
      description:
        - V(proved) if no packet gets to the door's ports from a source that has not knocked and is not trusted, and those from a
          source that has knocked are refused by no rule of the collection; if an allowed port is refused by none; if nothing of the
          rest is let in but by RV(proof[].exceptions).
        - For the connection, V(proved) if no packet is refused that begins a new connection like the one that this is asked
          through, from its address to the same address and port by the interface to which the host routes its answers, after the
          knock, and if each packet of that knock meets the rule that counts it.
        - V(void) if RV(proof[].packet) does or is, by RV(proof[].rule); for the connection only if none gets in, by any interface.
        - V(not proved) if that could not be told.
      type: str
    packet:
      description: A packet that refutes it, or that could not be followed; empty for none.
      type: dict
      contains:
        interface:
          description: The interface that it comes in by.
          type: str
        source:
          description: The address that it comes from.
          type: str
        protocol:
          description: V(tcp) or V(udp).
          type: str
        source_port:
          description: Its source port.
          type: int
        port:
          description: Its destination port.
          type: int
        flags:
          description: Its TCP flags.
          type: list
          elements: str
        state:
          description: What connection tracking calls it, V(NEW) or V(RELATED).
          type: str
    rule:
      description: The rule that decides this packet, or the policy of a chain; empty for none.
      type: str
    message:
      description: The same in a sentence, with what the packet must meet besides; empty if the door is proved.
      type: str
  sample:
    - what: door ssh
      door: ssh
      ip_version: ipv4
      ruleset: live
      result: proved
      packet: {}
      rule: ""
      exceptions: []
      message: ""
published:
  description:
    - How ports that nat publishes on this host, as Docker does, are guarded.
    - V(doors) closes those of doors, V(policy) refuses those that are neither a door's nor allowed as well, V(none) leaves them alone.
      V(none) as well if no door has a port of this host.
  returned: success
  type: str
  sample: doors
refused:
  description: Packets to ports of doors that were refused since the rules were loaded, as their sources had not knocked.
  returned: success
  type: int
wrong_knocks:
  description: Packets that reset a knock in progress since the rules were loaded. V(none) with engine V(knockd), whose knocks the
    kernel does not see.
  returned: success
  type: int
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sesame.portknock.plugins.module_utils._change.info import inspect
from ansible_collections.sesame.portknock.plugins.module_utils._errors import PortknockError
from ansible_collections.sesame.portknock.plugins.module_utils._host.host import require_root, this_host


def main() -> None:
    """Read, and return what was found."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    host = this_host(module)
    try:
        require_root(host)
        module.exit_json(changed=False, **inspect(host))
    except PortknockError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
