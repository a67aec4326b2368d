#!/usr/bin/env bash
# Boots this machine's systemd once more, in namespaces of its own and on a throwaway layer above its files, and runs a script
# there as root: machine.sh FOLDER. The folder is /pack within; FOLDER/drive.sh is what runs, FOLDER/out what it wrote. Exits
# as the script did. Nothing of the machine itself is changed.
set -euo pipefail
here=$(realpath "$1")
: >"$here/out"
: >"$here/console"

# A control group of its own, for systemd to be at the top of.
for groups in /sys/fs/cgroup/unified /sys/fs/cgroup; do
  if [ "$(stat -f -c %T "$groups" 2>/dev/null)" = cgroup2fs ]; then break; fi
done
group=$groups/lowport-test.$$
mkdir "$group"
trap 'find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null || true' EXIT
(
  echo "$BASHPID" >"$group/cgroup.procs"
  exec unshare --mount --pid --fork --kill-child --cgroup --uts --ipc --net --propagation private bash -euc '
    here=$1
    layer=$here/layer
    mkdir -p "$layer"
    mount -t tmpfs -o mode=755 tmpfs "$layer"
    mkdir "$layer/upper" "$layer/work" "$layer/root"
    root=$layer/root
    mount -t overlay overlay -o "lowerdir=/,upperdir=$layer/upper,workdir=$layer/work" "$root"
    mount -t proc proc "$root/proc"
    # Nothing of the kernel that others share is to be changed.
    mount --bind "$root/proc/sys" "$root/proc/sys"
    mount -o remount,ro,bind "$root/proc/sys"
    mount -t sysfs -o ro sysfs "$root/sys"
    mount -t cgroup2 cgroup "$root/sys/fs/cgroup"
    mount --rbind /dev "$root/dev"
    mount --make-rprivate "$root/dev"
    mount --bind "$here/console" "$root/dev/console"
    mount -t tmpfs -o mode=755 tmpfs "$root/run"
    mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
    mkdir "$root/run/pack" "$root/run/upper" "$root/run/lower" "$root/run/old"
    mount --bind "$here" "$root/run/pack"
    mount --bind "$layer/upper" "$root/run/upper"
    mount --bind / "$root/run/lower"
    ip link set lo up
    units=$root/run/systemd/system
    mkdir -p "$units"
    # What a machine starts with besides is left out.
    for unit in "$root"/lib/systemd/system/*.wants/* "$root"/etc/systemd/system/*.wants/*; do
      ln -sf /dev/null "$units/$(basename "$unit")"
    done
    ln -sf /dev/null "$units/systemd-journald.socket"
    ln -sf /dev/null "$units/systemd-journald-dev-log.socket"
    ln -sf /dev/null "$units/systemd-journald.service"
    cat >"$root/run/drive" <<TEXT
bash -eu /run/pack/drive.sh
systemctl exit \$?
TEXT
    cat >"$units/drive.target" <<TEXT
[Unit]
Requires=drive.service
TEXT
    cat >"$units/drive.service" <<TEXT
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=/bin/bash /run/drive
StandardOutput=append:/run/pack/out
StandardError=append:/run/pack/out
TimeoutStartSec=300
FailureAction=exit
FailureActionExitStatus=99
TEXT
    cd "$root"
    pivot_root . run/old
    umount -l /run/old
    exec env -i container=lowport-test PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
      /lib/systemd/systemd --unit=drive.target --show-status=no --log-target=console
  ' bash "$here"
) </dev/null
