# The first process of a machine: gives it file systems of its own, then reaps orphans.
set -eu
hostname "$1"
mount --make-rprivate /
for dir in /run /var/lib /var/log; do mount -t tmpfs -o mode=755 tmpfs "$dir"; done
mkdir -p /run/etc/upper /run/etc/work /run/lock
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work overlay /etc
mkdir -p /etc/cni/net.d /run/netns
: >/etc/resolv.conf
mount -t bpf bpf /sys/fs/bpf
# Containers see mounts that come later.
mount --make-rshared /
echo ready
exec >/dev/null
while :; do
  sleep 86400 &
  wait
done
