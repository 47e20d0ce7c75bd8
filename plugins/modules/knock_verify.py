#!/usr/bin/python
# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: knock_verify
short_description: Try a host's doors from outside
version_added: 1.0.0
description:
  - Looks, from the controller, whether each door of a host is closed without a knock, stays closed after a wrong one, opens to the
    right one and is closed again when its window is over; whether allowed ports are open, and everything else is refused; over
    IPv4 and IPv6.
  - Asks the host, over the play's connection, for its addresses and for what M(sesame.portknock.knock_ruleset_info) returns. A host
    that cannot be reached because its door is closed is tried all the same.
  - The host's name or address, ssh's own configuration, and the variables C(ansible_knock_host), C(ansible_knock_pause) and
    C(ansible_knock_via) are those of the connection. With C(ansible_knock_via=jump) nothing can be seen from the controller.
  - What it finds wrong does not make the task fail; look at RV(ok).
  - For the seconds of its window a door that was tried is open to the address it was tried from. The windows run side by side.
  - The playbook C(sesame.portknock.verify), and the role with C(portknock_verify), run it and show its rows as a table.
author:
  - sesame.portknock contributors (@sesame)
extends_documentation_fragment:
  - sesame.portknock.ruleset
attributes:
  action:
    description: Looks from the controller.
    support: full
  check_mode:
    description: It would have to knock, so it is left out.
    support: none
  diff_mode:
    description: Changes nothing, so there is no diff.
    support: none
  idempotent:
    description: Changes nothing.
    support: full
  platform:
    description:
      - Any that Ansible's controller runs on. From Linux 5.8 on a refusal by ICMP is distinguished from one by a reset.
    support: full
    platforms: posix
options:
  longest_wait:
    description:
      - Seconds. A door with a longer window is not waited for.
    type: int
    default: 30
notes:
  - Of C(doors[].opens) the ends of ranges are tried, four ports at the most, UDP only where there is no TCP. A door with
    C(doors[].sources) that leave the controller out must stay closed to it. With C(doors[].once) each look uses a knock up.
  - Where the controller is one of O(trusted_sources), nothing can be seen from it.
  - With O(engine=knockd) the host is given a moment to open, and one knock more.
  - It cannot see past a jump host, nor for a controller that never needs a knock. Such rows say so.
  - Datagrams are seldom answered, so of a door for UDP only the end of the refusals after the knock can be seen.
seealso:
  - module: sesame.portknock.knock_ruleset
  - module: sesame.portknock.knock_ruleset_info
"""

EXAMPLES = r"""
- name: Try the doors
  sesame.portknock.knock_verify:
    doors: "{{ portknock_doors }}"
    allow: "{{ portknock_allow }}"
  become: true
  register: seen

- name: Fail if a door is not as it should be
  ansible.builtin.assert:
    that: seen.ok
    fail_msg: "{{ seen.problems | join(' ') }}"
"""

RETURN = r"""
observed:
  description: What was seen, by door, family and moment. It holds no step.
  returned: success
  type: dict
ok:
  description: Whether everything that could be seen is as it should be.
  returned: success
  type: bool
problems:
  description: What is wrong, and what to do, a sentence or two each.
  returned: success
  type: list
  elements: str
rows:
  description: One for every door and family, every allowed port, everything else, and the host's rules where there is something to say.
  returned: success
  type: list
  elements: dict
  contains:
    what:
      description: V(door NAME), V(allow PORT/PROTOCOL), V(rest), V(connection), V(rules) or V(all).
      type: str
    ip_version:
      description: V(ipv4), V(ipv6), or empty where it concerns both.
      type: str
    without:
      description: What is seen without a knock.
      type: str
    wrong:
      description: What is seen after a wrong knock.
      type: str
    right:
      description: What is seen after the right knock.
      type: str
    later:
      description: What is seen when the window is over.
      type: str
    proof:
      description:
        - What the host's prover says of a door, or of a new connection like the one that it was asked through, V(proved), V(void) or
          V(not proved); V(-) where it says nothing.
        - If it found a packet that gets in without the knock, the row is wrong, whatever this controller saw.
      type: str
    state:
      description: V(ok), V(wrong), or V(unseen) where it cannot be seen from the controller.
      type: str
    note:
      description: What is wrong and what to do, or what else there is to say.
      type: str
  sample:
    - what: door ssh
      ip_version: ipv4
      without: refused (icmp 3/3)
      wrong: refused (icmp 3/3)
      right: open
      later: refused (icmp 3/3)
      proof: proved
      state: ok
      note: ""
summary:
  description: How many rows there are of each state.
  returned: success
  type: dict
  sample: {ok: 6, wrong: 0, unseen: 0}
"""
