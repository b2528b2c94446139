//! What docker and podman have and this has not, and what there is instead.

const WINDOWS: &str = "it is for Windows";

/// The options, without their values, and the hints.
const HINTS: [(&str, &str); 20] = [
    ("--link", "containers on one bridge find each other by name, and by --network-alias"),
    ("--link-local-ip", "--ip chooses the address"),
    ("--volume-driver", "mount it first, and give its directory: -v DIRECTORY:TARGET"),
    ("--storage-opt", "the file system below --root is the limit"),
    ("--kernel-memory", "the kernel has no such limit any more"),
    ("--disable-content-trust", "signatures are checked by `pull --verify` and policy.json"),
    ("--use-api-socket", "there is no daemon, and no socket of it"),
    ("--cpu-count", WINDOWS),
    ("--cpu-percent", WINDOWS),
    ("--io-maxbandwidth", WINDOWS),
    ("--io-maxiops", WINDOWS),
    ("--isolation", WINDOWS),
    ("--pod", "--network container:ID shares another container's network"),
    ("--secret", "-v FILE:/run/secrets/NAME:ro"),
    ("--tz", "-e TZ=ZONE"),
    ("--env-host", "-e NAME for each"),
    ("--authfile", "$REGISTRY_AUTH_FILE, or `pull --authfile` before"),
    ("--tls-verify", "`pull --tls-verify=false` before"),
    ("--arch", "--platform linux/ARCH"),
    ("--systemd", "--tmpfs /run --tmpfs /tmp and the image's stop signal"),
];

/// Returns what to say of an option that there is not.
pub(crate) fn complaint(option: &str) -> String {
    let name = option.split('=').next().unwrap_or(option);
    match HINTS.iter().find(|(hinted, _)| *hinted == name) {
        Some((_, hint)) => format!("no option {name}: {hint}"),
        None => format!("no option {name}: see run --help"),
    }
}
