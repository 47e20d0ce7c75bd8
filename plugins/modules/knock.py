#!/usr/bin/python
# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: knock
short_description: Knock at a host, and wait for a port to open
version_added: 1.0.0
description:
  - Sends a knock from the machine that it runs on, which most often is the controller (C(delegate_to=localhost)).
  - A TCP step is one SYN and a UDP step one datagram, to every address that the host's name has. Whether the host refuses a step
    or drops it makes no difference.
  - Needs no privileges. Steps are never returned.
author:
  - sesame.portknock contributors (@sesame)
options:
  host:
    description:
      - The name or address to knock at.
    type: str
    required: true
  knock:
    description:
      - The steps of the knock in their order, 1 to 8 of V(PORT), V(PORT/tcp) or V(PORT/udp). The protocol is TCP if it is not
        given.
      - The steps are secret. Keep them in Ansible Vault.
    type: list
    elements: str
    required: true
  pause:
    description:
      - Seconds between two steps, 0 to 60, so that the second does not overtake the first. Less if the host answers.
      - Measured with one packet in four delayed by up to 100 ms - with the default no knock of three steps failed, with half of it
        every sixth did, without a pause every third.
    type: float
    default: 0.1
  engine:
    description:
      - What recognises the knock on the host, C(portknock_engine) there. V(knockd) needs a moment after the last step, so the
        module waits 0.1 seconds; and if a knock did not open O(wait_for), the next one is sent so that knockd forgets what was
        left of it.
    type: str
    choices: [iptables, knockd, nftables]
    default: iptables
  ip_version:
    description:
      - Which of the host's addresses to knock at. V(any) is all of them.
    type: str
    choices: [any, ipv4, ipv6]
    default: any
  wait_for:
    description:
      - A TCP port that must open. The task fails if it does not, and says why, as far as the answers tell.
      - It is a new connection that is closed at once. For a door with C(once) it is the one that the knock lets in.
      - On Linux it is never made to the end, so that the service does not know. That matters to sshd, which since OpenSSH 9.8 shuts
        out a source for a while whose connections do not log in (C(PerSourcePenalties)). Elsewhere prove the port of sshd by a login,
        with M(ansible.builtin.wait_for_connection).
      - Because a packet can get lost, each further try begins with a new knock.
    type: dict
    suboptions:
      port:
        description:
          - The port.
        type: int
        required: true
      timeout:
        description:
          - Seconds for all tries, 1 to 3600.
        type: int
        default: 10
attributes:
  check_mode:
    description: Sends nothing. The options are checked and the name is looked up.
    support: full
  diff_mode:
    description: A knock must not be shown.
    support: none
  idempotent:
    description: A knock is sent every time.
    support: none
  platform:
    description: POSIX.
    support: full
    platforms: posix
requirements:
  - Python 3.6 or later on the machine that it runs on
notes:
  - The connection plugin P(sesame.portknock.knock_ssh#connection) knocks by itself, before each new connection.
seealso:
  - module: sesame.portknock.knock_ruleset
  - plugin: sesame.portknock.knock_ssh
    plugin_type: connection
  - module: ansible.builtin.wait_for
"""

EXAMPLES = r"""
- name: Knock at the host, and wait until its ssh port is open
  sesame.portknock.knock:
    host: "{{ ansible_host }}"
    knock: "{{ vault_knock }}"
    wait_for:
      port: 22
  delegate_to: localhost

- name: Open the web server's door for the application server
  sesame.portknock.knock:
    host: web.example.org
    knock: [7144, 2791/udp, 9318]
    ip_version: ipv4
  delegate_to: app.example.org
"""

RETURN = r"""
addresses:
  description: The addresses that were knocked at, or in check mode would be.
  returned: success
  type: list
  elements: str
  sample: ["192.0.2.11", "2001:db8::11"]
seconds:
  description: How long all of it took.
  returned: success, or when the port did not open
  type: float
  sample: 0.214
opened:
  description: How the port of O(wait_for) opened, empty if none was to open.
  returned: success
  type: dict
  contains:
    address:
      description: The address that accepted the connection.
      type: str
    seconds:
      description: The seconds after the first knock.
      type: float
    tries:
      description: How many knocks there were.
      type: int
  sample: {"address": "192.0.2.11", "seconds": 0.012, "tries": 1}
"""

import socket
import time
from typing import Any, Dict, Sequence

from ansible_collections.sesame.portknock.plugins.module_utils._client import half_open
from ansible_collections.sesame.portknock.plugins.module_utils._client.answers import ABOUT_THE_KNOCK, describe, verdict
from ansible_collections.sesame.portknock.plugins.module_utils._client.connect import (
    AS_PROBED,
    NotOpenError,
    Sockets,
    connect_after_knock,
)
from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import (
    ENGINES,
    PAUSE,
    KnockError,
    Steps,
    resolve,
    send_knock,
    settle_of,
    steps_of_turn,
)
from ansible_collections.sesame.portknock.plugins.module_utils._client.probe import compare, local_address
from ansible_collections.sesame.portknock.plugins.module_utils._errors import PortknockError, SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._host.basic import SecretiveModule
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import DEFAULTS
from ansible_collections.sesame.portknock.plugins.module_utils._spec.values import read_steps

FAMILIES = {"any": "any", "ipv4": "inet", "ipv6": "inet6"}
HIDDEN = "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"
LOOK_SECONDS = 1.5
"""Seconds to find out why a port did not open: the kernel repeats a SYN after one."""
_CHECK = (
    " Check the steps and their order, the engine, and that the knock reaches the host from the address that it expects: "
    "NAT may change it, and the door's sources may leave it out."
)


def argument_spec() -> Dict[str, Any]:
    """Return the argument spec. Steps are no_log, so they do not show in the journal either."""
    wait_for = dict(port=dict(type="int", required=True), timeout=dict(type="int", default=10))
    return dict(
        host=dict(type="str", required=True),
        knock=dict(type="list", elements="str", required=True, no_log=True),
        pause=dict(type="float", default=PAUSE),
        engine=dict(type="str", choices=list(ENGINES), default=DEFAULTS["engine"]),
        ip_version=dict(type="str", choices=list(FAMILIES), default="any"),
        wait_for=dict(type="dict", options=wait_for),
    )


def check_options(options: Dict[str, Any]) -> Steps:
    """Return the steps.

    :raises SpecError: for the first option that is not valid; never shows a step.
    """
    steps: Steps = read_steps(options["knock"], "knock", 1)
    _check_range("pause", options["pause"], 0, 60, "seconds")
    if options["wait_for"]:
        _check_range("wait_for.port", options["wait_for"]["port"], 1, 65535, "a port")
        _check_range("wait_for.timeout", options["wait_for"]["timeout"], 1, 3600, "seconds")
    return steps


def _check_range(option: str, value: float, least: float, most: float, what: str) -> None:
    # The other way round it would let NaN through.
    if not least <= value <= most:
        raise SpecError(option, f"{value} is out of range. Give {what}, {least} to {most}.")


def knock_and_wait(options: Dict[str, Any], steps: Steps, addresses: Sequence[str]) -> Dict[str, Any]:
    """Knock, wait for the port if there is one, and return the result's value of ``opened``."""
    engine = options["engine"]

    def knock(turn: int) -> None:
        these = steps_of_turn(steps, turn, engine)
        send_knock(addresses, these, options["pause"], settle=settle_of(engine))

    wanted = options["wait_for"]
    if not wanted:
        knock(0)
        return {}
    opened = connect_after_knock(knock, addresses, wanted["port"], wanted["timeout"], sockets=_Looks())
    opened.socket.close()
    return dict(address=opened.address, seconds=round(opened.seconds, 3), tries=opened.tries)


class _Looks(Sockets):
    """Looks at a port without making a connection, where this system can."""

    def connect(self, address: str, port: int, patience: float, banner: float) -> socket.socket:
        """Return a socket, connected only where that had to be."""
        if half_open.look(address, port, patience):
            return socket.socket()
        return super().connect(address, port, patience, banner)


def explain(options: Dict[str, Any], error: NotOpenError, steps: Steps) -> str:
    """Return the sentences about a port that did not open, which is looked at once more for them."""
    wanted = options["wait_for"]
    verdicts = {address: _why_not(address, wanted["port"], reason, steps) for address, reason in error.reasons.items()}
    knocks = f"{error.tries} knock{'s' if error.tries > 1 else ''}"
    return (
        f"port {wanted['port']} of {options['host']} did not open within {wanted['timeout']} s and {knocks}: "
        f"{describe(verdicts)}.{_CHECK if ABOUT_THE_KNOCK & set(verdicts.values()) else ''}"
    )


def _why_not(address: str, port: int, reason: str, steps: Steps) -> str:
    before = AS_PROBED.get(reason, "unreachable")
    answer, closed = compare((address, port, "tcp"), steps, LOOK_SECONDS, "", before)
    return verdict(answer, closed, routed=bool(local_address(address)))


def main() -> None:
    """Check, and unless it is check mode, knock."""
    module = SecretiveModule(argument_spec=argument_spec(), supports_check_mode=True)
    # The journal has been written with the steps masked. What is returned holds none by construction, and
    # masking every text that looks like a step would spoil the result: a step may be a number as short as 7.
    module.no_log_values = set()
    options = module.params
    invocation = {"module_args": dict(options, knock=HIDDEN)}
    began = time.monotonic()
    try:
        steps = check_options(options)
        addresses = resolve(options["host"], FAMILIES[options["ip_version"]])
        opened = {} if module.check_mode else knock_and_wait(options, steps, addresses)
    except NotOpenError as error:
        seconds = round(time.monotonic() - began, 3)
        module.fail_json(msg=explain(options, error, steps), changed=True, seconds=seconds)
    except (KnockError, PortknockError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=True, addresses=list(addresses), seconds=round(time.monotonic() - began, 3), opened=opened,
        invocation=invocation,
    )  # fmt: skip


if __name__ == "__main__":
    main()
