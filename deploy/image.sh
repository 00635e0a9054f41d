#!/usr/bin/env bash
# Makes a container image of a static relay, without a daemon and without a base image: it contains the program, the
# certificates of authorities, and a directory for messages. `cargo xtask package --image` calls it.
#
#   deploy/image.sh --relay-bin FILE --tag relay:0.1.0 --out FILE.oci.tar
#
# The output is an OCI archive: `skopeo copy oci-archive:FILE docker://...`, `podman load --input FILE`. It needs buildah.
# Users, paths, ports and variables are those of deploy/Dockerfile; there is no shell in it, and no HEALTHCHECK.
set -euo pipefail

relay_bin='' tag='' out=''
while (($#)); do
    case "$1" in
        --relay-bin) relay_bin="$2"; shift 2 ;;
        --tag) tag="$2"; shift 2 ;;
        --out) out="$2"; shift 2 ;;
        *) echo "image.sh: $1 is not understood" >&2; exit 2 ;;
    esac
done
[[ -n "$relay_bin" && -n "$tag" && -n "$out" ]] || { sed -n '2,8p' "${BASH_SOURCE[0]}" >&2; exit 2; }

stage="$(mktemp --directory)"
# Buildah keeps its containers and images in the same place, so nothing is left of them.
build() { buildah --root "$stage/root" --runroot "$stage/run" --storage-driver vfs "$@"; }
trap 'build rm --all >/dev/null 2>&1 || true; rm -rf "$stage"' EXIT

# The ids are fixed, so that Kubernetes can refer to them.
tree="$stage/tree"
install -D --mode 0755 "$relay_bin" "$tree/usr/local/bin/relay-bin"
strip --strip-unneeded "$tree/usr/local/bin/relay-bin"
# For a wake gateway behind https, and for PostgreSQL.
if [[ -e /etc/ssl/certs/ca-certificates.crt ]]; then
    install -D --mode 0644 /etc/ssl/certs/ca-certificates.crt "$tree/etc/ssl/certs/ca-certificates.crt"
fi
install --directory --mode 0700 --owner 10001 --group 10001 "$tree/var/lib/relay"

container="$(build from scratch)"
# Not `buildah add`, which would give the directory of the messages to root.
cp --archive "$tree/." "$(build mount "$container")/"
build umount "$container" >/dev/null
build config --user 10001:10001 --volume /var/lib/relay --port 7000 --port 7001 --stop-signal SIGTERM \
    --env RELAY__ADDRESS=0.0.0.0:7000 --env RELAY__ADMIN__ADDRESS=0.0.0.0:7001 --env RELAY__STORAGE__PATH=/var/lib/relay/db \
    --entrypoint '["/usr/local/bin/relay-bin"]' --cmd serve "$container"
mkdir -p "$(dirname "$out")"
build commit --quiet --timestamp "${SOURCE_DATE_EPOCH:-$(date +%s)}" "$container" "oci-archive:$out:$tag" >/dev/null
# It runs with nothing but what is in the image.
build run --isolation chroot "$(build from --quiet "oci-archive:$out:$tag")" -- /usr/local/bin/relay-bin --version
echo "$out"
