#!/usr/bin/python
# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: knock_verify
short_description: Try a host's doors from outside
version_added: 1.0.0
description:
  - Looks, from where it runs, whether each door of a host is closed without a knock, stays closed after a wrong one, opens to the
    right one and is closed again when its window is over; whether allowed ports are open, and everything else is refused; over
    IPv4 and IPv6.
  - It is for the controller, C(delegate_to=localhost). The playbook C(sesame.portknock.verify) and the role with
    C(portknock_verify) run it with all that it needs, and show its rows as a table.
  - What it finds wrong does not make the task fail; look at RV(ok).
  - For the seconds of its window a door that was tried is open to the address it was tried from. Doors are waited for together.
author:
  - sesame.portknock contributors (@sesame)
attributes:
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
      - Any that Ansible's controller runs on. From Linux 5.8 on a refusal by ICMP is told from one by a reset.
    support: full
    platforms: posix
requirements:
  - Python 3.6 or later; the ssh program, to find jump hosts
options:
  host:
    description:
      - The name or address to look at. ssh's own configuration is asked for what it stands for.
    type: str
    required: true
  ssh_args:
    description:
      - Options for the ssh program, for finding aliases and jump hosts. Not asked where O(connection) is no ssh.
    type: str
    default: ""
  connection:
    description:
      - How Ansible reaches the host.
    type: str
    default: ssh
  via:
    description:
      - As C(ansible_knock_via). With V(jump) nothing can be seen from here; V(direct) and V(none) look even if there is a jump host.
    type: str
    choices: [auto, direct, jump, none]
    default: auto
  facts:
    description:
      - What the role's script says of the host's addresses and of the connection; it gives the other family's address and the
        address that the host sees.
    type: str
    default: ""
  told:
    description:
      - The result of M(sesame.portknock.knock_ruleset_info) before.
    type: dict
    default: {}
  told_after:
    description:
      - The result of M(sesame.portknock.knock_ruleset_info) afterwards. With O(observed) it tells a lost knock from others.
    type: dict
    default: {}
  observed:
    description:
      - RV(observed) of an earlier run, to be judged again. Nothing is sent then.
    type: dict
    default: {}
  longest_wait:
    description:
      - Seconds. A door with a longer window is not waited for.
    type: int
    default: 30
  pause:
    description:
      - Seconds between two steps of a knock.
    type: float
    default: 0.1
  doors:
    description:
      - As in M(sesame.portknock.knock_ruleset).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - The door's name.
        type: str
        required: true
      knock:
        description:
          - The steps of the knock.
        type: list
        elements: str
        required: true
      opens:
        description:
          - The ports that it opens. The ends of ranges are tried, four ports at the most; UDP only where there is no TCP.
        type: list
        elements: str
        required: true
      window:
        description:
          - Seconds for which it is open.
        type: int
        default: 15
      step_timeout:
        description:
          - The longest pause between two steps.
        type: int
        default: 5
      sources:
        description:
          - Who may knock. Where this machine may not, the door must stay closed to it.
        type: list
        elements: str
        default: []
      close:
        description:
          - The knock that shuts it.
        type: list
        elements: str
        default: []
      once:
        description:
          - Whether a knock lets in one connection only. Each look uses one up.
        type: bool
        default: false
  policy:
    description:
      - As in M(sesame.portknock.knock_ruleset).
    type: str
    choices: [reject, accept]
    default: reject
  reject_with:
    description:
      - As in M(sesame.portknock.knock_ruleset).
    type: str
    choices: [icmp-port-unreachable, tcp-reset, icmp-admin-prohibited, drop]
    default: icmp-port-unreachable
  allow:
    description:
      - As in M(sesame.portknock.knock_ruleset).
    type: list
    elements: dict
    default: []
    suboptions:
      port:
        description:
          - The port or range.
        type: str
        required: true
      protocol:
        description:
          - The protocol.
        type: str
        choices: [tcp, udp]
      sources:
        description:
          - Whom it is open to.
        type: list
        elements: str
        default: []
      comment:
        description:
          - A remark.
        type: str
        default: ""
  trusted_sources:
    description:
      - As in M(sesame.portknock.knock_ruleset). Where this machine is one of them, nothing can be seen from here.
    type: list
    elements: str
    default: []
  trusted_interfaces:
    description:
      - As in M(sesame.portknock.knock_ruleset).
    type: list
    elements: str
    default: [lo]
  engine:
    description:
      - As in M(sesame.portknock.knock_ruleset). V(knockd) is given a moment to open, and a knock more.
    type: str
    choices: [iptables, knockd]
    default: iptables
  ip_versions:
    description:
      - As in M(sesame.portknock.knock_ruleset).
    type: list
    elements: str
    choices: [ipv4, ipv6]
    default: [ipv4, ipv6]
notes:
  - It cannot see past a jump host, nor for a controller that never needs a knock. Such rows say so.
  - Datagrams are seldom answered, so of a door for UDP it can only tell that a refusal ends with the knock.
seealso:
  - module: sesame.portknock.knock_ruleset
  - module: sesame.portknock.knock_ruleset_info
"""

EXAMPLES = r"""
- name: See who has knocked, and whether the rules are as they were written
  sesame.portknock.knock_ruleset_info:
  register: told

- name: Try the doors
  sesame.portknock.knock_verify:
    host: "{{ ansible_host }}"
    doors: "{{ portknock_doors }}"
    allow: "{{ portknock_allow }}"
    told: "{{ told }}"
  delegate_to: localhost
  become: false
  register: seen

- name: Be sure
  ansible.builtin.assert:
    that: seen.ok
    fail_msg: "{{ seen.problems | join(' ') }}"
"""

RETURN = r"""
look_again:
  description: Whether O(told_after) would tell more.
  returned: success
  type: bool
observed:
  description: What was seen, for O(observed).
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
      description: V(door NAME), V(allow PORT/PROTOCOL), V(rest), V(rules) or V(all).
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
    state:
      description: V(ok), V(wrong), or V(unseen) where it cannot be told from here.
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
      state: ok
      note: ""
summary:
  description: How many rows there are of each state.
  returned: success
  type: dict
  sample: {ok: 6, wrong: 0, unseen: 0}
"""

import contextlib
import random
import shlex

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import (
    PAUSE,
    KnockError,
    resolve,
    send_knock,
    settle_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._client.probe import local_address, output_of, probe
from ansible_collections.sesame.portknock.plugins.module_utils._errors import PortknockError
from ansible_collections.sesame.portknock.plugins.module_utils._redact import without_steps
from ansible_collections.sesame.portknock.plugins.module_utils._spec.argument_spec import argument_spec as ruleset_spec
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from ansible_collections.sesame.portknock.plugins.module_utils._verify import (
    OK,
    UNSEEN,
    WRONG,
    Context,
    Observer,
    Tools,
    find_way,
    host_rows,
    is_address,
    places,
    problems,
    read_facts,
    rows,
    seconds_left,
    unseen_row,
    wants_counters,
)

RULESET = ("doors", "policy", "reject_with", "allow", "trusted_sources", "trusted_interfaces", "ip_versions", "engine")
DUMP_SECONDS = 10


def argument_spec():
    """Return the options; those of the ruleset are the same as knock_ruleset's."""
    ruleset = ruleset_spec()
    return dict(
        {name: ruleset[name] for name in RULESET},
        host=dict(type="str", required=True),
        ssh_args=dict(type="str", default=""),
        connection=dict(type="str", default="ssh"),
        via=dict(type="str", choices=["auto", "direct", "jump", "none"], default="auto"),
        facts=dict(type="str", default=""),
        told=dict(type="dict", default={}),
        told_after=dict(type="dict", default={}),
        observed=dict(type="dict", default={}),
        longest_wait=dict(type="int", default=30),
        pause=dict(type="float", default=PAUSE),
    )


def way_to(options):
    """Ask ssh for what the host's name stands for and whether there is a jump host."""
    text = ""
    if options["connection"].rpartition(".")[2] in ("ssh", "knock_ssh", "smart"):
        words = ["ssh"] + shlex.split(options["ssh_args"]) + ["-G", options["host"]]
        # Without ssh there are no aliases of its either.
        with contextlib.suppress(OSError):
            text = output_of(words, DUMP_SECONDS)
    return find_way(text, options["host"])


def addresses_of(way, facts):
    """Return the addresses of the host that this machine knows, or the one that ssh came in by."""
    if is_address(way.host):
        return (way.host,)
    try:
        return resolve(way.host)
    except KnockError:
        return (facts.server,) if facts.server else ()


def verified(options):
    """Return the result: look, unless something is there to be judged again, and judge."""
    spec = spec_from_options({name: options[name] for name in RULESET})
    facts = read_facts(options["facts"])
    way = way_to(options)
    hidden = options["via"] == "jump" or (options["via"] == "auto" and way.jump)
    found = [] if hidden else places(addresses_of(way, facts), facts, spec, local_address)
    context = Context(
        spec, {place.family: place for place in found}, options["told"], options["told_after"], options["longest_wait"]
    )
    if hidden:
        return result([unseen_row(way.jump)] + host_rows(context), {}, False)
    seen = options["observed"] or observe(options, context, way)
    return result(rows(seen, context), seen, not options["observed"] and wants_counters(seen, context))


def observe(options, context, way):
    """Look at all that can be seen from here."""
    tools = Tools(send_knock, probe, options["pause"], way.source, settle_of(context.spec.engine))
    visible = [place for place in context.places.values() if not place.unseen]
    left = seconds_left(options["told"])
    return Observer(context.spec, visible, tools, context.longest, left, random.SystemRandom().randint).run()


def result(found, seen, look_again):
    """Return the module's result for rows."""
    states = [row["state"] for row in found]
    return dict(
        changed=False,
        look_again=look_again,
        observed=seen,
        ok=WRONG not in states,
        problems=problems(found),
        rows=found,
        summary={state: states.count(state) for state in (OK, WRONG, UNSEEN)},
    )


def main():
    """Look and judge."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=False)
    # As in knock_ruleset: what is returned holds no step by construction, and a step may be a number as short as 7.
    module.no_log_values = set()
    invocation = {"module_args": dict(without_steps(module.params), told={}, told_after={}, observed={})}
    try:
        module.exit_json(invocation=invocation, **verified(module.params))
    except (PortknockError, KnockError) as error:
        module.fail_json(msg=str(error), invocation=invocation)


if __name__ == "__main__":
    main()
