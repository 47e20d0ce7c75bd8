# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every check as a session of nox. `bin/test` runs them with all that they need, beside each other where that fits.

One by itself: `nox -s ruff`, `nox -s 'unit(3.11)' -- -k guard`, `nox -s 'packets(nft)' -- -k article`, `nox -s
'molecule(guard)'`. `.cache/venv/tools/bin/nox` is there once `bin/test` ran; `nox --list` names all.

The environments are those of tests/runner/environments.py, which outlive the clone, and not nox's own.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import antsibull_nox
import nox

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "tests"))

from runner import environments, packages, pythons, sanity, tree  # noqa: E402

nox.needs_version = ">=2024.10"
nox.options.default_venv_backend = "none"
antsibull_nox.load_antsibull_nox_toml()
nox.options.sessions = ["unit", "shellcheck", "ruff", "mypy"]

os.environ.update(environments.settings())
# Throwaway hosts have it in their names, so that two clones can run at once.
os.environ["PORTKNOCK_CLONE"] = tree.clone_id()
os.environ.update(LC_ALL="C.UTF-8", NO_COLOR="1", ANSIBLE_NOCOLOR="1", PYTHONDONTWRITEBYTECODE="1")

MAIN_PYTHON = pythons.version_of(environments.controller()) or ""
UNIT_PYTHONS = [nox.param(version, id=version) for version in sorted({"3.6", "3.11", "3.13", MAIN_PYTHON})]
BACKENDS = [nox.param(backend, id=backend) for backend in ("nft", "legacy")]
SCENARIOS = [nox.param(path.parent.name, id=path.parent.name) for path in sorted(ROOT.glob("molecule/*/molecule.yml"))]
# Unit tests that read source and documents, which is the same on every Python.
READ_ONCE = ["test_layers", "documents/test_docs_match", "documents/test_findings_table"]
# The longest of those of pure functions: what computes alone is shown by the oldest Python and the controller's.
PURE = ["*/test_prove*", "iptables/test_pro*", "iptables/test_corpus", "iptables/test_sequences_walk"]
IMPORTER = """[galaxy-importer]
RUN_ANSIBLE_TEST = False
RUN_ANSIBLE_LINT = False
CHECK_CHANGELOG = True
"""


def run(session: nox.Session, venv: Path, *words: str | Path, collections: Path | None = None) -> None:
    """Run a command of a virtual environment, with all of its commands on PATH."""
    path = os.pathsep.join([str(venv / "bin"), os.environ["PATH"]])
    env = {"PATH": path, "ANSIBLE_COLLECTIONS_PATH": str(collections or tree.link_collection())}
    session.run(venv / "bin" / words[0], *words[1:], env=env, external=True)


def lint(session: nox.Session, *words: str | Path) -> None:
    """Run a linter over a copy of the tree, so that no tool leaves files in it."""
    copy = tree.copy_collection(session.name)
    with session.chdir(copy):
        run(session, environments.named("lint"), *words, collections=copy.parents[2])


def unit_environment(session: nox.Session, version: str) -> Path:
    """Return the environment for the unit tests on a version of Python."""
    python = pythons.find(version) or session.skip(f"this machine has no python{version}")
    name = "unit-py36" if version == "3.6" else "unit"
    return environments.environment(f"unit-{version}", python, environments.requirements(name))


@nox.session
@nox.parametrize("version", UNIT_PYTHONS)
def unit(session: nox.Session, version: str) -> None:
    """Unit tests. What no version of Python decides, slow ones and most examples, is run on the controller's alone.

    To explain what an assertion saw, pytest compiles each test anew, in every worker: a seventh of the time. The other versions
    show the local variables instead. Where tests of theirs are asked for, it is all as on the controller's.
    """
    chosen = []
    if version != MAIN_PYTHON:
        chosen += ["-m", "not slow", "--few"]
        if not session.posargs:
            left_out = READ_ONCE if version == "3.6" else [*READ_ONCE, *PURE]
            chosen += ["--assert=plain", "--showlocals", *(f"--ignore-glob=tests/unit/{name}.py" for name in left_out)]
    words = ["-m", "pytest", "-q", "-n", "2", *chosen, *session.posargs, "tests/unit"]
    run(session, unit_environment(session, version), "python", *words)


@nox.session
def shellcheck(session: nox.Session) -> None:
    """Every shell script."""
    packages.need_commands(shellcheck="shellcheck")
    session.run("shellcheck", "-x", "-P", "SCRIPTDIR", "-P", "bin/lib", *tree.shell_scripts(), external=True)


@nox.session
def vermin(session: nox.Session) -> None:
    """No syntax and no module that Python 3.6 on a host does not have."""
    words = ["--no-tips", "-t=3.6-", "--violations", "plugins/module_utils", "plugins/modules"]
    run(session, environments.named("lint"), "vermin", *words)


@nox.session
def mypy(session: nox.Session) -> None:
    """Types, of what tool.mypy in pyproject.toml names."""
    tree.link_collection()
    run(session, environments.named("lint"), "mypy", *session.posargs)


@nox.session
def ruff(session: nox.Session) -> None:
    """Errors, style and format of Python."""
    lint(session, "ruff", "check", "--output-format", "concise", ".")
    lint(session, "ruff", "format", "--check", ".")


@nox.session
def yamllint(session: nox.Session) -> None:
    """Style of YAML."""
    lint(session, "yamllint", "--strict", ".")


@nox.session
def agreement(session: nox.Session) -> None:
    """Options, defaults and documents say the same."""
    (test,) = (ROOT / "tests" / "unit").rglob("test_docs_match.py")
    lint(session, "python", "-m", "pytest", "-q", "--noconftest", str(test.relative_to(ROOT)))


@nox.session
def changelog(session: nox.Session) -> None:
    """Fragments and the changelog."""
    lint(session, "antsibull-changelog", "lint")
    lint(session, "antsibull-changelog", "lint-changelog-yaml", "changelogs/changelog.yaml")


@nox.session
def reuse(session: nox.Session) -> None:
    """Copyright and licence of every file."""
    lint(session, "reuse", "lint", "--lines")


@nox.session(name="no-ignores")
def no_ignores(session: nox.Session) -> None:
    """Nothing is to be ignored: what sanity finds is to be mended."""
    found = [path for path in ROOT.glob("tests/sanity/ignore-*.txt") if path.stat().st_size]
    if found:
        session.error("these have entries: " + ", ".join(str(path.relative_to(ROOT)) for path in found))


@nox.session(name="sanity")
@nox.parametrize("release", [nox.param("2.16", id="oldest"), nox.param(environments.newest_core(), id="newest")])
def ansible_test_sanity(session: nox.Session, release: str) -> None:
    """ansible-test sanity, of the oldest ansible-core that is supported and of the newest that can run here."""
    if not sanity.run(tree.copy_collection(session.name), release, "--soak" in session.posargs):
        session.error(f"ansible-test sanity of ansible-core {release} has the complaints above")


@nox.session(name="ansible-lint")
def ansible_lint(session: nox.Session) -> None:
    """ansible-lint with the profile `production`."""
    lint(session, "ansible-lint", "--offline", "--strict", "--profile", "production")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation of plugins and role, and the site of all pages: .cache/site/html/index.html."""
    venv, copy, site = environments.named("docs"), tree.copy_collection(session.name), ROOT / ".cache" / "site"
    words = ["--plugin-docs", "--skip-rstcheck", "--validate-collection-refs=self"]
    run(session, venv, "antsibull-docs", "lint-collection-docs", *words, copy, collections=copy.parents[2])
    run(session, venv, "python", ROOT / "bin" / "lib" / "site" / "pages.py", "--check")
    run(session, venv, "codespell", copy / "docs", copy / "README.md", copy / "CONTRIBUTING.md")
    shutil.rmtree(site, ignore_errors=True)
    for folder in (copy / "bin" / "lib" / "site", copy / "docs"):
        shutil.copytree(folder, site / "source", dirs_exist_ok=True, ignore=shutil.ignore_patterns("docsite"))
    shutil.copy2(copy / "galaxy.yml", site / "source")
    plugins = site / "source" / "collections"
    plugins.mkdir()
    words = ["--use-current", "--squash-hierarchy", "--no-add-antsibull-docs-version", "--dest-dir"]
    run(session, venv, "antsibull-docs", "collection", *words, plugins, "sesame.portknock", collections=copy.parents[2])
    # A link to a page or a heading that is not there is a warning.
    words = ["-W", "--keep-going", "-q", "-b", "html", "-d", str(site / "doctrees")]
    run(session, venv, "sphinx-build", *words, site / "source", site / "html")


@nox.session
def examples(session: nox.Session) -> None:
    """The playbooks in examples/, as ansible-playbook reads them."""
    for path in sorted((ROOT / "examples").glob("*.yml")):
        run(session, environments.named("lint"), "ansible-playbook", "--syntax-check", "-i", "guarded,web,", path)


@nox.session(name="execution-environment")
def execution_environment(session: nox.Session) -> None:
    """What ansible-builder makes of meta/execution-environment.yml, and of the example in docs/fleet.md."""
    venv, folder = environments.named("builder"), Path(session.create_tmp()).resolve()
    found = folder / "bindep.txt"
    found.unlink(missing_ok=True)
    run(session, venv, "ansible-builder", "introspect", "--write-bindep", found, tree.link_collection())
    if "openssh-clients [platform:rpm]" not in (found.read_text(encoding="utf-8") if found.exists() else ""):
        session.error("ansible-builder does not find that ssh is needed")
    page = (ROOT / "docs" / "fleet.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```yaml\n(version: 3\n.*?)^```$", page, re.M | re.S)
    definition = folder / "execution-environment.yml"
    definition.write_text(example, encoding="utf-8")
    run(session, venv, "ansible-builder", "create", "--file", definition, "--context", folder / "context")


@nox.session
def tarball(session: nox.Session) -> None:
    """Build the collection, look into the tarball, use an installed copy, and do what Galaxy does on an upload."""
    venv, folder = environments.named("lint"), ROOT / ".cache" / "dist"
    subprocess.run(["rm", "-rf", folder], check=True)
    run(session, venv, "ansible-galaxy", "collection", "build", "--output-path", folder, ROOT)
    (built,) = folder.glob("*.tar.gz")
    run(session, venv, "python", ROOT / "bin" / "lib" / "check-tarball.py", built)
    # The importer's own ansible-test wants a container engine; here it runs in sessions of its own.
    config = folder / "galaxy-importer.cfg"
    config.write_text(IMPORTER, encoding="utf-8")
    importer, env = environments.named("importer"), {"GALAXY_IMPORTER_CONFIG": str(config)}
    env["PATH"] = os.pathsep.join([str(importer / "bin"), os.environ["PATH"]])
    with session.chdir(folder):
        python = importer / "bin" / "python"
        said = session.run(python, "-m", "galaxy_importer.main", built, env=env, external=True, silent=True)
    print(said)
    if any(line.startswith(("ERROR", "WARNING")) for line in str(said).splitlines()):
        session.error("galaxy-importer has the complaints above")


def wire(session: nox.Session, group: str, backend: str) -> None:
    """Run a folder of tests/wire on a backend of iptables, with every release of ansible-core at hand."""
    packages.need_wire()
    environments.posix_collection()
    releases = [release for release in environments.CORES if environments.core(release)]
    session.env["PORTKNOCK_CORES"] = " ".join(releases)
    words = ["-p", "no:cacheprovider", "-v", "--tb=short", "--color=no", "--durations=60", "--backend", backend]
    # Each worker has namespaces of its own, and waits most of the time: packets more than plays.
    words += ["-n", "4" if group == "packets" else "3", "--dist", "worksteal"]
    words = ["-m", "pytest", "-c", "pyproject.toml", *words, *session.posargs, f"tests/wire/{group}"]
    run(session, environments.named("controller"), "python", *words)


@nox.session
@nox.parametrize("backend", BACKENDS)
def packets(session: nox.Session, backend: str) -> None:
    """Real packets between network namespaces. They count in seconds: nothing else may load the machine."""
    wire(session, "packets", backend)


@nox.session
@nox.parametrize("backend", BACKENDS)
def guard(session: nox.Session, backend: str) -> None:
    """The guard: real processes that are killed, real faults."""
    wire(session, "guard", backend)


@nox.session
@nox.parametrize("backend", BACKENDS)
def clients(session: nox.Session, backend: str) -> None:
    """What runs on a controller: modules, the connection plugin, the client's configuration."""
    wire(session, "clients", backend)


@nox.session
def bench(session: nox.Session) -> None:
    """What it costs, as ratios."""
    packages.need_wire()
    run(session, environments.named("controller"), "python", ROOT / "tests" / "bench" / "run", *session.posargs)


@nox.session
def figures(session: nox.Session) -> None:
    """Measure what the documents have figures of, and draw it anew into docs/: cost over doors, knock to open, floods."""
    packages.need_wire()
    shutil.rmtree(ROOT / ".cache" / "figures", ignore_errors=True)
    groups = session.posargs or ["engines", "open", "fleet"]
    run(session, environments.named("controller"), "python", ROOT / "tests" / "bench" / "run", *groups)
    run(session, environments.named("controller"), "python", ROOT / "bin" / "lib" / "site" / "figures.py")


@nox.session
@nox.parametrize("scenario", SCENARIOS)
def molecule(session: nox.Session, scenario: str) -> None:
    """Whole hosts in containers with systemd."""
    venv = environments.named("controller")
    words = [word for word in session.posargs if word != "--soak"]
    if words != session.posargs:
        session.env["PORTKNOCK_SOAK"] = "1"
    run(session, venv, "molecule", *(words or ["test"]), "-s", scenario)
