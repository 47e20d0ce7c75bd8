# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which checks there are, what each asks of the machine, and which of them cannot be run here."""

from typing import NamedTuple

from . import environments, pythons
from .tree import ROOT

STAGES = ("unit", "lint", "wire", "molecule", "quick", "bench", "soak")
DEFAULT_STAGES = ("unit", "lint", "wire", "molecule")
UNIT_PYTHONS = ("3.6", "3.11", "3.13")
BACKENDS = ("nft", "legacy")
SANITY = "sanity"


class Check(NamedTuple):
    """A session of nox that is one line of the summary."""

    stage: str
    """The word on the command line that asks for it."""
    name: str
    """What the summary calls it."""
    session: str
    """The session of the noxfile."""
    limit: int
    """Seconds after which it hangs: about ten times what it takes on a quiet machine with two processors."""
    load: int = 100
    """Percent of one processor that it keeps busy."""
    alone: bool = False
    """It measures time: nothing that is not alone as well runs beside it."""
    arguments: tuple[str, ...] = ()
    """What is handed to the session."""
    after: tuple[str, ...] = ()
    """The arguments of the session with which an interrupted check is taken down."""


def unit() -> list[Check]:
    """The unit tests on every Python."""
    main = main_python()
    versions = [main, *(version for version in UNIT_PYTHONS if version != main)]
    return [
        Check("unit", f"pytest on Python {version}", f"unit({version})", 3600, load=200)
        for version in versions
        if pythons.find(version)
    ]


def lint(with_sanity: bool = True) -> list[Check]:
    """Linters; what takes longest first."""
    checks = [
        Check("lint", "sanity, ansible-core 2.16", "sanity(oldest)", 7200),
        Check("lint", "sanity, newest ansible-core", "sanity(newest)", 7200),
        Check("lint", "tarball and galaxy-importer", "tarball", 1800),
        Check("lint", "ansible-lint, production", "ansible-lint", 1800),
        Check("lint", "antsibull-docs", "docs", 1800),
        Check("lint", "mypy", "mypy", 1800),
        Check("lint", "files of a collection", "extra-checks", 600),
        Check("lint", "shellcheck", "shellcheck", 600),
        Check("lint", "yamllint", "yamllint", 600),
        Check("lint", "ruff", "ruff", 600),
        Check("lint", "vermin, Python 3.6 floor", "vermin", 600),
        Check("lint", "options, defaults, docs agree", "agreement", 600),
        Check("lint", "antsibull-changelog", "changelog", 600),
        Check("lint", "no sanity ignores", "no-ignores", 600),
    ]
    return [check for check in checks if with_sanity or not check.session.startswith(SANITY)]


def wire() -> list[Check]:
    """The namespaces: packets alone on the machine, plays that mostly wait beside others."""
    packets = [Check("wire", f"packets, {backend}", f"packets({backend})", 7200, alone=True) for backend in BACKENDS]
    plays = [
        Check("wire", f"{group}, {backend}", f"{group}({backend})", 7200, load=60)
        for group in ("guard", "clients")
        for backend in BACKENDS
    ]
    return packets + plays


def molecule() -> list[Check]:
    """One check for each scenario, the longest first."""
    names = [path.parent.name for path in ROOT.glob("molecule/*/molecule.yml")]
    order = ["knockd", "guard", "foreign", "el-standin", "default"]
    names.sort(key=lambda name: (order.index(name) if name in order else len(order), name))
    return [Check("molecule", name, f"molecule({name})", 7200, load=60, after=("destroy",)) for name in names]


def bench() -> list[Check]:
    """What it costs."""
    return [Check("bench", "ratios", "bench", 10800, alone=True)]


def soak() -> list[Check]:
    """The long series, for hours."""
    checks = [
        Check("soak", "properties, thousands of examples", f"unit({main_python()})", 36000, 200, False, ("--slow",))
    ]
    checks += [
        check._replace(stage="soak", name=f"{check.name}, long", limit=72000, arguments=("--soak",)) for check in wire()
    ]
    return [*checks, Check("soak", "bench, full", "bench", 36000, alone=True, arguments=("--full",))]


def quick() -> list[Check]:
    """What a change should pass before the rest: minutes."""
    return [*unit()[:1], *lint(with_sanity=False)]


def main_python() -> str:
    """Return the version of the Python that runs the tools, and the slow unit tests."""
    return pythons.version_of(environments.controller()) or ""


def of(stage: str) -> list[Check]:
    """Return the checks of a stage."""
    return {
        "unit": unit, "lint": lint, "wire": wire, "molecule": molecule, "quick": quick, "bench": bench, "soak": soak,
    }[stage]()  # fmt: skip


def not_run(stage: str) -> list[str]:
    """Return what a stage leaves out on this machine, and why."""
    missing = [version for version in UNIT_PYTHONS if not pythons.find(version)]
    notes = []
    if stage == "unit":
        notes += [f"unit tests on Python {version}: no python{version} on PATH or in a pyenv" for version in missing]
    if stage == "lint":
        if "3.6" in missing:
            notes.append("sanity's compile and import on Python 3.6: this machine has no python3.6")
        if environments.newest_core() != list(environments.CORES)[-1]:
            notes.append(
                f"sanity of the newest ansible-core: it ran on {environments.newest_core()}, for want of a Python"
            )
    if stage in ("wire", "soak"):
        cannot = [release for release, versions in environments.CORES.items() if not pythons.first(*versions)]
        notes += [f"plays with ansible-core {release}: no Python for it on this machine" for release in cannot]
    return notes
