# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# What the checks need on the machine: packages, Pythons, virtual environments, copies of the tree.
# shellcheck shell=bash

# Checks that run side by side must not ask apt at the same time.
install_packages() {
    flock "$CACHE/apt.lock" bash "$ROOT/bin/lib/hosts.sh" apt_install "$@"
}

# Debian splits venv off python3; without it `-m venv` fails half way.
need_venv_of() {
    "$1" -c 'import ensurepip, venv' 2>/dev/null && return
    install_packages "python$(python_version "$1")-venv"
}

python_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }

# Prints the path of Python $1 (as 3.11). A pyenv shim of a version that is not
# switched on is found on PATH but does not run, so each candidate is tried.
find_python() {
    local candidate
    for candidate in "/usr/bin/python$1" "/usr/local/bin/python$1" \
        "$USER_HOME"/.pyenv/versions/"$1".*/bin/python"$1" "$(command -v "python$1")"; do
        if [[ -x $candidate && "$(python_version "$candidate" 2>/dev/null)" == "$1" ]]; then
            say "$candidate"
            return
        fi
    done
    return 1
}

first_python() {
    local version
    for version in "$@"; do
        find_python "$version" && return
    done
    return 1
}

# Prints the folder of a virtual environment of Python $2 with the requirements $3, made anew
# when either of them is not as it was. Messages go to stderr.
make_venv() {
    local folder=$CACHE/venv/$1 python=$2 requirements=$ROOT/tests/requirements-$3.txt made_of
    # The folder too: a virtual environment does not survive that the tree is moved.
    made_of="$folder $("$python" -VV) $(sha256sum <"$requirements")"
    if [[ "$(cat "$folder/made-of" 2>/dev/null)" != "$made_of" ]]; then
        say "Making the virtual environment $1 with $python" >&2
        rm -rf "$folder"
        need_venv_of "$python" >&2 && "$python" -m venv "$folder" >&2 || return 1
        # The pip that Python 3.6 brings is too old to choose wheels well.
        "$folder/bin/python" -m pip install -q --upgrade pip >&2 &&
            "$folder/bin/python" -m pip install -q -r "$requirements" >&2 || return 1
        say "$made_of" >"$folder/made-of"
    fi
    say "$folder"
}

# Every ansible-core that the collection is made for (meta/runtime.yml and newer).
CORES=(2.16 2.17 2.18 2.19 2.20 2.21)

python_of_core() {
    case $1 in
        2.16 | 2.17) first_python 3.11 3.12 3.10 ;;
        2.18 | 2.19) first_python 3.11 3.12 3.13 ;;
        *) first_python 3.12 3.13 3.14 ;;
    esac
}

# One virtual environment for each of them: .cache/venv/core-VERSION. Prints those that could be made;
# a release for which this machine has no Python is named on stderr.
make_core_venvs() {
    local core python
    for core in "${CORES[@]}"; do
        if python=$(python_of_core "$core"); then
            make_venv "core-$core" "$python" "core-$core" >/dev/null || return 1
            printf '%s ' "$core"
        else
            say "No Python on this machine for ansible-core $core: nothing is tried with it." >&2
        fi
    done
}

# Collections that users have beside ours come inside the package `ansible`; only the one that is used is unpacked.
make_posix_collection() {
    # $1 Python of a virtual environment
    local folder=$CACHE/posix wanted="ansible==11.*"
    [[ "$(cat "$folder/made-of" 2>/dev/null)" != "$wanted" ]] || return 0
    rm -rf "$folder" "$CACHE/posix-download"
    "$1" -m pip download -q --no-deps --only-binary=:all: -d "$CACHE/posix-download" "$wanted" >&2 || return 1
    "$1" - "$CACHE"/posix-download/ansible-*.whl "$folder" <<'END' || return 1
import sys, zipfile
archive = zipfile.ZipFile(sys.argv[1])
archive.extractall(sys.argv[2], [name for name in archive.namelist() if name.startswith("ansible_collections/ansible/posix/")])
END
    rm -rf "$CACHE/posix-download"
    say "$wanted" >"$folder/made-of"
}

# The names of the files that git knows or would add, NUL between them.
project_files() {
    local file
    git -C "$ROOT" -c safe.directory="$ROOT" ls-files -z --cached --others --exclude-standard |
        while IFS= read -r -d '' file; do
            [[ ! -e $ROOT/$file ]] || printf '%s\0' "$file"
        done
}

# ansible-test wants a real path .../ansible_collections/NAMESPACE/NAME and asks git for the files.
# Prints the path of a fresh copy, one for each name so that checks can run side by side.
copy_collection() {
    local top=$CACHE/copy/$1 copy
    copy=$top/ansible_collections/sesame/portknock
    rm -rf "$top"
    mkdir -p "$copy"
    (cd "$ROOT" && project_files | xargs -0 cp -P --parents -t "$copy") || return 1
    git -C "$copy" init -q || return 1
    say "$copy"
}
