# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loads every recorded ruleset in a fresh network namespace and compares index.json with what the kernel does.

Sends a real SYN to port 22 from another namespace. Usage (as root): check.py [ID...]
"""

import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
HOST, PEER = "corpus-host", "corpus-peer"
NETWORK = """
ip netns add {h}; ip netns add {p}
ip -n {h} link set lo up
ip -n {h} link add eth0 address 02:00:00:00:00:0a type veth peer name eth0 address 02:00:00:00:00:0b netns {p}
ip -n {h} addr add 198.51.100.10/24 dev eth0; ip -n {h} -6 addr add 2001:db8:100::10/64 dev eth0 nodad
ip -n {p} addr add 203.0.113.77/24 dev eth0; ip -n {p} -6 addr add 2001:db8:77::77/64 dev eth0 nodad
ip -n {h} link set eth0 up; ip -n {p} link set eth0 up
ip -n {h} route add default dev eth0; ip -n {h} -6 route add default dev eth0
ip -n {p} route add default dev eth0; ip -n {p} -6 route add default dev eth0
ip -n {h} neigh replace 203.0.113.77 lladdr 02:00:00:00:00:0b dev eth0
ip -n {h} neigh replace 2001:db8:77::77 lladdr 02:00:00:00:00:0b dev eth0
ip -n {p} neigh replace 198.51.100.10 lladdr 02:00:00:00:00:0a dev eth0
ip -n {p} neigh replace 2001:db8:100::10 lladdr 02:00:00:00:00:0a dev eth0
""".format(h=HOST, p=PEER)
LISTEN = """
import socket
sock = socket.socket(socket.AF_INET6); sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
sock.bind(("::", 22)); sock.listen(16); print("ready", flush=True)
while True: sock.accept()[0].close()
"""
KNOCK = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 22), 1.5).close()
except OSError as problem:
    print("refuse:", problem)
else:
    print("accept")
"""


def run(text, **options):
    return subprocess.run(text, capture_output=True, text=True, check=False, **options)


def clean():
    for name in (HOST, PEER):
        run(["ip", "netns", "del", name])


def inside(name, *command):
    return ["ip", "netns", "exec", name] + list(command)


def load(entry):
    path = os.path.join(HERE, entry["file"])
    if entry.get("ipset"):
        with open(os.path.join(HERE, entry["ipset"])) as sets:
            run(inside(HOST, "ipset", "restore"), stdin=sets)
    tool = "ip6tables" if entry["ip_version"] == 6 else "iptables"
    tool += "-legacy-restore" if entry["backend"] == "legacy" else "-nft-restore"
    with open(path) as rules:
        return run(inside(HOST, tool) + (["--counters"] if entry["counters"] else []), stdin=rules)


def judge(entry):
    address = "2001:db8:100::10" if entry["ip_version"] == 6 else "198.51.100.10"
    listener = subprocess.Popen(inside(HOST, sys.executable, "-c", LISTEN), stdout=subprocess.PIPE)
    try:
        listener.stdout.readline()
        return run(inside(PEER, sys.executable, "-c", KNOCK, address)).stdout.strip()
    finally:
        listener.kill()
        listener.wait()
        listener.stdout.close()


def check(entry):
    """The list of what is wrong."""
    clean()
    result = run(NETWORK, shell=True)
    if result.returncode:
        return ["no network: " + result.stderr]
    result = load(entry)
    if (result.returncode == 0) != entry["loads"]:
        return [
            "loads: index.json says {}, restore says {} {}".format(
                entry["loads"], result.returncode, result.stderr.strip()
            )
        ]
    if entry["loads"] and entry["judged"] == "packet":
        seen = judge(entry)
        if seen.split(":")[0] != entry["decides_ssh"]:
            return ["decides_ssh: index.json says {}, the kernel: {}".format(entry["decides_ssh"], seen)]
    return []


def main():
    with open(os.path.join(HERE, "index.json"), encoding="utf-8") as index:
        entries = [entry for entry in json.load(index) if not sys.argv[1:] or entry["id"] in sys.argv[1:]]
    wrong = 0
    try:
        for entry in entries:
            problems = check(entry)
            wrong += bool(problems)
            print("{:5} {}".format("WRONG" if problems else "ok", entry["file"]), *problems)
    finally:
        clean()
    print("{} rulesets, {} wrong".format(len(entries), wrong))
    return 1 if wrong or not entries else 0


if __name__ == "__main__":
    sys.exit(main())
