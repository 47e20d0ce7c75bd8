#!/usr/bin/python
# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: portknock_host
short_description: Decide what a host needs before its knock ruleset is written
version_added: 1.1.0
description:
  - Reads what matters of a host, in one call - its distribution, kernel, services and other firewalls - and returns what is to be
    installed there, and what is refused. What M(sesame.portknock.knock_ruleset) changes of services is not its business.
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
    choices: [iptables, knockd, nftables]
    default: iptables
  persist:
    description:
      - As in M(sesame.portknock.knock_ruleset). With V(false) nothing is installed for it.
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
      - As in M(sesame.portknock.knock_ruleset). With V(fail) such a host is refused before anything is installed, with V(disable) a
        package may be removed that excludes what is needed.
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
  description: Other firewalls in use. M(sesame.portknock.knock_ruleset) switches them off, if it is to.
  returned: success
  type: dict
  contains:
    found:
      description: Those that are active, or enabled for the next boot.
      type: list
      elements: str
    ufw_removed:
      description: Whether the installation of C(iptables-persistent) removes the package of ufw.
      type: bool
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
      keep_down: [netfilter-persistent]
      failure: iptables, iptables-persistent could not be installed
      advice: Check that apt-get update and apt-get install work on this host, and run this again.
later:
  description:
    - What is to be installed once the rules are kept, as RV(installations). C(iptables-persistent), where its package removes
      that of ufw.
  returned: success
  type: list
  elements: dict
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
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sesame.portknock.plugins.module_utils._host.facts import Machine, read_facts
from ansible_collections.sesame.portknock.plugins.module_utils._host.other_firewalls import DISABLE, FAIL
from ansible_collections.sesame.portknock.plugins.module_utils._host.packages import Wanted, decide
from ansible_collections.sesame.portknock.plugins.module_utils._spec.choices import ENGINES, FAMILIES


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
        later=[each._asdict() for each in decision.later],
        firewalls=decision.firewalls._asdict(),
    )
    module.exit_json(changed=False, **parts)


if __name__ == "__main__":
    main()
