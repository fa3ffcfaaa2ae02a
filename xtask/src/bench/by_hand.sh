#!/bin/sh
# PostgreSQL as somebody sets it up by hand: what Coffer is compared with.
#
#   by_hand.sh init  DIR TREE UID PORT            an empty volume, initdb, start
#   by_hand.sh clone DIR TREE UID PORT TEMPLATE [WORD...]
#                                                 a clone of a template, start with these words
#
# DIR lies in the pool that Coffer's own volumes lie in. TREE is the engine root they run from. The
# volume is of their kind: an XFS in a file behind a loop device with direct I/O and sectors of
# 4096 bytes. With `init` it is made and mounted first, and nothing more is done until a line comes
# through DIR/go: what is compared is initdb and start. The process becomes the postmaster, in a
# mount namespace of its own, so that its end takes everything away but DIR. Files in DIR/files are
# the engine's own in its /run.
set -eu
how=$1 dir=$2 tree=$3 uid=$4 port=$5
if [ -z "${BY_HAND_APART:-}" ]; then
  BY_HAND_APART=1 exec unshare --mount --propagation private -- sh "$0" "$@"
fi
mkdir -p "$dir/root"
case $how in
init)
  truncate -s 1G "$dir/volume.img"
  mkfs.xfs -q -f -s size=4096 -m reflink=1 -d agcount=2 "$dir/volume.img"
  ;;
clone)
  cp --reflink=auto "$6" "$dir/volume.img"
  shift
  ;;
esac
shift 5
device=$(losetup --find --show --direct-io=on --sector-size 4096 "$dir/volume.img")
mount --bind "$tree" "$dir/root"
mount -o nouuid,discard "$device" "$dir/root/data"
losetup --detach "$device" # when it is unmounted
mount -t tmpfs tmpfs "$dir/root/run"
mount -t tmpfs tmpfs "$dir/root/tmp"
mount --bind /dev "$dir/root/dev"
mount -t tmpfs -o mode=1777 tmpfs "$dir/root/dev/shm"
echo "engine:x:$uid:$uid::/:/bin/sh" >"$dir/passwd" # initdb looks itself up
mount --bind "$dir/passwd" "$dir/root/etc/passwd"
data=/data/engine/pgdata
mkdir -p "$dir/root/data/engine"
chown -R "$uid:$uid" "$dir/root/data/engine"
printf 'local all all trust\nhost all all 127.0.0.1/32 trust\n' >"$dir/root/run/hba"
chmod 0644 "$dir/root/run/hba"
if [ -d "$dir/files" ]; then
  cp "$dir"/files/* "$dir/root/run/"
  chown -R "$uid:$uid" "$dir/root/run"
  chmod 0600 "$dir"/root/run/*
fi
version=$(ls "$dir/root/usr/lib/postgresql")
bin=/usr/lib/postgresql/$version/bin
as="chroot --userspec=$uid:$uid $dir/root"
export LC_ALL=C.UTF-8 TZ=UTC PATH=/usr/bin:/bin:/usr/sbin:/sbin
if [ "$how" = init ]; then
  mkfifo "$dir/go.new"
  mv "$dir/go.new" "$dir/go"
  read -r _ <"$dir/go"
  $as "$bin/initdb" -D $data -U coffer -E UTF8 --locale=C.UTF-8 --locale-provider=builtin \
    --builtin-locale=C.UTF-8 --data-checksums --auth=trust >/dev/null
fi
exec $as "$bin/postgres" -D $data -c "port=$port" -c listen_addresses=127.0.0.1 \
  -c hba_file=/run/hba -c unix_socket_directories=/tmp -c wal_level=replica -c summarize_wal=on "$@"
