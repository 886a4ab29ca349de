#!/usr/bin/env bash
# Install a built folder next to a running kubelet and container runtime, without a moment at which a call fails.
#
#   install.sh FROM [DIR]      FROM: the built folder; DIR: /opt/cni/bin
#
# Order is everything. The contents directory comes first, complete, under a name that holds its build; then each
# executable by temp + rename, which from then on starts with the new contents. Calls that run meanwhile keep
# the executable and the contents that they started with: an old contents directory goes only when no process uses it.
set -euo pipefail

die() { printf 'install: %s\n' "$*" >&2; exit 1; }

[[ $# -ge 1 && $# -le 2 && -d $1 ]] || die "usage: install.sh FROM [DIR]"
from=$(cd "$1" && pwd -P)
mkdir -p "${2:-/opt/cni/bin}"
dir=$(cd "${2:-/opt/cni/bin}" && pwd -P)
programs=(flannel host-local)

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

put_contents
for program in "${programs[@]}"; do
    put_file "$from/$program" "$dir/$program"
    answers "$dir/$program" || die "$dir/$program does not answer VERSION"
done
remove_older_contents
printf 'install: %s and %s are in %s (%s)\n' "${programs[@]}" "$dir" "$(<"$dir/$name/MARKER")"
