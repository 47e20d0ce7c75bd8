#!/usr/bin/python
# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: portknock_host
short_description: Decide what a host needs before its knock ruleset is written
version_added: 1.1.0
description:
  - Reads what matters of a host, in one call - its distribution, kernel, services, other firewalls and live rules - and returns
    what is to be installed, enabled, started and stopped there, and what is refused.
  - Never writes, and does not load a kernel module. The role C(sesame.portknock.portknock) carries out what it returns.
author:
  - sesame.portknock contributors (@sesame)
extends_documentation_fragment:
  - sesame.portknock.attributes.read_only
attributes:
  platform:
    description:
      - Any Linux. It is known how to install on Debian, Ubuntu, RHEL and its rebuilds, and Fedora; the others are refused with
        advice.
    support: full
    platforms: linux
requirements:
  - Python 3.6 or later on the host
options:
  engine:
    description:
      - As in M(sesame.portknock.knock_ruleset).
    type: str
    choices: [iptables, knockd]
    default: iptables
  persist:
    description:
      - As in M(sesame.portknock.knock_ruleset). With V(false) no service is enabled, and nothing is installed for it.
    type: bool
    default: true
  ip_versions:
    description:
      - As in M(sesame.portknock.knock_ruleset).
    type: list
    elements: str
    choices: [ipv4, ipv6]
    default: [ipv4, ipv6]
  conflicting_firewall:
    description:
      - What to do where firewalld, ufw or C(nftables.service) is active or enabled for the next boot.
      - With V(fail) it is refused, with V(disable) it is to be stopped and disabled.
    type: str
    choices: [fail, disable]
    default: fail
seealso:
  - module: sesame.portknock.knock_ruleset
"""

EXAMPLES = r"""
- name: See what the role would do here
  sesame.portknock.portknock_host:
  register: host

- name: Say why it would not
  ansible.builtin.debug:
    msg: "{{ host.refusals }}"
"""

RETURN = r"""
firewalls:
  description: Other firewalls in use, and what is to be done about them.
  returned: success
  type: dict
  contains:
    found:
      description: Those that are active, or enabled for the next boot.
      type: list
      elements: str
    ufw_off:
      description: Whether ufw is to be switched off.
      type: bool
    ufw_removed:
      description: Whether the installation removes the package of ufw.
      type: bool
    disable:
      description: Services to be disabled.
      type: list
      elements: str
    stop:
      description: Those of them to be stopped as well.
      type: list
      elements: str
    note:
      description: What to say about those that are not stopped.
      type: str
install_refusal:
  description: Why nothing may be installed, or an empty string.
  returned: success
  type: str
installations:
  description: What is to be installed, in this order.
  returned: success
  type: list
  elements: dict
  contains:
    packages:
      description: Names of packages.
      type: list
      elements: str
    fallback:
      description: Names to be tried where those are not found.
      type: list
      elements: str
    sample_files:
      description: Rules files to be written before, without rules, where there are none, so that the package's samples are not used.
      type: list
      elements: str
    preseed:
      description: Questions of debconf, as PACKAGE/QUESTION, to be answered with no before.
      type: list
      elements: str
    keep_down:
      description: Services to be stopped and disabled at once.
      type: list
      elements: str
    failure:
      description: What to say where it fails; the package manager's reason comes after it.
      type: str
    advice:
      description: What to do then.
      type: str
  sample:
    - packages: [iptables, iptables-persistent]
      fallback: []
      sample_files: []
      preseed: [iptables-persistent/autosave_v4, iptables-persistent/autosave_v6]
      keep_down: []
      failure: iptables, iptables-persistent could not be installed
      advice: Check that apt-get update and apt-get install work on this host, and run this again.
manager:
  description: The package manager, V(apt), V(dnf) or V(none).
  returned: success
  type: str
may_remove:
  description: Whether the installation may remove packages that exclude what is installed.
  returned: success
  type: bool
refusals:
  description: Why nothing at all may be done on this host, a message each.
  returned: success
  type: list
  elements: str
services:
  description: The services that load the rules at boot.
  returned: success
  type: dict
  contains:
    enable:
      description: Those to be enabled.
      type: list
      elements: str
    start:
      description: Those to be started.
      type: list
      elements: str
    not_installed:
      description: Those to be enabled that are not installed yet.
      type: list
      elements: str
    note:
      description: What to say about those that are not started.
      type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sesame.portknock.plugins.module_utils._host.facts import Machine, read_facts
from ansible_collections.sesame.portknock.plugins.module_utils._host.packages import DISABLE, FAIL, Wanted, decide
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import ENGINES, FAMILIES


def argument_spec() -> dict:
    """Return the options; a test compares those that knock_ruleset and the role have too."""
    return dict(
        engine=dict(type="str", choices=list(ENGINES), default="iptables"),
        persist=dict(type="bool", default=True),
        ip_versions=dict(type="list", elements="str", choices=list(FAMILIES), default=list(FAMILIES)),
        conflicting_firewall=dict(type="str", choices=[FAIL, DISABLE], default=FAIL),
    )


def main() -> None:
    """Read and decide."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    options = dict(module.params, ip_versions=tuple(module.params["ip_versions"]))
    decision = decide(read_facts(Machine(module)), Wanted(**options))
    parts = decision._asdict()
    parts.update(
        installations=[each._asdict() for each in decision.installations],
        firewalls=decision.firewalls._asdict(),
        services=decision.services._asdict(),
    )
    module.exit_json(changed=False, **parts)


if __name__ == "__main__":
    main()
