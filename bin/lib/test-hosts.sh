# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The stages that need root, a network namespace or a container: `wire`, `molecule`, `bench`, `soak`.
# shellcheck shell=bash

# Real servers and real knockers for the network namespaces.
WIRE_PACKAGES=(curl faketime git hping3 iproute2 ipset iptables knockd netcat-openbsd nmap openssh-client
    openssh-server procps rsync sshpass sudo telnet)

is_installed() { [[ "$(dpkg-query -W -f '${Status}' "$1" 2>/dev/null)" == "install ok installed" ]]; }

# openssh-server and knockd would start on this machine, now and at every boot. The tests start
# their own, so neither may.
keep_services_down() {
    local service
    for service in "$@"; do
        [[ ! -d /run/systemd/system ]] || systemctl -q disable --now "$service" || true
    done
}

install_quietly() {
    local policy=/usr/sbin/policy-rc.d ours="" code=0
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        ours=yes
    fi
    install_packages "$@" || code=$?
    [[ -z $ours ]] || rm -f "$policy"
    [[ " $* " != *" openssh-server "* ]] || keep_services_down ssh.service ssh.socket
    [[ " $* " != *" knockd "* ]] || keep_services_down knockd.service
    return "$code"
}

need_wire_packages() {
    local package missing=()
    for package in "${WIRE_PACKAGES[@]}"; do
        is_installed "$package" || missing+=("$package")
    done
    ((${#missing[@]} == 0)) || install_quietly "${missing[@]}"
}

with_controller() {
    # $1 seconds  $2... command, with ansible, molecule and the collection at hand
    local venv limit=$1
    shift
    venv=$(make_venv controller "$CONTROLLER_PYTHON" molecule)
    cd "$ROOT" || return
    PATH=$venv/bin:$PATH ANSIBLE_COLLECTIONS_PATH=$ROOT/.build \
        timeout --kill-after 60 "$limit" "$@"
}

on_the_wire() {
    need_wire_packages
    PORTKNOCK_CORES=$(make_core_venvs) || return
    export PORTKNOCK_CORES
    make_posix_collection "$(make_venv controller "$CONTROLLER_PYTHON" molecule)/bin/python" || return
    with_controller "$@"
}

run_executable() {
    # $1 stage  $2 name  $3 seconds  $4... path below the root and its arguments
    local stage=$1 name=$2 limit=$3
    shift 3
    bash "$ROOT/bin/lib/hosts.sh" collection_link >/dev/null
    if [[ -x $ROOT/$1 ]]; then
        check "$stage" "$name" on_the_wire "$limit" "$@"
    else
        fail_check "$stage" "$name" "$1 is not there or is not executable"
    fi
}

stage_wire() { run_executable wire "real packets" 3600 tests/wire/run; }

stage_bench() { run_executable bench "ratios" 1800 tests/bench/run; }

stage_soak() {
    local version
    version=$(python_version "$CONTROLLER_PYTHON")
    check soak "properties, thousands of examples" \
        unit_tests 7200 "unit-$version" "$CONTROLLER_PYTHON" unit --slow
    run_executable soak "wire, long" 10800 tests/wire/run --soak
    run_executable soak "bench, full" 10800 tests/bench/run --full
}

stage_molecule() {
    local file found=0
    bash "$ROOT/bin/lib/hosts.sh" collection_link >/dev/null
    check molecule "set-up: docker" acquire_docker
    for file in "$ROOT"/molecule/*/molecule.yml; do
        [[ -e $file ]] || continue
        found=1
        file=${file%/molecule.yml}
        SCENARIO=${file##*/}
        check molecule "$SCENARIO" with_controller 2400 molecule test -s "$SCENARIO"
    done
    SCENARIO=""
    release_docker
    ((found)) || fail_check molecule "scenarios" "there is no molecule/*/molecule.yml"
}

acquire_docker() { bash "$ROOT/bin/lib/hosts.sh" docker_acquire "bin-test.$$"; }

release_docker() { bash "$ROOT/bin/lib/hosts.sh" docker_release "bin-test.$$" >/dev/null 2>&1; }

# After an interruption: molecule leaves its containers where it is ended in mid-run.
end_scenario() {
    [[ -n ${SCENARIO:-} ]] || return 0
    with_controller 120 molecule destroy -s "$SCENARIO" >/dev/null 2>&1
    release_docker
}
