#!/usr/bin/python
# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: knock_ruleset
short_description: Keep services closed until a client knocks, with iptables
version_added: 1.0.0
description:
  - Writes a port-knocking ruleset for iptables and ip6tables in the right order and restores it at boot.
  - Every change of the rules is a transaction that only a new connection can confirm. If it is not confirmed within
    O(guard_timeout) seconds it is rolled back on the host, by a timer or process that goes on when the play, the session or the
    controller ends. A boot never loads what was not confirmed.
  - All rules are in chains of their own, with three hooks in C(INPUT). For packets that are sent on there is one in C(FORWARD), one in
    C(DOCKER-USER), a chain that is made where it is missing, and one in C(PREROUTING) of table nat; where a door is good for one
    connection or is logged also one in C(POSTROUTING). No foreign rule or chain is changed, moved or deleted; the hooks stand where the
    doors are closed whatever the other rules say.
  - The whole ruleset of a family is loaded in one step; sources that have knocked are still known after it.
  - The role P(sesame.portknock.portknock#role) installs what this module needs and calls it once.
author:
  - sesame.portknock contributors (@sesame)
extends_documentation_fragment:
  - sesame.portknock.ruleset
  - sesame.portknock.metrics
  - sesame.portknock.findings
options:
  icmp:
    description:
      - Answer ping. The ICMPv6 that IPv6 needs to work is always accepted.
    type: bool
    default: true
  knockd_interface:
    description:
      - The interface that knockd listens on. If empty, that of the default route, which must be the same for IPv4 and IPv6.
      - Only for O(engine=knockd).
    type: str
    default: ""
  list_size:
    description:
      - Sources remembered per door and stage. The kernel's own default of 100 lets a hundred forged packets push a real knock out.
      - Takes effect if xt_recent is a module, at once if it is not loaded yet, otherwise at the next boot. The value in force
        is read from the kernel, and a smaller one is returned as a finding.
      - With O(engine=nftables), sources that each set holds; the default then stands for 1048576 sources in the middle of a knock,
        and 65536 who have a door open, and more than 4096 is rounded up to a multiple of 65536. A set that is there keeps its size.
    type: int
    default: 4096
  log:
    description:
      - Log the connections that a door accepts (C(portknock opened:)) and refuses (C(portknock refused:)), ten lines a minute at
        most.
      - With O(engine=knockd), knockd also logs to the journal how many steps a source has done.
      - The lines never hold a knock port.
    type: bool
    default: false
  persist:
    description:
      - Restore the ruleset at boot, from the distribution's own rules files, with a unit that closes the doors and fails if
        those did not load. The service that loads them is enabled when the change is confirmed; it is not started.
      - Refused if such a file would not load, or would not let this connection in again.
      - With V(false), what was kept before is removed.
    type: bool
    default: true
  conflicting_firewall:
    description:
      - What to do if firewalld, ufw or C(nftables.service) is active or enabled for the next boot.
      - With V(fail) nothing is done. With V(disable) it is stopped together with the change, and disabled when the change is
        confirmed; if the change is rolled back, it runs as before.
      - C(nftables.service) is not stopped if there are rules of iptables, because stopping it flushes them.
    type: str
    choices: [fail, disable]
    default: fail
  guard:
    description:
      - Roll a change of the rules back unless a new connection from the controller confirms it.
      - Over a connection without a network, such as C(local) or C(docker), the confirmation proves nothing; the result says so.
      - With V(false) the change is confirmed at once, with a warning. If it fails, it is still undone whole.
    type: bool
    default: true
  guard_timeout:
    description:
      - Seconds, 5 to 600, that a change may go unconfirmed. Measured on the host, from just before the rules are loaded.
      - It is the limit for all tries of the controller, so it must be longer than the knock and two connects.
    type: int
    default: 30
  guard_id:
    description:
      - Names the change. The action plugin sets it.
    type: str
    default: ""
  guard_owner:
    description:
      - Who makes the change, for other runs that find it pending. The action plugin sets it.
    type: str
    default: ""
  state:
    description:
      - V(absent) removes everything that this module has written, from the kernel and the files, and leaves the rest as it was.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    description: Writes nothing, loads nothing, leaves no file. Works even if iptables is not installed yet.
    support: full
  diff_mode:
    description: Shows rules before and after, in short; with C(-v) files as well. Steps are left out.
    support: full
  idempotent:
    description: Nothing changes if the ruleset is as it should be. What was changed by hand is put right.
    support: full
  platform:
    description: Linux with iptables 1.8.4 or later, nft or legacy, or with nft 0.9.3 or later.
    support: full
    platforms: linux
requirements:
  - Python 3.6 or later on the host
  - iptables 1.8.4 or later; with O(engine=nftables) nft 0.9.3 or later and Linux 5.4 instead
  - with O(engine=knockd), knockd 0.8 or later, C(ip) of iproute2, and systemd
notes:
  - On the host, C(portknock status) shows what is pending, C(portknock confirm) confirms it and C(portknock rollback) rolls it back.
  - To confirm, the action plugin knocks with the steps of O(doors) if the connection's port is behind one. The variable
    C(ansible_knock_pause) sets the seconds between two steps.
  - With O(policy=reject) over ssh, a ruleset that would accept no new connection to the connection's own port is refused.
seealso:
  - module: sesame.portknock.knock_ruleset_info
"""

EXAMPLES = r"""
- name: Keep ssh closed until a client knocks
  sesame.portknock.knock_ruleset:
    doors:
      - name: ssh
        knock: "{{ vault_knock }}" # such as ["7144", "2791/udp", "9318"]
        opens: ["22"]
    allow:
      - port: 443
        comment: the web shop
    trusted_sources:
      - 192.0.2.10

- name: Close only the doors' ports, leave the rest as it is
  sesame.portknock.knock_ruleset:
    policy: accept
    doors:
      - name: admin
        knock: "{{ vault_knock }}"
        opens: [8443, 9000-9010]
        window: 30
        sources: [198.51.100.0/24]

- name: Remove it all again
  sesame.portknock.knock_ruleset:
    state: absent
"""

RETURN = r"""
backend:
  description: The backend that the iptables commands of the host use, empty with O(engine=nftables).
  returned: success
  type: str
  sample: nft
closes:
  description:
    - Listening ports that cannot be reached from outside any more under the new ruleset, and could before; the port of the tunnel that
      this connection comes through is the first. Empty where the rules do not change.
    - Programs that listen for the host itself alone are left out, as are those that need no knock from a trusted interface.
  returned: success
  type: list
  elements: dict
  contains:
    port: {description: The port., type: int}
    protocol: {description: V(tcp) or V(udp)., type: str}
    process:
      description: The name of the process that listens, empty where it is the kernel itself, as with WireGuard; C(nat) for a published port
        that the policy closes, with O(published=policy), and on which no process listens.
      type: str
    address:
      description: The address that it listens on, V(0.0.0.0) or V(::) for all.
      type: str
  sample: [{port: 5432, protocol: tcp, process: postgres, address: 0.0.0.0}]
engine:
  description: What recognises the knocks, empty with O(state=absent).
  returned: success
  type: str
  sample: iptables
findings:
  description:
    - What an operator should know, the worst first - what is not guarded, what may undo the doors later, foreign rules that lost
      their effect.
    - The file C(docs/findings.md) of the collection says what each kind means, and what to do.
  returned: success
  type: list
  elements: dict
  contains:
    kind:
      description:
        - One of V(broad_trust), V(connection_unguarded), V(doors_gone), V(family_open), V(knockd), V(limited),
          V(list_shared), V(list_size), V(lost_effect), V(may_be_unguarded), V(native_table), V(native_unknown),
          V(not_loaded_at_boot), V(not_persisted), V(nothing_listens), V(only_at_boot), V(other_backend),
          V(other_firewall), V(policy_drop), V(protocol_refused), V(saves_on_stop), V(single_step), V(tunnel_closes),
          V(unguarded), V(untracked), V(void).
      type: str
    severity:
      description:
        - V(error) if the doors or the way in are not what was asked for, V(warning) if they may not be, or not for long, V(info) if
          nothing needs to be done for them.
      type: str
    acknowledged:
      description: Whether its kind is one of O(acknowledge).
      type: bool
    ip_version:
      description: V(ipv4), V(ipv6), or empty if it concerns both.
      type: str
    rule:
      description: The foreign rule that it is about, or empty.
      type: str
    message:
      description: What is so, and what to do now.
      type: str
  sample:
    - kind: lost_effect
      severity: info
      acknowledged: false
      ip_version: ipv4
      rule: -A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
      message: accepts everyone on ports of door ssh; the doors now decide before it, so there it has no effect.
guard:
  description: How the change was confirmed, or why not.
  returned: when not in check mode
  type: dict
  contains:
    state:
      description:
        - V(confirmed); V(unproved), confirmed as well, over a connection that proves nothing; V(rolled_back).
        - V(not_needed) if no rule in the kernel had to change; V(off) with O(guard=false).
        - V(unknown) if it could not be seen how the change ended - no connection to the host was possible any more, and it rolls back by
          itself; or the host can be reached and does not say it, for instance because Python was removed there; or it knows nothing
          of the change although it was not restarted.
      type: str
    proof:
      description: The new connection that confirmed the change.
      type: str
    seconds:
      description: From the answer of the module to the end.
      type: float
    tries:
      description: How many new connections were tried.
      type: int
    knocked:
      description: The door that was knocked at before each of them, or empty.
      type: str
    agent:
      description: What would have rolled back on the host - V(systemd), a transient timer and a process, or V(process), that alone.
      type: str
    undo:
      description:
        - V(exact) if only what the change had touched was put back, V(snapshot) if that could not be loaded any more and the
          whole filter table was restored, V(emptied) if the ruleset could not be read, so that the collection's chains were
          emptied and refuse nothing any more. Empty if nothing was undone.
      type: str
  sample:
    state: confirmed
    proof: a new connection from 192.0.2.7 port 50122 to port 22
    seconds: 0.912
    tries: 1
    knocked: ssh
    agent: systemd
    undo: ""
ip_versions:
  description: The IP versions that are managed on this host.
  returned: success
  type: list
  elements: str
  sample: [ipv4, ipv6]
pending:
  description: The pending change of another run, because of which nothing was done.
  returned: when there is one
  type: dict
  contains:
    id: {description: Its id., type: str}
    owner: {description: Who makes it., type: str}
    seconds_left: {description: "Seconds until it is rolled back, if it is not confirmed.", type: int}
permissions:
  description: The files of which the permissions alone are not as they should be, and why that matters, a line for each. Programs
    that save rules, such as C(netfilter-persistent save), write them anew with permissions of their own.
  returned: success
  type: list
  elements: str
  sample: ["/etc/iptables/rules.v4 has mode 0640 instead of 0600: it may hold steps of knocks, which only root may read"]
proof:
  description: What the prover says of doors, allowed ports, the rest and this connection under what would be in the kernel, V(live), and
    what the next boot would load, V(boot), as M(sesame.portknock.knock_ruleset_info) returns it. The engine V(nftables) loads the
    same text at boot, so there is no V(boot) of it.
  returned: success
  type: list
  elements: dict
services:
  description: The services that the change stops, disables and enables, without the suffix; empty lists if there are none.
  returned: success
  type: dict
  sample: {stop: [firewalld], disable: [firewalld], enable: [netfilter-persistent]}
summary:
  description: What the ruleset does, in words, a line for each thing. Empty with O(state=absent).
  returned: success
  type: list
  elements: str
  sample: ["door ssh: 22/tcp closed; opens for 15 s to the address that knocked", "everything else: refused (policy reject)"]
rolled_back:
  description:
    - Whether the change was made and was seen to be rolled back, in what the host says or because it was restarted meanwhile.
    - V(false) as well where RV(guard.state) is V(unknown).
  returned: when not in check mode
  type: bool
"""

from ansible_collections.sesame.portknock.plugins.module_utils._change.compiled import keep_compiled


def main() -> None:
    """Plan, and unless it is check mode, change."""
    # Before all other imports, ansible-core's own as well: they take most of the time of a run that changes nothing.
    keep_compiled()
    from ansible_collections.sesame.portknock.plugins.module_utils._run import main as run

    run()


if __name__ == "__main__":
    main()
