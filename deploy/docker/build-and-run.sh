#!/usr/bin/env bash
# Builds the image from the Dockerfile without a container registry, runs it as Kubernetes would
# (read-only, as user 65532, without capabilities, with a memory limit), probes it and stops it.
#
#   deploy/docker/build-and-run.sh [DIRECTORY FOR IMAGES]
#
# Needs root, Debian, network access to Debian's and Rust's servers, and the Debian packages buildah,
# podman, runc, mmdebstrap and curl, besides a rustup. Takes some ten minutes.
set -euo pipefail
cd "$(dirname "$0")/../.."

fail() {
  echo "build-and-run.sh: $*" >&2
  exit 1
}
[ "$(id -u)" -eq 0 ] || fail "run as root"
for need in buildah podman runc mmdebstrap curl rustup; do
  command -v "$need" >/dev/null || fail "$need not found"
done

images=${1:-$(mktemp -d)}
mkdir -p "$images"
storage=(--root "$images/storage" --runroot "$images/run" --storage-driver overlay)
# chroot isolation needs neither cgroups nor user namespaces.
buildah() { command buildah "${storage[@]}" "$@"; }
# runc also runs on hosts with both versions of control groups, where crun does not.
podman() { command podman "${storage[@]}" --cgroup-manager cgroupfs --runtime runc "$@"; }

# The base image of the Dockerfile's first FROM, built from Debian and rustup like the official
# one.
base=$(sed -n 's/^FROM --platform=\$BUILDPLATFORM \(rust:[^ ]*\) AS build$/\1/p' deploy/docker/Dockerfile)
[ -n "$base" ] || fail "the Dockerfile names no base image"
toolchain=${base#rust:} && suite=${toolchain#*-} && toolchain=${toolchain%%-*}
if ! buildah images --quiet "docker.io/library/$base" >/dev/null 2>&1; then
  root=$(mktemp -d)
  mmdebstrap --variant=minbase --include=ca-certificates,gcc,libc6-dev "$suite" "$root"
  # A network may use a private certificate authority.
  cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
  install -D "$(command -v rustup)" "$root/usr/local/cargo/bin/rustup"
  for program in cargo rustc; do
    ln -s rustup "$root/usr/local/cargo/bin/$program"
  done
  RUSTUP_HOME="$root/usr/local/rustup" CARGO_HOME="$root/usr/local/cargo" \
    rustup toolchain install "$toolchain" --profile minimal --component clippy,rustfmt --no-self-update
  container=$(buildah from scratch)
  buildah add --quiet "$container" "$root" /
  buildah config --env RUSTUP_HOME=/usr/local/rustup --env CARGO_HOME=/usr/local/cargo \
    --env PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
  buildah commit --quiet --rm "$container" "docker.io/library/$base"
  rm -rf "$root"
fi

image=localhost/api-key-exporter:test
# TARGETARCH is set by docker buildx and by newer versions of buildah.
buildah bud --isolation chroot --pull-never --format docker --tag "$image" \
  --build-arg "TARGETARCH=$(dpkg --print-architecture)" \
  --build-arg "REVISION=$(git rev-parse --short=12 HEAD)" \
  --ignorefile deploy/docker/Dockerfile.dockerignore --file deploy/docker/Dockerfile .

# An invalid token: polls fail, but the exporter is healthy and ready.
token=$(mktemp)
echo sk_live_test.token >"$token"
chmod 0444 "$token"
name=api-key-exporter-test-$$
trap 'podman rm --force "$name" >/dev/null; rm -f "$token"' EXIT
# Docker's own limits of files and processes can be higher than this host allows.
podman run --detach --name "$name" --read-only --user 65532:65532 --cap-drop all \
  --security-opt no-new-privileges --memory 384m --network host \
  --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 \
  --tmpfs /var/lib/api-key-exporter:rw,mode=1777 --volume "$token:/run/secrets/token:ro" \
  --env BITGPT_API_KEY_FILE=/run/secrets/token "$image" --web.listen-address=127.0.0.1:19120 >/dev/null

probe() { curl --silent --output /dev/null --write-out '%{http_code}' "http://127.0.0.1:19120$1" || true; }
wait_for() {
  for _ in $(seq 300); do
    [ "$(probe "$1")" = 200 ] && return
    sleep 0.1
  done
  podman logs "$name" >&2
  fail "$1 does not answer 200 within 30 seconds"
}
wait_for /-/healthy
# The first poll ends when its retries are used up.
wait_for /-/ready
wait_for /metrics
user=$(podman top "$name" huser | tail -n 1)
[ "$user" = 65532 ] || fail "runs as user $user"
if podman exec "$name" /api-key-exporter --version >/dev/null; then :; else fail "cannot execute"; fi
podman stop --time 10 "$name" >/dev/null
code=$(podman inspect --format '{{.State.ExitCode}}' "$name")
[ "$code" = 0 ] || fail "exit code $code after a stop"
podman logs "$name" 2>&1 | grep -q '"msg":"stopped"' || fail "the log does not say that it stopped"
if podman logs "$name" 2>&1 | grep -q test.token; then fail "the token is in the log"; fi
size=$(podman image inspect --format '{{.Size}}' "$image")
echo "build-and-run.sh: the image runs read-only as 65532, answers its probes and stops; $((size / 1024 / 1024)) MiB"
