# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The public workflow: each of its commands is run for each row of its matrix, with stand-ins for what builds and tests."""

import os
import re
import subprocess

import pytest

pytest.importorskip("ansible", reason="noxfile.py and the stages are those of a controller's Pythons alone")

import yaml

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
STAND_IN = '#!/bin/sh\necho "$(basename "$0")" "$@" >>"$CALLS"\n'
SUDO = '#!/bin/sh\n[ "$1" != -E ] || shift\ncase $1 in bin/test) echo "$@" >>"$CALLS" ;; *) exec "$@" ;; esac\n'


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as stream:
        return stream.read()


JOBS = yaml.safe_load(read(".github/workflows/tests.yml"))["jobs"]


def rows(job):
    """Return the rows of a job's matrix."""
    matrix = JOBS[job]["strategy"]["matrix"]
    return matrix.get("include") or [{key: value} for key, values in matrix.items() for value in values]


def filled(text, row):
    """Return a text with the row's values in the place of what the workflow asks of the matrix, and of nothing else."""
    made = re.sub(r"\$\{\{ matrix\.(\w+) \}\}", lambda found: row[found[1]], str(text))
    assert "${{" not in made
    return made


@pytest.fixture
def calls(tmp_path):
    """Run the commands of a job for a row; returns what was called, a line each."""
    for name, text in (("docker", STAND_IN), ("nox", STAND_IN), ("python", STAND_IN), ("sudo", SUDO)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def run(job, row):
        log = tmp_path / "calls"
        log.write_text("")
        for step in JOBS[job]["steps"]:
            if "run" not in step:
                continue
            given = {**JOBS[job].get("env", {}), **step.get("env", {})}
            env = {key: filled(value, row) for key, value in given.items()}
            env = dict(env, PATH="{0}:{1}".format(tmp_path, os.environ["PATH"]), CALLS=str(log))
            # As runners do it.
            words = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", filled(step["run"], row)]
            subprocess.run(words, cwd=ROOT, env=env, check=True)
        return log.read_text().splitlines()

    return run


@pytest.mark.parametrize("row", rows("stages"), ids=lambda row: row["stage"])
def test_a_stage(calls, row):
    assert calls("stages", row) == ["bin/test {0}".format(row["stage"])]
    assert os.access(os.path.join(ROOT, "bin/test"), os.X_OK)


def test_the_stages_are_those_of_a_whole_run():
    whole = re.search(r"Without a stage: ([\w ]+)\.", read("bin/test"))[1].split()
    assert [row["stage"] for row in rows("stages")] == whole


@pytest.mark.parametrize("row", rows("images"), ids=lambda row: row["image"])
def test_an_image(calls, row):
    build, install, test = calls("images", row)
    file = ".github/images/Dockerfile.{0}".format(row["recipe"])
    image = "portknock-host:{0}".format(row["image"])
    assert build == "docker build --tag {0} --build-arg BASE={1} --file {2} .github/images".format(
        image, row["base"], file
    )
    assert re.search(r"^ARG BASE\nFROM \$\{BASE\}$", read(file), re.M)
    tools = re.search(r"^TOOLS = \((.*)\)$", read("tests/runner/environments.py"), re.M)[1].replace('"', "").split(", ")
    assert install == " ".join(["python -m pip install", *tools])
    assert test == "nox -s molecule(default)"
    assert os.path.exists(os.path.join(ROOT, "molecule/default/molecule.yml"))
    assert "PORTKNOCK_IMAGE" in read("molecule/default/host_vars/portknock-default.yml")


def test_the_images_are_those_of_the_supported_distributions():
    """Debian's own are what bin/test makes."""
    bases = " ".join(row["base"] for row in rows("images"))
    for wanted in (
        "rockylinux:8",
        "rockylinux:9",
        "rockylinux:10",
        "fedora:latest",
        "ubuntu:22.04",
        "ubuntu:24.04",
        "ubuntu:26.04",
    ):
        assert wanted in bases
