# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The collection's core as this tree has it, and the rulesets that are measured."""

import os
import random
import sys
import tempfile
from typing import Any

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
OPEN_PORT, FLOW_PORT, CLOSED_PORT = 80, 5000, 64999

EMPTY = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"

MINIMAL = """*filter
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -p icmp -j ACCEPT
-A INPUT -p tcp -m tcp --dport {0} -j ACCEPT
-A INPUT -p udp -m udp --dport {1} -j ACCEPT
-A INPUT -j REJECT --reject-with icmp-port-unreachable
COMMIT
""".format(OPEN_PORT, FLOW_PORT)


def collections_path() -> str:
    """Return a new directory in which this tree is the collection sesame.portknock."""
    path = tempfile.mkdtemp(prefix="portknock-bench-")
    namespace = os.path.join(path, "ansible_collections", "sesame")
    os.makedirs(namespace)
    os.symlink(ROOT, os.path.join(namespace, "portknock"))
    return path


def remove_collections_path(path: str) -> None:
    """Remove it again; only the link goes, not what it leads to."""
    namespace = os.path.join(path, "ansible_collections", "sesame")
    os.unlink(os.path.join(namespace, "portknock"))
    os.removedirs(namespace)


class Core:
    """The functions of the core that are measured."""

    def __init__(self) -> None:
        """Import them from this tree."""
        path = collections_path()
        sys.path.insert(0, path)
        try:
            from ansible_collections.sesame.portknock.plugins.module_utils._iptables import load as _change
            from ansible_collections.sesame.portknock.plugins.module_utils._iptables import plan as _plan
            from ansible_collections.sesame.portknock.plugins.module_utils._knockd import config as _knockd
            from ansible_collections.sesame.portknock.plugins.module_utils._nftables import build as _table
            from ansible_collections.sesame.portknock.plugins.module_utils._nftables import text as _text
            from ansible_collections.sesame.portknock.plugins.module_utils._spec import options as _spec
            from ansible_collections.sesame.portknock.plugins.module_utils._tables import commands as _iptables
        finally:
            sys.path.remove(path)
            remove_collections_path(path)
        self.apply_plans = _change.apply_plans
        self.Iptables = _iptables.Iptables
        self.knockd_config = _knockd.config_text
        self.build_table, self.load_text = _table.build_table, _text.load_text
        self.plan_family = _plan.plan_family
        self.spec_from_options = _spec.spec_from_options

    def rules(self, spec: Any) -> str:
        """Return what is loaded on an empty host, for IPv4, or for both with the engine nftables."""
        if spec.engine == "nftables":
            return str(self.load_text(self.build_table(spec)).text)
        return str(self.plan_family(EMPTY, spec, "ipv4").change)


def door_options(count: int, steps: int = 4) -> dict[str, Any]:
    """Return options with that many doors, every port its own, the same ones in every run."""
    taken = {OPEN_PORT, FLOW_PORT, CLOSED_PORT}
    free = [port for port in range(1024, 64999) if port not in taken]
    ports = iter(random.Random(20).sample(free, count * (steps + 1)))
    doors = [
        {
            "name": "door{0}".format(number),
            "opens": [str(next(ports))],
            "knock": [str(next(ports)) for _step in range(steps)],
        }
        for number in range(count)
    ]
    return {"doors": doors, "allow": [{"port": str(OPEN_PORT)}, {"port": str(FLOW_PORT), "protocol": "udp"}]}
