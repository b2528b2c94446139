#!/bin/sh
# Makes layer.tar, busybox as a root file system, and image.tar, an OCI archive of it, localhost/busybox:1. Its program is
# what a pod's sandbox needs: one that waits.
mkdir -p root/bin root/dev root/etc root/proc root/root root/sys root/tmp layout/blobs/sha256
chmod 1777 root/tmp
cp "$(command -v busybox)" root/bin/busybox
for applet in $(root/bin/busybox --list | grep -vx busybox); do ln -s busybox "root/bin/$applet"; done
echo root:x:0:0:root:/root:/bin/sh >root/etc/passwd
echo root:x:0: >root/etc/group
tar -C root -cf layer.tar .

# blob FILE TYPE - moves it among the blobs and prints its descriptor
blob() {
    digest=$(sha256sum <"$1" | cut -d' ' -f1)
    printf '{"mediaType":"application/vnd.oci.image.%s","digest":"sha256:%s","size":%s}' "$2" "$digest" "$(wc -c <"$1")"
    mv "$1" "layout/blobs/sha256/$digest"
}
cp layer.tar layer
layer=$(blob layer layer.v1.tar)
diff=$(echo "$layer" | jq -r .digest)
echo '{"architecture":"amd64","os":"linux","config":{"Cmd":["sleep","1000"],"Env":["PATH=/bin"]},"rootfs":{"type":"layers","diff_ids":["'"$diff"'"]}}' >config
config=$(blob config config.v1+json)
echo '{"schemaVersion":2,"config":'"$config"',"layers":['"$layer"']}' >manifest
manifest=$(blob manifest manifest.v1+json)
echo '{"imageLayoutVersion":"1.0.0"}' >layout/oci-layout
echo '{"schemaVersion":2,"manifests":['"$manifest"']}' |
    jq '.manifests[0].annotations = {"org.opencontainers.image.ref.name": "1", "io.containerd.image.name": "localhost/busybox:1"}' >layout/index.json
tar -C layout -cf image.tar .
rm -r root layout
