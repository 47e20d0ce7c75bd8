# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No step of a knock shows anywhere but in root's own files."""

import subprocess

import pytest
from rig_knockd import CONFIG, options, secrets
from test_guard import OTHER_DOORS

PLACES = "/etc /usr/local /usr/lib/systemd /lib/systemd /var/lib /var/log /run /root /tmp /var/tmp"
_WATCH = "touch /run/watched; while test -e /run/watched; do cat /proc/[0-9]*/cmdline 2>/dev/null; echo; sleep 0.02; done | tr '\\0' ' '"


def lines_with_a_step(text):
    """Return the lines of a text that show one."""
    pattern = secrets()
    return [line for line in text.splitlines() if pattern.search(line)]


def test_no_process_has_a_step_among_its_words(served, operator, tmp_path):
    # To a file: a pipe that nothing reads would fill up, and hold the watch back.
    with open(tmp_path / "seen", "w", encoding="utf-8") as stream:
        watch = subprocess.Popen(["docker", "exec", served.name, "sh", "-c", _WATCH], stdout=stream)
    try:
        assert operator.apply(options(doors=OTHER_DOORS)).only().kind == "ok"
        assert operator.apply(options()).only().kind == "ok"
        assert served.opens_to()
    finally:
        served.run("rm -f /run/watched")
        watch.wait(timeout=200)
    seen = (tmp_path / "seen").read_text(encoding="utf-8", errors="replace")
    assert f"knockd -c {CONFIG}" in seen and "knockd -c /run/portknock/" in seen and "systemctl restart" in seen
    assert lines_with_a_step(seen) == []


def test_only_root_s_files_have_one(served):
    pattern = secrets().pattern
    found = served.run(
        f"find {PLACES} -xdev -type f -print0 | xargs -0 grep -lIP '{pattern}'", check=False
    ).stdout.split()
    assert CONFIG in found
    modes = served.out(f"stat -c '%U %a %n' {' '.join(sorted(set(found)))}").splitlines()
    assert [line for line in modes if not line.startswith(("root 600 ", "root 400 "))] == []


def test_journal_has_none(served):
    journal = served.out("journalctl --no-pager --output=cat")
    assert "knockd" in journal and len(journal.splitlines()) > 20
    assert lines_with_a_step(journal) == []


@pytest.mark.usefixtures("arrival")
def test_nothing_that_was_printed_has_one(machine):
    said = machine.said.read_text(encoding="utf-8")
    assert "EXEC" in said, "the output has less than -vvv shows"
    assert CONFIG in said and "PORTKNOCK" in said, "the output has no diff"
    assert lines_with_a_step(said) == []
