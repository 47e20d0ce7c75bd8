# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The stage `unit`.
# shellcheck shell=bash

unit_tests() {
    # $1 seconds  $2 name of the virtual environment  $3 Python  $4 requirements  $5... options
    local venv limit=$1
    venv=$(make_venv "$2" "$3" "$4")
    shift 4
    cd "$ROOT" || return
    PYTHONDONTWRITEBYTECODE=1 timeout "$limit" "$venv/bin/python" -m pytest "$@" tests/unit
}

unit_on() {
    # $1 Python version  $2 requirements: loud where the machine does not have it
    local python
    if python=$(find_python "$1"); then
        check_beside unit "pytest on Python $1" unit_tests 900 "unit-$1" "$python" "$2"
    else
        warn "unit tests on Python $1: this machine has no python$1 (looked on PATH and in ~/.pyenv)"
    fi
}

python_floor() {
    local venv
    venv=$(make_venv lint "$CONTROLLER_PYTHON" lint)
    cd "$ROOT" || return
    "$venv/bin/vermin" --no-tips -t=3.6- --violations plugins/module_utils plugins/modules
}

stage_unit() {
    local machine
    machine=$(python_version "$CONTROLLER_PYTHON")
    bash "$ROOT/bin/lib/hosts.sh" collection_link >/dev/null
    check unit "vermin, Python 3.6 floor" python_floor
    unit_on "$machine" unit
    [[ $machine == 3.11 ]] || unit_on 3.11 unit
    [[ $machine == 3.13 ]] || unit_on 3.13 unit
    unit_on 3.6 unit-py36
    wait_for_checks
}
