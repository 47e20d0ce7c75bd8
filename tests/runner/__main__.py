# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What bin/test does, once a Python is found: python tests/runner STAGE..., as root."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runner import checks, environments, packages, report, schedule, tree

CACHE = tree.ROOT / ".cache"


def prepare() -> Path:
    """Make everything that all checks use; return the path of nox."""
    os.environ.update(environments.settings())
    packages.need_commands(git="git", shellcheck="shellcheck")
    nox = environments.tools() / "bin" / "nox"
    # A home for tools that write there: the user's own stays as it is.
    os.environ.setdefault("USER_HOME", os.environ.get("HOME", ""))
    os.environ.update(HOME=str(CACHE / "home"), LC_ALL="C.UTF-8", NO_COLOR="1", ANSIBLE_NOCOLOR="1")
    (CACHE / "home").mkdir(parents=True, exist_ok=True)
    tree.link_collection()
    return nox


def give_back_ownership() -> None:
    """Files below .cache and .build belong to the user who called sudo."""
    if os.environ.get("SUDO_UID"):
        owner = f"{os.environ['SUDO_UID']}:{os.environ.get('SUDO_GID', os.environ['SUDO_UID'])}"
        subprocess.run(["chown", "-hR", owner, CACHE, tree.ROOT / ".build"], check=False)


def interrupted(_number: int, _frame: object) -> NoReturn:
    """End the checks that are running: once, however often the key is pressed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    report.say("Interrupted: ending the checks that are running.")
    sys.exit(130)


def release_docker() -> None:
    """Stop the docker daemon, if it was started for this run."""
    packages.hosts_sh("docker_release", f"bin-test.{os.getpid()}", check=False)


def run(stages: list[str]) -> bool:
    """Run the checks of stages; return whether all passed, and note the commit where nothing was left out."""
    wanted = [check for stage in stages for check in checks.of(stage)]
    wanted = list(dict.fromkeys(wanted))
    notes = [note for stage in stages for note in checks.not_run(stage)]
    commit, since, processors = tree.clean_commit(), time.monotonic(), report.processor_times()
    results: list[report.Result] = []
    for note in notes:
        report.say(f"!!! NOT RUN: {note}")
    try:
        nox = prepare()
        if any(check.session.startswith("molecule") for check in wanted):
            packages.hosts_sh("docker_acquire", f"bin-test.{os.getpid()}")
        results += schedule.run_all(nox, wanted)
    except subprocess.CalledProcessError as error:
        report.say(f"  FAILED  set-up: {error}")
    green = report.summary(wanted, results, notes, time.monotonic() - since, processors)
    if green and not notes and commit and set(stages) >= set(checks.DEFAULT_STAGES) and tree.clean_commit() == commit:
        (CACHE / "green").write_text(commit + "\n", encoding="utf-8")
    return green


def main() -> int:
    """Run what the command line asks for."""
    stages = list(dict.fromkeys(sys.argv[1:])) or list(checks.DEFAULT_STAGES)
    shutil.rmtree(report.LOGS, ignore_errors=True)
    report.LOGS.mkdir(parents=True)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    try:
        return 0 if run(stages) else 1
    except SystemExit:
        packages.remove_hosts("portknock-role-")
        raise
    finally:
        release_docker()
        give_back_ownership()


if __name__ == "__main__":
    sys.exit(main())
