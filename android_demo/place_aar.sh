#!/bin/sh
# Copies Larq Compute Engine's Android library, downloaded from its releases on GitHub, to where the build expects it.
#   ./place_aar.sh DOWNLOADED_FILE [SHA256]
# The first file's hash is kept in app/libs/lce.aar.sha256; for another file give its hash, or remove that one.
set -eu

fail() {
  echo "error: $1" >&2
  exit "$2"
}

[ $# -ge 1 ] && [ $# -le 2 ] || fail "received $# arguments; run ./place_aar.sh DOWNLOADED_FILE [SHA256]" 2
file=$1
[ -f "$file" ] || fail "no such file: received '$file', download the .aar of Larq Compute Engine's releases" 2
libs=$(cd "$(dirname "$0")" && pwd)/app/libs
known=$libs/lce.aar.sha256

contents=$(unzip -Z1 "$file" 2>/dev/null) || fail "'$file' is not an .aar: download the file itself, not its page" 1
for part in classes.jar jni/arm64-v8a/libtensorflowlite_jni.so; do
  echo "$contents" | grep -qx "$part" || fail "'$file' holds no $part: take the .aar of Larq Compute Engine" 1
done
# Stock TensorFlow Lite has the same parts without the binary operators, which the library's strings name.
unzip -p "$file" jni/arm64-v8a/libtensorflowlite_jni.so | grep -q LceBconv2d ||
  fail "'$file' does not contain LceBconv2d: it is stock TensorFlow Lite, take the .aar of Larq Compute Engine" 1

hash=$(sha256sum "$file" | cut -d ' ' -f 1)
expected=${2:-$(cat "$known" 2>/dev/null || echo "$hash")}
[ "$hash" = "$expected" ] || fail "'$file' has SHA-256 $hash, expected $expected: download it again" 1

mkdir -p "$libs"
cp "$file" "$libs/.lce.aar"
mv "$libs/.lce.aar" "$libs/lce.aar"
echo "$hash" >"$known"
echo "app/libs/lce.aar: SHA-256 $hash"
