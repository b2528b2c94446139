# sh platform.sh ARCHITECTURE... - makes the OCI layout `layout` of busybox, tag 1, with an image for each architecture.
mkdir -p root/bin root/dev root/etc root/proc root/sys root/tmp layout/blobs/sha256
cp "$(command -v busybox)" root/bin/busybox
for applet in sh cat grep uname; do ln -s busybox "root/bin/$applet"; done

# blob FILE TYPE - moves it among the blobs and prints its descriptor
blob() {
    digest=$(sha256sum <"$1" | cut -d' ' -f1)
    printf '{"mediaType":"application/vnd.oci.image.%s","digest":"sha256:%s","size":%s}' "$2" "$digest" "$(wc -c <"$1")"
    mv "$1" "layout/blobs/sha256/$digest"
}
for architecture in "$@"; do
    echo "$architecture" >root/platform
    tar -C root -cf layer .
    layer=$(blob layer layer.v1.tar)
    jq -n --argjson layer "$layer" --arg architecture "$architecture" '{$architecture, os: "linux",
        config: {Env: ["PATH=/bin"]}, rootfs: {type: "layers", diff_ids: [$layer.digest]}}' >config
    config=$(blob config config.v1+json)
    echo '{"schemaVersion":2,"config":'"$config"',"layers":['"$layer"']}' >manifest
    blob manifest manifest.v1+json | jq --arg architecture "$architecture" '.platform = {$architecture, os: "linux"}'
done | jq -s '{schemaVersion: 2, manifests: .}' >index
index=$(blob index index.v1+json)
echo '{"imageLayoutVersion":"1.0.0"}' >layout/oci-layout
echo '{"schemaVersion":2,"manifests":['"$index"']}' |
    jq '.manifests[0].annotations = {"org.opencontainers.image.ref.name": "1"}' >layout/index.json
