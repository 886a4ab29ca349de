#!/usr/bin/env bash
# Install a built folder next to a running kubelet and container runtime, without a moment at which a call fails.
#
#   install.sh [--resident] FROM [DIR]      FROM: the built folder; DIR: /opt/cni/bin
#
# Order is everything. The contents directory comes first, complete, under a name that holds its build; then each
# executable by temp + rename, which from then on starts with the new contents. Calls that run meanwhile keep
# the executable and the contents that they started with: an old contents directory goes only when no process uses it.
#
# With --resident the executables in DIR are the launchers, and all the rest is in DIR/cni-flannel: it comes first.
# Then the systemd units, where systemd runs: the socket is enabled, and a resident process of before ends.
set -euo pipefail

die() { printf 'install: %s\n' "$*" >&2; exit 1; }

resident=
if [[ ${1:-} == --resident ]]; then
    resident=1
    shift
fi
[[ $# -ge 1 && $# -le 2 && -d $1 ]] || die "usage: install.sh [--resident] FROM [DIR]"
from=$(cd "$1" && pwd -P)
here=$(cd "${BASH_SOURCE[0]%/*}" && pwd -P)
mkdir -p "${2:-/opt/cni/bin}"
dir=$(cd "${2:-/opt/cni/bin}" && pwd -P)
programs=(flannel host-local)
units=/etc/systemd/system

contents=("$from"/.cni-flannel-*)
[[ ${#contents[@]} -eq 1 && -f ${contents[0]}/MARKER ]] || die "$from holds no built plugins: run ./build.sh"
name=${contents[0]##*/}
temporary=$dir/.tmp-cni-flannel.$$
trap 'rm -rf "$temporary"' EXIT
rm -rf "$temporary"

# One installation at a time. The lock is on the directory itself: no file is left.
exec 9<"$dir"
flock 9

# Every file of an installed contents directory is as built. The same build again finds nothing to do; one that was
# damaged is repaired file by file, each by rename, so that it is never without a file that it had.
put_contents() {
    local file
    if [[ ! -d $dir/$name ]]; then
        cp -R --preserve=mode "$from/$name" "$temporary"
        mv -T "$temporary" "$dir/$name"
        return
    fi
    while IFS= read -r -d '' file; do
        cmp -s "$from/$name/$file" "$dir/$name/$file" || put_file "$from/$name/$file" "$dir/$name/$file"
    done < <(cd "$from/$name" && find . -type f -print0)
}

put_file() {
    mkdir -p "${2%/*}"
    cp "$1" "$temporary"
    chmod --reference="$1" "$temporary"
    mv -fT "$temporary" "$2"
}

answers() { CNI_COMMAND=VERSION "$1" <<<'{"cniVersion":"1.0.0"}' | grep -q '"supportedVersions"'; }

# Whether a running process has started with a contents directory: it maps the libpython in it, known by inode.
in_use() {
    local library inodes=''
    for library in "$1"/libpython*; do
        [[ -e $library ]] || continue
        inodes+=" $(stat -c %i "$library") "
    done
    { cat /proc/[0-9]*/maps 2>/dev/null || true; } | # some end while we look
        awk -v inodes="$inodes" 'index(inodes, " " $5 " ") { found = 1 } END { exit !found }'
}

# A process that has started an executable which is replaced by now, and has perhaps not mapped its libpython yet.
starting() {
    local program link
    for link in /proc/[0-9]*/exe; do
        for program in "${programs[@]}"; do
            [[ $(readlink "$link" 2>/dev/null) == "$dir/$program (deleted)" ]] && return 0
        done
    done
    return 1
}

# Every process of the machine can be seen only from its first PID namespace, whose number is fixed in the kernel.
sees_every_process() { [[ $(readlink /proc/self/ns/pid) == 'pid:[4026531836]' ]]; }

remove_older_contents() {
    local old
    for old in "$dir"/.cni-flannel-*; do
        [[ -d $old && ${old##*/} != "$name" ]] || continue
        grep -qs '^cni-flannel ' "$old/MARKER" || continue # not proven ours
        if ! sees_every_process || starting || in_use "$old"; then
            printf 'install: kept %s, which may still be in use; the next installation removes it\n' "$old"
            continue
        fi
        rm -rf "$old"
        printf 'install: removed %s\n' "$old"
    done
}

# The pair into a folder: `dir` is where the functions above work.
put_pair() {
    local dir=$1 program
    mkdir -p "$dir"
    put_contents
    for program in "${programs[@]}"; do
        put_file "$from/$program" "$dir/$program"
        answers "$dir/$program" || die "$dir/$program does not answer VERSION"
    done
    remove_older_contents
}

# A launcher that knows the folder of the pair: written over the place that it keeps for it (launcher.c).
put_launcher() {
    local tag=CNI_FLANNEL_FROZEN= place folder=$dir/cni-flannel
    place=$(grep -abo -m1 "$tag" "$from/launcher/$1") || die "$from/launcher/$1 is no launcher: run ./build.sh"
    [[ ${#folder} -le 1000 ]] || die "$folder has ${#folder} bytes, and launchers have room for 1000"
    cp "$from/launcher/$1" "$temporary"
    printf '%s\0' "$folder" |
        dd of="$temporary" bs=1 seek=$((${place%%:*} + ${#tag})) conv=notrunc status=none
    chmod 0755 "$temporary"
    mv -fT "$temporary" "$dir/$1"
    answers "$dir/$1" || die "$dir/$1 does not answer VERSION"
}

put_units() {
    local unit
    for unit in cni-flannel.socket cni-flannel.service; do
        sed "s#@FOLDER@#$dir/cni-flannel#g" "$here/systemd/$unit" >"$temporary"
        chmod 0644 "$temporary"
        mv -fT "$temporary" "$1/$unit"
    done
}

# The socket first: a process of before would not let go of it, and the next one is started by a call.
start_service() {
    put_units "$units"
    systemctl daemon-reload
    systemctl enable cni-flannel.socket
    systemctl stop cni-flannel.service
    systemctl restart cni-flannel.socket
    printf 'install: cni-flannel.socket is enabled; the first call starts cni-flannel.service\n'
}

install_resident() {
    local program folder=$dir/cni-flannel
    [[ -x $from/launcher/flannel ]] || die "$from has no launchers: it was built without a C compiler"
    put_pair "$folder"
    put_file "$here/../docs/resident.md" "$folder/resident.md"
    for program in "${programs[@]}"; do
        put_launcher "$program"
    done
    name='' remove_older_contents # of a pair that was here itself, be it the same build
    printf 'install: launchers %s and %s are in %s, the pair in %s (%s)\n' "${programs[@]}" "$dir" "$folder" \
        "$(<"$folder/$name/MARKER")"
    if [[ -d /run/systemd/system ]]; then
        start_service
    else
        put_units "$folder"
        printf 'install: no systemd runs here. Let a supervisor of yours start, as root and in the network of the host:\n'
        printf 'install:     %s serve\n' "$folder/flannel"
        printf 'install: until it runs, the launchers do each call themselves. See %s/resident.md\n' "$folder"
    fi
}

if [[ -n $resident ]]; then
    install_resident
else
    put_pair "$dir"
    printf 'install: %s and %s are in %s (%s)\n' "${programs[@]}" "$dir" "$(<"$dir/$name/MARKER")"
    [[ ! -d $dir/cni-flannel ]] ||
        printf 'install: %s/cni-flannel is of resident mode, which the plugins do not use any more\n' "$dir"
fi
