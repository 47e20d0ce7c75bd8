# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# `ansible-test sanity`, part of the stage `lint`.
# shellcheck shell=bash

# ansible-test takes every Python it finds on PATH. pyenv's shims confuse it, so PATH gets the
# folders of the interpreters themselves.
pythons_path() {
    local version python path=""
    for version in 3.6 3.11 3.12 3.13; do
        python=$(find_python "$version") && path=$path:${python%/*}
    done
    say "${path#:}"
}

# ansible-test downloads get-pip from its maintainers' server. Where that cannot be reached it says
# which file it wants; a script that runs the same release of pip from its wheel does as well.
write_get_pip() {
    local path=$1 version wheels=$CACHE/pip-wheels
    version=${path##*/get_pip_}
    version=${version%.py}
    version=${version//_/.}
    "$2" -m pip download -q --no-deps --no-binary :none: --python-version 3.11 --only-binary :all: \
        -d "$wheels" "pip==$version" ||
        return 1
    mkdir -p "${path%/*}"
    cat >"$path" <<END
import runpy, sys
sys.path.insert(0, "$wheels/pip-$version-py3-none-any.whl")
sys.argv[1:] = ["install"] + [option for option in sys.argv[1:] if option not in ("--no-setuptools", "--no-wheel")]
runpy.run_module("pip", run_name="__main__")
END
}

ansible_test_sanity() {
    # $1 name of the copy and the virtual environment  $2 Python  $3 requirements
    local venv copy wanted log=$LOGS/sanity-$1.out round
    venv=$(make_venv "$1" "$2" "$3")
    copy=$(copy_collection "$1")
    cd "$copy" || return
    export HOME=$CACHE/home-$1
    export PATH=$venv/bin:$PYTHONS_PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    ansible --version
    # ansible-test takes every file in bin/ for Python; shellcheck and ruff look at those.
    # One round for each release of pip that is missing: the controller's and the one for 3.6.
    for round in 1 2 3 4; do
        if timeout 1200 ansible-test sanity --local --color no --skip-test pslint --exclude bin/ \
            >"$log" 2>&1; then
            cat "$log"
            return 0
        fi
        wanted=$(sed -n 's/^The bootstrap script can be manually downloaded and saved to: //p' "$log")
        [[ -n $wanted ]] || break
        say "Round $round: no get-pip from the network; making one from pip's wheel: $wanted"
        write_get_pip "$wanted" "$venv/bin/python"
    done
    cat "$log"
    return 1
}

sanity_ignores() {
    # Nothing is to be ignored: what sanity finds is to be mended.
    local file found=0
    for file in "$ROOT"/tests/sanity/ignore-*.txt; do
        [[ ! -s $file ]] || { say "$file has entries:" && cat "$file" && found=1; }
    done
    return "$found"
}

sanity_checks() {
    local oldest newest
    find_python 3.6 >/dev/null || warn "sanity's compile and import on Python 3.6: this machine has no python3.6"
    PYTHONS_PATH=$(pythons_path)
    check_beside lint "no sanity ignores" sanity_ignores
    if oldest=$(first_python 3.11 3.12 3.10); then
        check_beside lint "sanity, ansible-core 2.16" \
            ansible_test_sanity sanity-oldest "$oldest" core-oldest
    else
        warn "ansible-test sanity on ansible-core 2.16: it needs Python 3.10, 3.11 or 3.12"
    fi
    newest=$(first_python 3.13 3.12 3.11 3.10)
    check_beside lint "sanity, newest ansible-core" \
        ansible_test_sanity sanity-newest "$newest" core-newest
    [[ $(python_version "$newest") != 3.1[01] ]] ||
        warn "ansible-core newer than Python $(python_version "$newest") can run: sanity ran on an older one"
}
