# What a host does first, in its namespaces: a root of its own over this machine's, and systemd. $0: its directory.
set -e
dir=$0
mkdir -p "$dir/layers" "$dir/shared/journal"
mount -t tmpfs tmpfs "$dir/layers"
mkdir "$dir/layers/upper" "$dir/layers/work" "$dir/layers/root"
root=$dir/layers/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/layers/upper,workdir=$dir/layers/work" "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
# As in a container: what is the kernel's is not this host's to change.
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,ro,bind "$root/proc/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mount --bind "$dir/shared" "$root/mnt"
ip link set lo up 2>/dev/null || true

# Nothing of this machine is that host's: neither its services nor an earlier Firn.
etc=$root/etc
rm -rf "$etc"/systemd/system/*.wants "$root"/var/lib/firn "$root"/var/lib/libvirt/qemu "$etc"/libvirt/hooks "$etc"/libvirt/qemu
rm -rf "$root"/var/lib/systemd/deb-systemd-helper-*/firn-*
mkdir -p "$etc/libvirt/hooks" "$etc/systemd/journald.conf.d" "$root/var/log/journal"
mount --bind "$dir/shared/journal" "$root/var/log/journal"
printf '%s\n' '[Journal]' 'Storage=persistent' 'RateLimitBurst=0' >"$etc/systemd/journald.conf.d/test.conf"
for unit in systemd-udevd.service systemd-remount-fs.service systemd-modules-load.service systemd-networkd.service systemd-timesyncd.service getty.target console-getty.service \
    apparmor.service networking.service virtlockd.socket; do
    ln -sf /dev/null "$etc/systemd/system/$unit"
done
: >"$etc/machine-id"
# Guests as root, without what takes a real host.
printf '%s\n' 'user = "root"' 'group = "root"' 'security_driver = "none"' 'namespaces = []' 'cgroup_controllers = []' \
    'remember_owner = 0' >>"$etc/libvirt/qemu.conf"
printf '%s\n' 'ON_SHUTDOWN=shutdown' 'SHUTDOWN_TIMEOUT=3' >>"$etc/default/libvirt-guests"
# Packages start what they bring, as on a real host.
rm -f "$root/usr/sbin/policy-rc.d"

mkdir -p "$root/old"
cd "$root"
pivot_root . old
# Without this machine's own root, which a shutdown would find among its mounts.
exec chroot . /usr/bin/env -i container=firn PATH=/usr/sbin:/usr/bin:/sbin:/bin sh -c 'umount -l /old && exec "$@"' sh \
    /lib/systemd/systemd --system --unit=multi-user.target --log-target=journal --show-status=0
