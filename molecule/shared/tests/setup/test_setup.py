# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a scenario needs before its first playbook; molecule has no better place for it."""

from harness import EPHEMERAL, NAME, hosts_sh


def test_docker_daemon_runs(capfd):
    (EPHEMERAL / "created").unlink(missing_ok=True)
    with capfd.disabled():
        hosts_sh("docker_acquire", NAME)


def test_checkout_can_be_found_as_a_collection():
    assert hosts_sh("collection_link").endswith(".build")
