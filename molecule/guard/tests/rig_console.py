# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host as an administrator at its console sees it, whatever its firewall says: through docker."""

import json
import re
import shlex
import subprocess
import time
from collections.abc import Callable
from typing import Any

from harness import COMMON_VARS, DOORS, EPHEMERAL, Visitor

DOOR = DOORS["shell"]
BEFORE = {"policy": "accept", "doors": [DOORS["article"]]}
"""The ruleset from before: port 22 is open to everyone."""

AFTER = {"policy": "reject", "doors": COMMON_VARS["portknock_doors"], "allow": COMMON_VARS["portknock_allow"]}
"""The ruleset that is applied: port 22 is behind a door."""

KEY = EPHEMERAL / "key"
SSH = "-F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
RULES_FILES = ("/etc/iptables/rules.v4", "/etc/iptables/rules.v6")
RUN = "/run/portknock"
_SAVES = "iptables-save -t filter; ip6tables-save -t filter"
# Counters, and the time in comments.
_PASSING = re.compile(r"^#.*\n| \[\d+:\d+\]$", re.M)
_FIRST_KNOCK = str(DOOR["knock"][0])
_BLOCK = f"iptables -t raw -I PREROUTING -p tcp --dport {_FIRST_KNOCK} -j DROP"
_REMEMBER = """
    set -e
    tar -C / -cpf /root/before.tar etc/iptables etc/portknock
    iptables-save -t filter >/root/before.v4
    ip6tables-save -t filter >/root/before.v6
"""
_GO_BACK = f"""
    set -e
    systemctl stop portknock-guard.timer portknock-guard.service 2>/dev/null || true
    systemctl reset-failed
    ln -sf xtables-nft-multi /usr/sbin/iptables-nft-restore
    rm -rf {RUN} /etc/iptables /etc/portknock /run/held
    tar -C / -xpf /root/before.tar
    iptables-restore </root/before.v4
    ip6tables-restore </root/before.v6
    iptables -t raw -F
"""
# The first iptables-restore that --noflush or a snapshot goes through hangs, all later ones do not.
_HANG_ONCE = """
    set -e
    rm /usr/sbin/iptables-nft-restore
    printf '#!/bin/sh\\nmkdir /run/held 2>/dev/null && sleep 99\\nexec xtables-nft-multi iptables-nft-restore "$@"\\n' \
        >/usr/sbin/iptables-nft-restore
    chmod 755 /usr/sbin/iptables-nft-restore
"""


class Target:
    """A container, and the address under which a controller knows it."""

    def __init__(self, name: str, address: str) -> None:
        """Take both."""
        self.name, self.address = name, address
        self.rules_before, self.files_before = "", ""

    def run(self, script: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a script as root; return the finished process."""
        done = subprocess.run(
            ["docker", "exec", self.name, "sh", "-c", script], check=False, capture_output=True, text=True, timeout=600
        )
        assert not check or done.returncode == 0, f"{script}: {done}"
        return done

    def out(self, script: str) -> str:
        """Return what a script prints."""
        return self.run(script).stdout

    # The ruleset and the files

    def remember(self) -> None:
        """Take what is there now for the state before."""
        self.run(_REMEMBER)
        self.rules_before, self.files_before = self.rules(), self.files()

    def go_back(self) -> None:
        """Make it as it was, whatever a test left."""
        self.run(_GO_BACK)
        assert self.is_as_before() and self.files() == self.files_before

    def rules(self) -> str:
        """Return the filter tables in the kernel."""
        return _PASSING.sub("", self.out(_SAVES))

    def files(self) -> str:
        """Return the rules files, byte for byte."""
        return self.out("head -n -0 " + " ".join(RULES_FILES))

    def is_as_before(self) -> bool:
        """Return whether the kernel has the rules from before."""
        return self.rules() == self.rules_before

    def staged(self) -> list[str]:
        """Return the files that wait to be moved into place."""
        return self.out("find /etc -name '.portknock-*'").split()

    # The change that is pending

    def pending(self) -> dict[str, Any] | None:
        """Return the record of the change that waits to be confirmed, or None."""
        text = self.run(f"cat {RUN}/pending.json", check=False).stdout
        return json.loads(text) if text else None

    def waits(self) -> bool:
        """Return whether a change is applied and waits to be confirmed."""
        record = self.pending()
        return record is not None and record["state"] == "applied"

    def last(self) -> dict[str, Any]:
        """Return how the last change ended."""
        return json.loads(self.out(f"cat {RUN}.d/last.json"))

    def guards(self) -> str:
        """Return what is there to undo a change: units, timers and processes."""
        return self.out(
            "systemctl list-units --all --plain --no-legend 'portknock-guard*' 2>/dev/null;"
            "systemctl list-timers --all --no-legend 2>/dev/null | grep portknock;"
            "pgrep -af '[g]uard.zip (wait|rollback)' || true"
        )

    def leftovers(self) -> str:
        """Return what is left of a change that ended, besides the word how it did."""
        return self.guards() + self.out(
            f"find /etc {RUN} -name '.portknock-*' -o -name pending.json -o -path '*/portknock/pending*'"
        )

    def is_tidy(self) -> bool:
        """Return whether that is nothing."""
        return not self.leftovers()

    # Getting in

    def lets_in(self) -> bool:
        """Return whether a new ssh connection gets in now."""
        return ssh(f"root@{self.address}", "echo in") == "in\n"

    def lets_in_after_a_knock(self) -> bool:
        """Return whether port 22 is shut to whoever does not knock, and a new ssh connection gets in after one."""
        visitor = Visitor(self.address)
        visitor.wait_until_shut(22)
        visitor.knock(DOOR["knock"])
        return self.lets_in()

    # Faults

    def lose_knocks(self) -> None:
        """Drop the first packet of each knock, as a firewall on the way would."""
        self.run(_BLOCK)

    def pass_knocks(self) -> None:
        """Stop that."""
        self.run(_BLOCK.replace("-I", "-D"))

    def hang_once(self) -> None:
        """Make the next iptables-restore hang; those behind it do not."""
        self.run(_HANG_ONCE)

    def stop_rollback(self) -> None:
        """Have the program that undoes sent SIGSTOP as soon as its timer has started it; it hangs then."""
        python = "pgrep -f '^[^ ]*python[^ ]* .*guard.zip rollback'"
        script = f"until pid=$({python}); do sleep 0.01; done; kill -STOP $pid; touch /run/held"
        self.run(f"timeout 100 sh -c {shlex.quote(script)} >/dev/null 2>&1 &")

    def hangs(self) -> bool:
        """Return whether what was to hang does so now."""
        return self.run("test -e /run/held", check=False).returncode == 0

    # Without systemd

    def start_bare(self, image_of: str, network: str) -> None:
        """Start it as a container whose only process sleeps, and install iptables."""
        image = subprocess.run(
            ["docker", "inspect", "--format", "{{.Config.Image}}", image_of], check=True, capture_output=True, text=True
        ).stdout.strip()
        self.remove()
        subprocess.run(
            ["docker", "run", "--detach", "--name", self.name, "--network", network, "--cap-add", "NET_ADMIN",
             "--tmpfs", "/run", "--label", "sesame.portknock.host=1", "--entrypoint", "sleep", image, "infinity"],
            check=True, capture_output=True,
        )  # fmt: skip
        self.run("mkdir -p /run/lock; apt-get -qq install --no-install-recommends iptables")

    def remove(self) -> None:
        """Remove the container, if it is there."""
        subprocess.run(["docker", "rm", "--force", "--volumes", self.name], check=False, capture_output=True)


def ssh(where: str, command: str) -> str:
    """Run a command over a connection of plain ssh that shares nothing with any play's; return what it prints."""
    words = ["ssh", *SSH.split(), "-o", "ConnectTimeout=10", "-i", str(KEY), where, command]
    return subprocess.run(words, check=False, capture_output=True, text=True, timeout=200).stdout


def soon(happened: Callable[[], bool], seconds: int = 100) -> bool:
    """Wait until something is so; return whether it came to be in time."""
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            return False
        time.sleep(0.25)
    return True
