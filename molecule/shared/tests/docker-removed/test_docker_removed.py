# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""After the removal: what Docker publishes is as open as before, and its chains are its own again."""


def test_port_is_open_to_everyone(visitor, stranger):
    assert visitor.finds_open(8080)
    assert stranger.finds_open(8080)


def test_rules_are_docker_s_alone(host):
    # There is no nft where the engine is another one.
    rules = host.check_output("iptables-save; ip6tables-save") + host.run("nft list tables").stdout
    assert "portknock" not in rules.lower()
    assert ":DOCKER-USER" in rules
    assert "-A DOCKER-USER -j RETURN" in rules.splitlines()
