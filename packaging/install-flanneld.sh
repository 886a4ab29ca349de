#!/usr/bin/env bash
# Install the daemon's built folder, also while a daemon of an earlier build runs from the same place.
#
#   install-flanneld.sh FROM [DIR]      FROM: the built folder; DIR: /usr/local/lib/flanneld
#
# The folder comes whole under a name that holds its build, then DIR/flanneld, a link into it, by rename. A daemon
# that runs loads what it needs later, and its forwarder, from the folder that it was started in: that one goes
# only when no process runs from it. The unit for systemd goes where systemd looks; nothing is started or stopped.
set -euo pipefail

die() { printf 'install: %s\n' "$*" >&2; exit 1; }

[[ $# -ge 1 && $# -le 2 && -d $1 ]] || die "usage: install-flanneld.sh FROM [DIR]"
from=$(cd "$1" && pwd -P)
here=$(cd "${BASH_SOURCE[0]%/*}" && pwd -P)
[[ -x $from/flanneld && -d $from/_internal ]] || die "$from holds no built daemon: run ./build.sh"
mkdir -p "${2:-/usr/local/lib/flanneld}"
dir=$(cd "${2:-/usr/local/lib/flanneld}" && pwd -P)
build=$(cd "$from" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum)
name=.flanneld-${build:0:8}
temporary=$dir/.tmp-flanneld.$$
trap 'rm -rf "$temporary"' EXIT

# One installation at a time. The lock is on the directory itself: no file is left.
exec 9<"$dir"
flock 9
rm -rf "$dir"/.tmp-flanneld.* # of installations that were killed

is_whole() { diff -rq "$from" "$dir/$name" >/dev/null 2>&1; }

# Every process of the machine can be seen only from its first PID namespace, whose number is fixed in the kernel.
sees_every_process() { [[ $(readlink /proc/self/ns/pid) == 'pid:[4026531836]' ]]; }

in_use() {
    local link
    for link in /proc/[0-9]*/exe; do
        [[ $(readlink "$link" 2>/dev/null) != "$1/flanneld" ]] || return 0
    done
    return 1
}

put_folder() {
    ! is_whole || return 0
    [[ ! -e $dir/$name ]] || ! in_use "$dir/$name" || die "$dir/$name is damaged, and in use: stop flanneld first"
    rm -rf "$temporary"
    cp -R --preserve=mode "$from" "$temporary"
    "$temporary/flanneld" --version >/dev/null 2>&1 || die "$from/flanneld does not answer --version"
    rm -rf "${dir:?}/$name"
    mv -T "$temporary" "$dir/$name"
}

put_link() {
    ln -s "$name/flanneld" "$temporary"
    mv -fT "$temporary" "$dir/flanneld"
}

put_unit() {
    sed "s#/usr/local/lib/flanneld#$dir#g" "$here/systemd/flanneld.service" >"$temporary"
    chmod 0644 "$temporary"
    mv -fT "$temporary" "$1/flanneld.service"
}

remove_older() {
    local old
    for old in "$dir"/.flanneld-*; do
        [[ -x $old/flanneld && -d $old/_internal && ${old##*/} != "$name" ]] || continue
        if ! sees_every_process || in_use "$old"; then
            printf 'install: kept %s, which may still be in use; the next installation removes it\n' "$old"
            continue
        fi
        rm -rf "$old"
        printf 'install: removed %s\n' "$old"
    done
}

put_folder
put_link
remove_older
printf 'install: flanneld is in %s (%s)\n' "$dir" "$("$dir/flanneld" --version 2>&1 | head -n 1)"
if [[ -d /run/systemd/system ]]; then
    put_unit /etc/systemd/system
    systemctl daemon-reload
    printf 'install: write its flags into /etc/default/flanneld, then: systemctl enable flanneld && systemctl restart flanneld\n'
else
    put_unit "$dir"
    printf 'install: no systemd runs here: %s/flanneld.service is for those that have it\n' "$dir"
fi
