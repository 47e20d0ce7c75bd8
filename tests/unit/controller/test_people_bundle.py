# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The directory for one person or machine: what is in it, for whom it is readable, and what is left out of it."""

import os
import re
import stat
import subprocess
import sys
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

pytest.importorskip("ansible", reason="it runs on controllers, and this Python has no ansible-core")

from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.plugin_utils._people import gather, page
from ansible_collections.sesame.portknock.plugins.plugin_utils._people.bundle import write_bundle
from shown_steps import steps_in

KNOCK = ["17005", "19100/udp"]


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Return a function that writes a bundle for hosts, given by their variables; the result, and the texts by name."""
    monkeypatch.setattr(gather.socket, "getaddrinfo", lambda *_words: [])
    monkeypatch.chdir(tmp_path)

    def run(person="anna", dry=False, program="auto", directory="", config="", **hosts):
        (tmp_path / "config").write_text(config)
        known = {name: dict(variables, ansible_knock=KNOCK) for name, variables in hosts.items()}
        options = {
            "hosts": list(known), "directory": directory, "program": program, "ssh_config": str(tmp_path / "config"),
            "person": person,
        }  # fmt: skip
        result = write_bundle(options, known, dry)
        assert steps_in(["17005", "19100"], str(result)) == []
        folder = tmp_path / (directory or f"portknock-{person}")
        paths = [path for path in folder.rglob("*") if path.is_file()]
        assert {stat.S_IMODE(path.stat().st_mode) for path in paths} <= {0o600}
        return result, {str(path.relative_to(folder)): path.read_text() for path in paths}

    return run


def test_what_is_in_it(write, tmp_path):
    result, files = write(dry=True, web1={})
    assert (result["changed"], files) == (True, {})
    variables = {
        "ansible_host": "192.0.2.7", "ansible_user": "deploy", "ansible_port": 2222,
        "ansible_ssh_private_key_file": "/home/me/.ssh/mine",
        "ansible_ssh_common_args": "-o ServerAliveInterval=7 -o UserKnownHostsFile=/k -o ControlPersist=60",
    }  # fmt: skip
    result, files = write(config="Host *\n    ForwardAgent yes\n", web1=variables)
    folder = tmp_path / "portknock-anna"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert result["messages"] == [
        f"The bundle for anna is in {folder}: portknock.html (or portknock.txt) says how to use it. It holds the knocks of 1 "
        "host(s), so hand it over in a way that others cannot read, and delete it here."
    ]
    assert {name for name, text in files.items() if steps_in(["17005", "19100"], text)} == {
        "knocks", "portknock.html", "portknock.txt",
    }  # fmt: skip
    assert files["knocks"] == "web1 iptables 0.1 - 17005/tcp 19100/udp\n"
    block = "Host web1\n    HostName 192.0.2.7\nHost web1 192.0.2.7\n    Port 2222\n    User deploy\n    serveraliveinterval 7\n"
    command = "bash ~/.ssh/portknock-anna/portknock-connect.sh web1 %h %p"
    assert files["config"].endswith(f"\n\n{block}    ProxyCommand {command}\n    ProxyUseFdpass no\n")
    assert "#   Include portknock-anna/config\n" in files["config"]
    assert block in files["windows.config"]
    assert (
        "    ProxyCommand C:\\Windows\\System32\\WindowsPowerShell\\v1.0\\powershell.exe -NoProfile -NonInteractive -ExecutionPolicy "
        "Bypass -InputFormat None -Command \"& (Join-Path $HOME '.ssh\\portknock-anna\\portknock-connect.ps1') web1 '%h' %p\"\n"
    ) in files["windows.config"]
    assert write(config="Host *\n    ForwardAgent yes\n", web1=variables)[0]["changed"] is False


def test_with_python_and_elsewhere(write):
    _result, files = write(program="python", directory="out", web1={})
    assert (
        "ProxyCommand python3 -ISB ~/.ssh/portknock-anna/portknock-connect.py web1 %h %p\n    ProxyUseFdpass yes"
        in files["config"]
    )


def test_a_jump_host_that_this_machines_configuration_names(write):
    config = "Host gate\n    HostName gate.example\n    Port 2200\n    User jumper\nHost far\n    ProxyJump gate\n"
    _result, files = write(config=config, far={})
    assert "portknock-jump.sh far %h %p -l jumper -p 2200 -- gate.example\n" in files["config"]
    assert "send_knock(resolve('far'), ((17005, 'tcp')" in files["jumps/far"]
    assert "# far is left out: behind a jump host, which the program for Windows cannot" in files["windows.config"]
    assert "far, 17005/tcp 19100/udp\n    then within 15 seconds by ssh through its jump host" in files["portknock.txt"]


def test_what_windows_cannot_do_is_said(write):
    result, files = write(config="Host far\n    ProxyJump me@gate\n", far={}, gate={"ansible_host": "192.0.2.1"})
    assert result["messages"][1:] == [
        "far is left out of windows.config: behind a jump host, which the program for Windows cannot have knock."
    ]
    windows = files["portknock.txt"].split("Windows 10 and later")[1].split("\nIf you have another one")[0]
    assert "3. ssh gate " in windows
    assert windows.endswith(
        "\nNot there: far. A jump host must knock for them, and the program for Windows cannot have it do that. "
        "In WSL they work as on Linux.\n"
    )
    assert "In WSL" in files["portknock.html"]
    _result, files = write(gate={"ansible_host": "192.0.2.1"})
    assert "Not there" not in files["portknock.txt"]


def test_a_jump_host_that_is_in_it_too(write):
    _result, files = write(config="Host far\n    ProxyJump me@gate\n", far={}, gate={"ansible_host": "192.0.2.1"})
    assert "portknock-jump.sh far %h %p -l me -- gate\n" in files["config"]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (
            "Host far\n    ProxyJump gate\nHost gate\n    ProxyJump outer\n",
            "its jump host gate is behind another one, which only this machine's configuration names.",
        ),
        (
            "Host far\n    ProxyCommand ssh -W %h:%p gate\n",
            "ssh reaches it by a ProxyCommand of this machine. Use ProxyJump.",
        ),
    ],
)
def test_a_way_that_another_machine_does_not_have(write, config, reason):
    result, files = write(config=config, far={})
    assert result["left_out"] == {"far": reason}
    assert result["messages"][1] == f"far is left out: {reason}"
    assert not [name for name in files if name.startswith("jumps/")]
    assert files["portknock.txt"].count("17005") == 0


@pytest.mark.parametrize("person", ["..", "a/b", "-a", "a b", "a\n", "é"])
def test_names_that_are_no_name_for_a_directory(write, person):
    with pytest.raises(SpecError, match="^person: must be letters, digits and"):
        write(person=person, web1={})


def test_the_page(write):
    result, files = write(
        web1={"ansible_host": "192.0.2.7", "ansible_user": "me"}, web2={"ansible_knock_host": "192.0.2.99"}
    )
    assert "warnings" not in result
    text, markup = files["portknock.txt"], files["portknock.html"]
    knocks = ["web1 (192.0.2.7), 17005/tcp 19100/udp", "web2 (192.0.2.99), 17005/tcp 19100/udp"]
    assert [line for line in text.splitlines() if "17005" in line] == knocks
    assert "    then within 15 seconds by ssh: me@192.0.2.7, port 22\n" in text
    assert "<td>within 15 seconds by ssh: me@192.0.2.7, port 22</td>" in markup
    assert not re.search(r"(src|href)=|url\(|https?://(?!www\.w3\.org/)", markup), "it works offline"
    codes = re.findall(r"<svg.*?</svg>", markup, re.S)
    assert len(codes) == 1
    assert ElementTree.fromstring(codes[0]).get("width")


def test_two_of_them_lie_beside_each_other(write, tmp_path):
    """Copied as their pages say, the one overwrites nothing of the other, and ssh finds the hosts of both."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    includes = []
    for person, host in (("anna", "shop"), ("anna.lab@x", "lab")):
        _result, files = write(person=person, **{host: {"ansible_host": f"{host}.example"}})
        page_text = files["portknock.txt"]
        (copy,) = re.findall(r"^ +(mkdir .*)$", page_text, re.M)
        subprocess.run(
            ["sh", "-ec", copy], env={**os.environ, "HOME": str(home)}, cwd=tmp_path / f"portknock-{person}", check=True
        )
        include, for_windows = re.findall(r"^ +(Include .*)$", page_text, re.M)
        assert for_windows == include.replace("/config", "/windows.config")
        assert f"%USERPROFILE%\\.ssh\\portknock-{person}\n" in page_text
        assert f"'.ssh\\portknock-{person}\\portknock-connect.ps1'" in files["windows.config"]
        # ssh reads what a relative path means from the user's entry in passwd, not from HOME.
        includes.append(include.replace("Include ", f"Include {home}/.ssh/"))
    (home / ".ssh" / "config").write_text("\n".join(includes) + "\n")
    for person, host in (("anna", "shop"), ("anna.lab@x", "lab")):
        said = subprocess.run(
            ["ssh", "-F", home / ".ssh" / "config", "-G", host], capture_output=True, text=True, check=True
        ).stdout
        assert f"\nhostname {host}.example\n" in said
        assert f"\nproxycommand bash ~/.ssh/portknock-{person}/portknock-connect.sh {host} %h %p\n" in said
        assert (home / ".ssh" / f"portknock-{person}" / "knocks").read_text().startswith(f"{host} ")


def test_the_code_is_the_plain_list(monkeypatch):
    made = []
    code = SimpleNamespace(svg_inline=lambda **_options: "<svg/>")
    monkeypatch.setitem(sys.modules, "segno", SimpleNamespace(make=lambda text, **_more: made.append(text) or code))
    lines = [f"web{number} (192.0.2.7), 17005/tcp 19100/udp" for number in range(40)]
    assert page.qr_codes(lines[:2]) == ["<svg/>"]
    assert made == ["\n".join(lines[:2])]
    del made[:]
    assert len(page.qr_codes(lines)) == len(made) > 1
    assert "\n".join(made).split("\n") == lines
    assert max(map(len, made)) <= page.CODE_BYTES


def test_without_the_library_the_page_has_no_code_and_it_is_said(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "segno", None)
    result, files = write(web1={})
    assert result["warnings"] == [
        f"The page has no QR code. For one, install segno and run this again: {sys.executable} -m pip install segno"
    ]
    assert "<svg" not in files["portknock.html"] and "17005/tcp" in files["portknock.html"]


def test_without_a_host(write):
    _result, files = write()
    assert "none" in files["portknock.txt"] and "There is no host yet." in files["portknock.txt"]
    assert files["knocks"] == ""
