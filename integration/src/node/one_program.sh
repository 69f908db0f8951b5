# Makes an image of one program and nothing else, not even a shell, but the libraries that it is linked with: a
# docker archive for `ctr images import`.
#
#   sh one_program.sh ARCHIVE NAME PROGRAM
set -eu
archive=$1 name=$2 program=$3
work=$(mktemp -d "$archive.XXXXXX")
trap 'rm -rf "$work"' EXIT

mkdir -p "$work/root/usr/local/bin" "$work/image"
cp -L "$program" "$work/root/usr/local/bin/"
# Nothing is listed of a static program.
for library in $(ldd "$program" 2>/dev/null | grep -o '/[^ ]*'); do
    mkdir -p "$work/root${library%/*}"
    cp -L "$library" "$work/root$library"
done
tar -C "$work/root" --owner=0 --group=0 --numeric-owner -cf "$work/image/layer.tar" .
layer=$(sha256sum "$work/image/layer.tar" | cut -d' ' -f1)
printf '{"architecture":"%s","os":"linux","config":{"Entrypoint":["/usr/local/bin/%s"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
    "$(dpkg --print-architecture)" "${program##*/}" "$layer" >"$work/image/config.json"
printf '[{"Config":"config.json","RepoTags":["%s"],"Layers":["layer.tar"]}]' "$name" >"$work/image/manifest.json"
tar -C "$work/image" -cf "$archive" manifest.json config.json layer.tar
