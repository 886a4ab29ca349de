#!/usr/bin/env bash
# One command from a fresh checkout to a built, tested, demonstrated, measured or installed pair of plugins.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
    cat <<'TEXT'
usage: ./build.sh [COMMAND]

  build           (the default) freeze both plugins into dist/cni-flannel/, the daemon into dist/flanneld/
  sandbox [COMMAND...]
                  a shell on a private node, with everything set to call the plugins by hand
  demo            two pods in private network namespaces reach each other through the built plugins
  demo --nodes N [--backend vxlan|host-gw|udp] [--families 4|6|46]
                  N nodes with daemons, a real etcd, and who reaches whom
  test [--busy N] [ARG...]
                  linters, then every test; ARG goes to pytest (-k NAME, tests/unit, ...); with N busy
                  loops beside it. What tests make, files under /tmp included, goes when the run ends
  image           write dist/image/cni-flannel-ARCH.tar, the container image (deploy/, docs/install.md)
  cluster [--nodes N] [--families 4|46] [--backend vxlan|host-gw|udp] [--stay]
                  a real Kubernetes on N nodes: they turn Ready, pods reach each other, a Service answers
  mutate [AREA...]
                  put small faults into a copy of the checkout, and see whether its tests notice them
  lab [VERB...]   measure the daemon on nodes in network namespaces: all of it, or a verb (lab --help)
  conformance     every verb of `python -m conformance` in its full form (hours)
  bench [ARG...]  compare with Debian's Go plugins, interleaved (--json, --rounds N, --quick)
  bench udp [ARG...]  the daemon's udp backend against host-gw and a plain loop (--rounds N, --seconds S)
  install [--resident] [DIR]
                  put the plugins into DIR (/opt/cni/bin) while the node goes on working; with the
                  systemd units of resident mode
  install --daemon [DIR]
                  put the daemon into DIR (/usr/local/lib/flanneld), and its systemd unit
  install --uninstall [--daemon] [DIR]
                  put back what was there before, and remove all of ours (install --help has more)
  lock            write packaging/locks anew, after a pin in pyproject.toml has changed

./build.sh COMMAND --help prints this, or the command's own options, and does nothing else.

Each command sets up what it needs: a virtual environment in .venv with the versions pinned in
pyproject.toml, by their hashes, and, as root where there is apt-get, Debian packages. Nothing is done twice: a second run
with unchanged inputs starts at once. PYTHON=/path/to/python chooses the interpreter to freeze (3.11 or
later with a shared libpython); by default the first that fits is taken, Debian's own before others.
TEXT
}

say() { printf '%s\n' "$*" >&2; }
die() { say "build.sh: $*"; exit 1; }

# The caller's Python settings are for the caller's Python.
unset PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE PYTHONOPTIMIZE VIRTUAL_ENV

# ------------------------------------------------------------------------------------------- Debian packages

# require PROGRAM-OR-FILE=PACKAGE...: install the packages whose program or file is missing, or say which.
require() {
    local pair missing=()
    for pair in "$@"; do
        have "${pair%%=*}" || missing+=("${pair#*=}")
    done
    [[ ${#missing[@]} -eq 0 ]] && return
    if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
        die "missing: ${missing[*]} (Debian's package names; as root, this script installs them itself)"
    fi
    say "apt-get install ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update >&2
    apt-get -qq install --no-install-recommends "${missing[@]}" >&2
}

have() {
    case $1 in
        /*) [[ -e $1 ]] ;;
        *) PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null ;;
    esac
}

# ------------------------------------------------------------------------------------------------ Python

# Prints the version (3.11) of a usable interpreter: new enough, and its shared libpython can be loaded.
python_version() {
    "$1" -I -S -c '
import ctypes, os, sys, sysconfig
assert sys.version_info >= (3, 11)
name = "libpython%d.%d.so.1.0" % sys.version_info[:2]
try:
    ctypes.CDLL(name)
except OSError:
    ctypes.CDLL(os.path.join(sysconfig.get_config_var("LIBDIR"), name))
print("%d.%d" % sys.version_info[:2])' 2>/dev/null | grep -x '3\.[0-9]*'
}

# Sets `python`. Debian's interpreter comes first: a distribution's build is optimised, stripped, and
# has most of its C modules inside libpython, so that the frozen plugins start faster and are smaller.
find_python() {
    local candidate candidates=(/usr/bin/python3.{11..20} python3.{11..20} python3)
    [[ -z ${PYTHON:-} ]] || candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        python=$(command -v "$candidate") || continue
        python_version "$python" >/dev/null && return
    done
    [[ -z ${PYTHON:-} ]] || die "PYTHON=$PYTHON is no Python 3.11 or later with a shared libpython"
    if [[ -z ${tried_apt:-} ]]; then
        tried_apt=1
        local system=/usr/bin/python3 number
        number=$("$system" -c 'import sys; print("3.%d" % sys.version_info[1])' 2>/dev/null) || number=3.11
        require "/usr/lib/$(uname -m)-linux-gnu/libpython$number.so.1.0=libpython$number" \
            "/usr/bin/python$number=python$number"
        find_python
        return
    fi
    die "no Python >= 3.11 with a shared libpython: install python3.11 and libpython3.11 (Debian), or build" \
        "one with --enable-shared and name it in PYTHON"
}

# set_up GROUP: .venv with the dependency group of pyproject.toml (dev includes build). Only files whose hashes
# are in packaging/locks are installed.
set_up() {
    local group=$1 wanted number
    find_python
    wanted="$(readlink -f "$python") $(sha256sum packaging/locks/*.txt)"
    if [[ $group != dev && $group != fuzz && $(cat .venv/ready.dev 2>/dev/null) == "$wanted" ]]; then return; fi
    [[ $(cat ".venv/ready.$group" 2>/dev/null) == "$wanted" ]] && return
    number=$(python_version "$python")
    if [[ $python == /usr/bin/* ]]; then
        require "/usr/lib/python$number/ensurepip/__init__.py=python$number-venv"
    fi
    if [[ $(readlink -f .venv/bin/python 2>/dev/null) != "$(readlink -f "$python")" ]] ||
        ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        say "making .venv with $python"
        rm -rf .venv
        "$python" -m venv .venv
    fi
    say "installing the dependency group '$group' into .venv"
    .venv/bin/python -m pip --disable-pip-version-check install -q --require-hashes -r "packaging/locks/$group.txt"
    printf '%s' "$wanted" >".venv/ready.$group"
}

# ------------------------------------------------------------------------------------------------- build

# inputs FOLDER...: hash of everything that goes into a bundle of these packages.
inputs() {
    {
        printf '%s\n' "$(readlink -f "$python")" "$("$python" -VV)"
        declare -f build_plugins build_daemon compile_launcher compile_interpreter linked
        find "$@" packaging -type f \( -name '*.py' -o -name '*.spec' -o -name '*.[ch]' -o -path '*systemd*' -o -path '*embedded*' \) -print0 |
            LC_ALL=C sort -z | xargs -0 sha256sum pyproject.toml
    } | sha256sum | cut -d' ' -f1
}

build() {
    require strip=binutils objdump=binutils ldd=libc-bin cc=gcc /usr/include/stdio.h=libc6-dev
    have musl-gcc || [[ $EUID -ne 0 ]] || ! have apt-get || (require musl-gcc=musl-tools) ||
        say "no musl-gcc: the launchers start more slowly than they could"
    set_up build
    require "$("$python" -I -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h=lib${python##*/}-dev"
    build_plugins
    build_daemon
    mark
}

# The first digits of the hash are part of the folder's name.
build_plugins() {
    local now
    now=$(inputs cni ipam netlink cni_flannel)
    [[ -x dist/cni-flannel/flannel && $(cat build/inputs 2>/dev/null) == "$now" ]] && return
    say "freezing with $("$python" -V), $python"
    rm -rf build/dist
    compile_interpreter build/python
    CNI_FLANNEL_BUILD=${now:0:8} CNI_FLANNEL_PYTHON=$PWD/build/python CNI_FLANNEL_LINKED=$(linked) \
        PYTHONHASHSEED=0 PYI_LOG_LEVEL=WARN \
        LD_LIBRARY_PATH=$("$python" -I -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR"))') \
        .venv/bin/python -m PyInstaller \
        --noconfirm --log-level WARN --distpath build/dist --workpath build/work packaging/plugins.spec
    local program
    for program in flannel host-local; do
        compile_launcher "$program" "build/dist/cni-flannel/$program"
        CNI_COMMAND=VERSION "build/dist/cni-flannel/$program" <<<'{"cniVersion":"1.1.0"}' >/dev/null ||
            die "the frozen $program does not answer VERSION"
    done
    mkdir -p dist
    rm -rf dist/cni-flannel
    mv build/dist/cni-flannel dist/cni-flannel
    printf '%s' "$now" >build/inputs
    say "built dist/cni-flannel: $(size dist/cni-flannel)"
}

# What changes without another build: the commit that it is of, and a page of the docs.
mark() {
    local folder=dist/cni-flannel/.cni-flannel/current
    [[ ! -d $folder ]] || cp docs/resident.md "$folder/resident.md"
    put_marker "$folder" cni-flannel build/inputs cni ipam netlink cni_flannel
    put_marker dist/flanneld flanneld build/inputs.flanneld cni netlink flanneld
}

# put_marker FOLDER NAME INPUTS SOURCE...: `--version` shows the file, and `install` names the build by it.
put_marker() {
    local folder=$1 name=$2 inputs=$3 commit
    shift 3
    [[ -d $folder && -s $inputs ]] || return 0
    commit=$(git log -1 --format=%h -- "$@" packaging pyproject.toml 2>/dev/null) && [[ -n $commit ]] || commit=unknown
    [[ -z $(git status --porcelain -- "$@" packaging pyproject.toml 2>/dev/null) ]] || commit+=+changes
    printf '%s %s+%s, commit %s, %s, python %s\n' "$name" "$(version)" "$(head -c 8 "$inputs")" "$commit" \
        "$(uname -m)" "$("$python" -I -c 'import platform; print(platform.python_version())')" >"$folder/MARKER.new"
    mv "$folder/MARKER.new" "$folder/MARKER"
}

version() { sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml; }

# musl's start costs a fifth of glibc's (docs/decisions/0025).
launcher_compiler() {
    if [[ -n ${CC:-} ]]; then
        printf '%s' "$CC"
    elif have musl-gcc; then
        printf 'musl-gcc'
    else
        printf 'cc'
    fi
}

# compile_launcher PROGRAM OUTPUT [OPTION...]
compile_launcher() {
    "$(launcher_compiler)" -std=c11 -static -s -O2 -Wall -Wextra -DPROGRAM="\"$1\"" -o "$2" "${@:3}" \
        packaging/launcher/{launcher,frozen}.c
}

# Prints what is in a launcher beside our own, with colons between: for its licences.
linked() {
    compile_launcher flannel /dev/null -Wl,-t | sed 's/^(\(.*\)).*/\1/' | grep -E '\.a$|/[^/]*crt[^/]*\.o$' | sort -u | paste -sd:
}

# The libraries lie beside it; DT_RPATH, unlike DT_RUNPATH, is for what they need too.
compile_interpreter() {
    local words
    mapfile -t words < <("$python" -I -c '
import sys, sysconfig
print("-I" + sysconfig.get_path("include"))
print("-I" + sysconfig.get_path("platinclude"))
print("-L" + sysconfig.get_config_var("LIBDIR"))
print("-l:libpython%d.%d.so.1.0" % sys.version_info[:2])')
    cc -std=c11 -O2 -o "$1" packaging/launcher/python.c "${words[@]}" \
        "-Wl,--disable-new-dtags,-rpath,\$ORIGIN"
}

build_daemon() {
    local now
    now=$(inputs cni netlink flanneld)
    [[ -x dist/flanneld/flanneld && $(cat build/inputs.flanneld 2>/dev/null) == "$now" ]] && return
    say "freezing flanneld"
    rm -rf build/dist
    PYTHONHASHSEED=0 PYI_LOG_LEVEL=WARN .venv/bin/python -m PyInstaller \
        --noconfirm --log-level WARN --distpath build/dist --workpath build/work packaging/flanneld.spec
    build/dist/flanneld/flanneld --version >/dev/null || die "the frozen flanneld does not answer --version"
    mkdir -p dist
    rm -rf dist/flanneld
    mv build/dist/flanneld dist/flanneld
    printf '%s' "$now" >build/inputs.flanneld
    say "built dist/flanneld: $(size dist/flanneld)"
}

size() { du -sb "$1" | awk '{printf "%.1f MB", $1 / 1e6}'; }

# ------------------------------------------------------------------------------------------ the commands

network_programs=(ip=iproute2 ping=iputils-ping nft=nftables iptables=iptables unshare=util-linux)
runtime_programs=(containerd=containerd runc=runc podman=podman /usr/share/doc/busybox-static=busybox-static)

lab_programs=(etcd=etcd-server etcdctl=etcd-client ethtool=ethtool setpriv=util-linux nsenter=util-linux)

# What runs Kubernetes, and what builds it.
cluster_programs=(containerd=containerd runc=runc /usr/share/doc/busybox-static=busybox-static openssl=openssl
    /usr/lib/cni/portmap=containernetworking-plugins
    make=make rsync=rsync /usr/share/keyrings/debian-archive-keyring.gpg=debian-archive-keyring)

# takes_none COMMAND ARGUMENT...
takes_none() {
    [[ $# -gt 1 ]] || return 0
    say "build.sh: $1 takes no arguments: ${*:2}; --help shows what there is"
    exit 2
}

run_build() {
    takes_none build "$@"
    build
    say "dist/cni-flannel and dist/flanneld are ready: ./build.sh demo shows it, ./build.sh install [DIR] installs it"
}

run_sandbox() {
    if [[ ${1:-} == -* ]]; then
        say "build.sh: sandbox takes a COMMAND, not $1; --help shows what there is"
        exit 2
    fi
    require "${network_programs[@]}"
    build
    locked_off
    exec packaging/sandbox.sh "$@"
}

run_demo() {
    if [[ $# -gt 0 ]]; then run_on_nodes demo "$@"; fi
    require "${network_programs[@]}"
    build
    locked_off
    exec .venv/bin/python -I -u packaging/demo.py
}

run_test() {
    local busy=()
    if [[ ${1:-} == --busy ]]; then
        [[ ${2:-} =~ ^[0-9]+$ ]] || { say "build.sh: test --busy takes a number; --help shows what there is"; exit 2; }
        busy=("${@:1:2}")
        shift 2
    fi
    require "${network_programs[@]}" "${runtime_programs[@]}" strace=strace shellcheck=shellcheck git=git \
        /usr/lib/cni/bridge=containernetworking-plugins \
        systemd-analyze=systemd "${lab_programs[@]}" "${cluster_programs[@]}"
    set_up dev
    set_up fuzz # a test starts `conformance`, where there is no network
    build
    build_image
    locked_off
    export CNI_FLANNEL_BIN=${CNI_FLANNEL_BIN:-$PWD/dist/cni-flannel}
    # The tests themselves have no network. Without it, those that need it fail, and say so.
    if [[ $EUID -eq 0 ]] && [[ $# -eq 0 || "$*" == *tests/kube* ]]; then
        .venv/bin/python -m tests.kube.binaries >/dev/null || say "Kubernetes was not built"
    fi
    exec .venv/bin/python -m tests.enclosure "${busy[@]}" .venv/bin/python -m pytest -n auto "$@"
}

run_image() {
    takes_none image "$@"
    require /usr/sbin/xtables-nft-multi=iptables nft=nftables
    build
    build_image
    say "$image is ready: ctr -n k8s.io images import $image"
}

# Sets `image`. Made anew when what goes into it has changed.
build_image() {
    local machine now
    machine=$(uname -m)
    case $machine in
        x86_64) machine=amd64 ;;
        aarch64) machine=arm64 ;;
    esac
    image=dist/image/cni-flannel-$machine.tar
    now=$(sha256sum build/inputs build/inputs.flanneld dist/*/MARKER dist/*/.cni-flannel/current/MARKER \
        deploy/image.py packaging/*.py conformance/real/oci.py /usr/sbin/{xtables-nft-multi,xtables-legacy-multi,nft} 2>/dev/null |
        sha256sum)
    [[ -e $image && $(cat build/inputs.image 2>/dev/null) == "$now" ]] && return
    mkdir -p dist/image
    PYTHONPATH=$PWD:$PWD/packaging .venv/bin/python deploy/image.py "$image"
    printf '%s' "$now" >build/inputs.image
    say "built $image: $(size "$image")"
}

run_cluster() {
    find_python
    case " $* " in *" --help "* | *" -h "*) exec "$python" -m tests.kube.words "$@" ;; esac
    "$python" -m tests.kube.words "$@" || exit
    [[ $EUID -eq 0 ]] || die "cluster: containers and cgroups need root here"
    require "${network_programs[@]}" "${lab_programs[@]}" "${cluster_programs[@]}"
    set_up test
    build
    locked_off
    exec .venv/bin/python -m tests.kube "$@"
}

run_mutate() {
    case " $* " in *" --help "* | *" -h "*) find_python && exec "$python" -m tests.mutants "$@" ;; esac
    require "${network_programs[@]}" git=git cc=gcc "${lab_programs[@]}" strace=strace \
        /usr/lib/cni/bridge=containernetworking-plugins
    set_up dev
    locked_off
    exec .venv/bin/python -m tests.enclosure .venv/bin/python -m tests.mutants "$@"
}

run_lab() { run_on_nodes "$@"; }

# The lab's nodes are network namespaces, with the frozen daemon and the frozen plugins in them.
run_on_nodes() {
    find_python
    case " $* " in *" --help "* | *" -h "*) exec "$python" -m tests.lab.words "$@" ;; esac
    "$python" -m tests.lab.words "$@" || exit # before anything is installed or built
    require "${network_programs[@]}" "${lab_programs[@]}"
    set_up test
    build
    locked_off
    exec .venv/bin/python -m tests.lab "$@"
}

resident_verbs='conformance run --resident --spec all --jobs 2
conformance compare --resident
conformance runtime --resident
conformance containerd --resident
conformance podman --resident
conformance hostile --resident
conformance storm --resident
conformance fuzz --resident --calls 5000
conformance soak --resident --cycles 5000
conformance fault --resident
conformance crash --resident
conformance server-crash --stops 4
conformance server-trouble
conformance server-hostile
conformance server-kills
conformance server-soak'

run_conformance() {
    takes_none conformance "$@"
    trap 'say "conformance: interrupted"; exit 130' INT # the whole run, not the verb that runs
    require "${network_programs[@]}" "${runtime_programs[@]}" strace=strace \
        /usr/lib/cni/bridge=containernetworking-plugins
    set_up dev
    set_up fuzz
    build
    locked_off
    local verb failed=() figures=build/conformance.new resident=()
    : >"$figures"
    mapfile -t resident <<<"$resident_verbs"
    for verb in "conformance run --spec all --jobs 2" "conformance compare" "conformance runtime" \
        "conformance containerd" "conformance podman" "conformance hostile" "conformance storm" \
        "tests.fuzz" "tests.fuzz --atheris" "conformance fuzz --calls 5000" \
        "conformance soak --cycles 5000" "conformance fault" "conformance crash" "${resident[@]}"; do
        say "python -m $verb"
        # shellcheck disable=SC2086 # a module, a verb and its options
        .venv/bin/python -m $verb | tee build/conformance.last || failed+=("$verb")
        printf '%s  (%s)\n' "$(tail -n 1 build/conformance.last)" "python -m $verb" >>"$figures"
    done
    mv "$figures" build/conformance.txt
    say "" && cat build/conformance.txt >&2
    [[ ${#failed[@]} -eq 0 ]] || die "conformance failed: ${failed[*]}"
}

# For whoever changes a pin.
run_lock() {
    takes_none lock "$@"
    find_python
    rm -rf build/lock
    "$python" -m venv build/lock
    build/lock/bin/python -m pip --disable-pip-version-check install -q pip-tools==7.6.2
    PIP_CONFIG_FILE=/dev/null PIP_FIND_LINKS='' build/lock/bin/python packaging/lock.py
    rm -rf build/lock
}

run_bench() {
    find_python
    case " $* " in
        *" --help "* | *" -h "*)
            [[ ${1:-} != udp ]] || exec "$python" -m bench.udp "${@:2}"
            exec "$python" -m bench.bench "$@"
            ;;
    esac
    require "${network_programs[@]}" /usr/lib/cni/bridge=containernetworking-plugins
    build
    locked_off
    [[ ${1:-} != udp ]] || exec .venv/bin/python -m bench.udp "${@:2}"
    exec .venv/bin/python -m bench.bench "$@"
}

# Nothing is built for words that cannot be done.
run_install() {
    find_python
    case " $* " in
        *" --help "* | *" -h "* | *" --uninstall "*)
            locked_off
            exec "$python" -m flanneld install "$@"
            ;;
    esac
    "$python" -m flanneld install --check "$@" || exit
    build
    locked_off
    exec dist/flanneld/flanneld install "$@"
}

# Two runs at once in one checkout: the second waits while the first sets up and builds.
locked_on() {
    mkdir -p build
    exec 9>build/lock
    flock 9
}

locked_off() { exec 9>&-; }

main() {
    local command=${1-build}
    [[ $# -eq 0 ]] || shift
    case $command in
        -h | --help | help) usage ;;
        build | sandbox | demo | image | cluster | test | mutate | lab | conformance | bench | install | lock)
            case $command:${1:-} in
                build:-h | build:--help | sandbox:-h | sandbox:--help | test:-h | test:--help | \
                    conformance:-h | conformance:--help | image:-h | image:--help | lock:-h | lock:--help | cluster:-h | cluster:--help)
                    usage
                    exit
                    ;;
            esac
            locked_on
            "run_$command" "$@"
            ;;
        *)
            say "build.sh: no command is called '$command'; ./build.sh --help lists them"
            exit 2
            ;;
    esac
}

main "$@"
