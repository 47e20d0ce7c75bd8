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
    usual: int
    """Seconds that it takes on a quiet machine with two processors, with the others beside it."""
    load: int = 100
    """Percent of one processor that it keeps busy."""
    alone: bool = False
    """It measures time: nothing that is not alone as well runs beside it."""
    arguments: tuple[str, ...] = ()
    """What is handed to the session."""
    after: tuple[str, ...] = ()
    """The arguments of the session with which an interrupted check is taken down."""

    @property
    def limit(self) -> int:
        """Seconds after which it hangs; what it downloads and builds the first time takes some as well."""
        return 10 * self.usual + 1200


def unit() -> list[Check]:
    """The unit tests on every Python, one after the other; what waits most of its time runs beside them."""
    main = main_python()
    versions = [main, *(version for version in UNIT_PYTHONS if version != main)]
    return [
        Check("unit", f"pytest on Python {version}", f"unit({version})", 150, load=120)
        for version in versions
        if pythons.find(version)
    ]


def lint(with_sanity: bool = True) -> list[Check]:
    """Linters, types, what Galaxy asks for."""
    checks = [
        Check("lint", "sanity, ansible-core 2.16", "sanity(oldest)", 130),
        Check("lint", "sanity, newest ansible-core", "sanity(newest)", 130),
        Check("lint", "tarball and galaxy-importer", "tarball", 60),
        Check("lint", "ansible-lint, production", "ansible-lint", 60),
        Check("lint", "antsibull-docs, site", "docs", 60),
        Check("lint", "mypy", "mypy", 30),
        Check("lint", "files of a collection", "extra-checks", 10),
        Check("lint", "shellcheck", "shellcheck", 10),
        Check("lint", "yamllint", "yamllint", 10),
        Check("lint", "ruff", "ruff", 10),
        Check("lint", "vermin, Python 3.6 floor", "vermin", 10),
        Check("lint", "options, defaults, docs agree", "agreement", 10),
        Check("lint", "antsibull-changelog", "changelog", 10),
        Check("lint", "copyright and licences", "reuse", 10),
        Check("lint", "examples", "examples", 10),
        Check("lint", "execution environment", "execution-environment", 10),
        Check("lint", "no sanity ignores", "no-ignores", 10),
    ]
    return [check for check in checks if with_sanity or not check.session.startswith(SANITY)]


def wire() -> list[Check]:
    """The namespaces: packets alone on the machine, plays beside others."""
    return [
        *(Check("wire", f"packets, {backend}", f"packets({backend})", 180, alone=True) for backend in BACKENDS),
        *(Check("wire", f"guard, {backend}", f"guard({backend})", 450, load=80) for backend in BACKENDS),
        *(Check("wire", f"clients, {backend}", f"clients({backend})", 230) for backend in BACKENDS),
    ]


def molecule() -> list[Check]:
    """One check for each scenario. Most of the time they wait."""
    usual = {"knockd": 460, "guard": 470, "debian-11": 150, "debian-13": 150, "docker": 150}
    load = {"knockd": 45}
    names = sorted(path.parent.name for path in ROOT.glob("molecule/*/molecule.yml"))
    return [
        Check("molecule", name, f"molecule({name})", usual.get(name, 280), load=load.get(name, 35), after=("destroy",))
        for name in names
    ]


def bench() -> list[Check]:
    """What it costs: nothing at all runs beside it."""
    return [Check("bench", "ratios", "bench", 1700, load=100000, alone=True)]


def soak() -> list[Check]:
    """The long series, for hours."""
    properties = ("soak", "properties, thousands of examples", f"unit({main_python()})", 3600, 200, False)
    return [
        Check(*properties, arguments=("--slow",)),
        *(
            check._replace(stage="soak", name=f"{check.name}, long", usual=7200, arguments=("--soak",))
            for check in wire()
        ),
        *(
            check._replace(stage="soak", name=f"{check.name}, everything on both", arguments=("--soak",))
            for check in molecule()
            if check.name == "knockd"
        ),
        *(
            check._replace(stage="soak", name=f"{check.name}, everything", arguments=("--soak",))
            for check in lint()
            if check.session == "sanity(newest)"
        ),
        *(check._replace(stage="soak", name="bench, full", usual=6000, arguments=("--full",)) for check in bench()),
    ]


def quick() -> list[Check]:
    """What a change should pass before the rest: minutes."""
    return [*unit()[:1], *lint(with_sanity=False)]


def in_order(checks: list[Check]) -> list[Check]:
    """Return checks in the order to start them: the unit tests, then the longest, so that no long one is left over.

    What has to be alone begins when nothing else is left that fits.
    """
    return sorted(checks, key=lambda check: (check.stage != "unit", -check.usual))


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
