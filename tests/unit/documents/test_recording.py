# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The picture of a run of bin/demo is what its text says, the text is what bin/demo prints, and neither tells where it was made."""

import os
import re

import pytest

pytest.importorskip("ansible", reason="the documents are made on Pythons of a controller alone")

import recording
from ansible_collections.sesame.portknock.plugins.module_utils._command.status import status_text

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
AGAIN = "run bin/demo --record"


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as stream:
        return stream.read()


TEXT = read("bin/lib/site/demo.txt")
DEMO = read("bin/demo")


def test_the_picture_is_drawn_from_the_text():
    assert read("docs/demo.svg") == recording.draw(TEXT), "run bin/lib/site/recording.py"


def test_the_steps_of_the_timeline_are_those_of_the_text():
    """Each call in timeline() that prints a line of its own, in their order."""
    body = re.search(r"^timeline\(\) \{\n(.*?)^\}", DEMO, re.M | re.S)[1]
    words = {"look_ping": "ping", "look_status": "portknock status, on the host", "session_start": "a longer ssh session",
             "look_session": "the session from before", "knock": "knock on port", "locking_change": "a change: knock on port"}  # fmt: skip
    wanted = []
    for line in body.splitlines():
        name, _space, rest = line.strip().rpartition("&& ")[2].rpartition("|| ")[2].partition(" ")
        if name == "event":
            wanted.append(rest.strip('"'))
        elif name == "look_ssh":
            wanted.append("ssh over IPv6" if "ipv6" in rest else "ssh")
        elif name in words:
            wanted.append(words[name])
    assert len(wanted) > 15
    # What became of the change is a second line of its step; whether there is a wait depends on the time that has gone.
    others = ("what became of it", "... until the window of")
    printed = [line for line in re.findall(r"^  \d\d:\d\d  (.*)$", TEXT, re.M) if not line.startswith(others)]
    assert len(printed) == len(wanted), AGAIN
    assert [line for line, begin in zip(printed, wanted) if not re.match(re.escape(begin) + r"(\s|$)", line)] == [], (
        AGAIN
    )


def test_the_form_of_a_line_is_that_of_bin_demo():
    what, came = map(int, re.search(r"printf -v line '  %s  %-(\d+)s %-(\d+)s '", DEMO).groups())
    results = [line for line in TEXT.splitlines() if line.endswith("as it should be")]
    assert results
    assert [line for line in results if line.index("as it should be") != 2 + 5 + 2 + what + 1 + came + 1] == [], AGAIN


FINDING = {"severity": "warning", "message": "list_size: few."}
FOUND = dict(
    engine="iptables", backend="nft", ip_versions=["ipv4", "ipv6"], drift=[], findings=[FINDING], pending={}, refused=3,
    wrong_knocks=0, published="doors", lists=[dict(door="ssh", ip_version="ipv4", entries=1, size=100)],
    doors=[dict(name="ssh", ip_version="ipv4", opens=["22/tcp"], window=15, open_for={"192.0.2.7": 9}, let_in=2, knocked=3, refused=3)],
)  # fmt: skip


def test_the_status_is_in_the_form_of_now():
    """What is filled in is that of a run; the lines, and the columns of the table, are those of the code."""

    def form(text):
        lines = [line for line in text.splitlines() if line and not line.startswith(" ")]
        return [line.partition(":")[0] if ":" in line else line.split()[0] for line in lines]

    shown = "\n".join(line[9:] for line in TEXT.splitlines() if line.startswith(" " * 9))
    assert form(shown) == form(status_text(FOUND)), AGAIN
    columns = [
        re.findall(r"\S+(?: \S+)*", line)
        for line in (shown + status_text(FOUND)).splitlines()
        if line.startswith("DOOR")
    ]
    assert columns[0] == columns[1], AGAIN


def test_nothing_of_the_machine_is_in_it():
    """A timeline names no file of the machine that it was made on, and no host but the throwaway one."""
    assert re.findall(r"(?<![\w/])~?/\w+\S*", TEXT.replace("/tcp", "").replace("/udp", "")) == []


@pytest.mark.parametrize(
    "text", ["", "  00:01  ping  no answer  WRONG, should be: answers\n  00:02  ssh  in  as it should be\n"]
)
def test_a_run_that_went_wrong_is_not_drawn(text):
    with pytest.raises(ValueError, match="no recording"):
        recording.draw(text)


def test_what_is_long_is_cut_and_marks_have_a_colour():
    picture = recording.draw("$ bin/demo\n\n  00:01  ping <x>   answers   as it should be\n  00:02  " + "long " * 40)
    assert '<text class="head" x="20.0"' in picture
    assert re.search(r'class="plain"[^>]*>ping &lt;x&gt;<', picture)
    assert re.search(r'class="good"[^>]*>as it should be<', picture)
    assert re.search(r">(long )+(l|lo|lon|long)…<", picture)
