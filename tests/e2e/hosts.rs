//! `spawn` and `portmap` in other engines' hands: podman, dockerd, containerd and its CRI plugin, set up by the files of
//! docs/deploy.md, each on a machine of its own. And kernels that have less than this machine's.

mod containerd;
mod cri;
mod docker;
mod kernels;
mod places;
mod podman;

use crate::support::{Cmd, Need, Outcome, Sandbox, Test, source, test};

pub(crate) fn tests() -> Vec<Test> {
    let needs = &[Need::NetNs, Need::Overlay, Need::Nft, Need::Program("busybox"), Need::Program("jq")];
    let own = vec![test("a_host_is_cleaned_up", needs, a_host_is_cleaned_up)];
    let engines =
        [own, podman::tests(), docker::tests(), containerd::tests(), cri::tests(), kernels::tests(), places::tests()];
    engines.into_iter().flatten().collect()
}

/// Leaves what engines leave to the clean-up, of which the harness then finds nothing.
fn a_host_is_cleaned_up(sandbox: &Sandbox) {
    let host = Host::new(sandbox);
    host.ok("for link in docker0 cni0 podman0; do ip link add $link type bridge; done
        nft add table inet engine; nft add table ip canary
        for group in docker pods pods/web libpod_parent libpod_parent/conmon; do
            for tree in /sys/fs/cgroup /sys/fs/cgroup/*; do [ ! -e $tree/cgroup.procs ] || mkdir -p $tree/$group; done
        done
        for place in /run/docker/netns /run/containerd/task /var/lib/docker/layer; do
            mkdir -p $place; mount -t tmpfs engine $place
        done");
    host.down();
}

/// A machine on which the programs are installed as `make install` does it, and whose /etc, /opt, /usr/local and /var/lib
/// the test may write to.
struct Host<'a> {
    sandbox: &'a Sandbox,
}

const UP: &str = "
    cut -d' ' -f1 /proc/self/mountinfo >mounts
    mkdir -p layers
    for directory in etc usr/local; do
        layer=layers/$(echo $directory | tr / -)
        mkdir -p $layer/upper $layer/work
        mount -t overlay overlay -o lowerdir=/$directory,upperdir=$layer/upper,workdir=$layer/work /$directory
    done
    mount -t tmpfs host /opt
    mount -t tmpfs host /var/lib
    for file in containers/containers.conf containers/libpod.conf containers/storage.conf containers/registries.conf.d \\
        docker containerd cni; do rm -rf /etc/$file; done
    # Where a controller has no hierarchy, podman writes beside the others.
    if [ ! -e /sys/fs/cgroup/cgroup.procs ]; then
        mkdir groups
        mount -t tmpfs host groups
        for tree in /sys/fs/cgroup/*; do
            if [ -L $tree ]; then
                cp -P $tree groups/
            elif [ -e $tree/cgroup.procs ]; then
                mkdir groups/${tree##*/}
                mount --bind $tree groups/${tree##*/}
            fi
        done
        mount --rbind groups /sys/fs/cgroup
    fi
    mkdir -p /usr/local/lib/drayage
    rm -rf /usr/local/lib/drayage/bin
    ln -s \"$0\" /usr/local/lib/drayage/bin";

/// Takes away what engines keep on purpose once their last container is gone: bridges, chains, their containers' parent
/// groups, mounts of their state.
const DOWN: &str = "
    for group in conmon ''; do
        for parent in /sys/fs/cgroup/libpod_parent /sys/fs/cgroup/*/libpod_parent; do
            [ ! -d $parent/$group ] || until rmdir $parent/$group 2>/dev/null || [ ! -e $parent/cgroup.procs ]; do sleep 0.01; done
        done
    done
    for group in docker pods/web pods tests; do rmdir /sys/fs/cgroup/$group /sys/fs/cgroup/*/$group 2>/dev/null || :; done
    [ ! -d groups ] || umount -R -l /sys/fs/cgroup groups
    for bridge in docker0 cni0 cni-podman0 podman0; do ip link del $bridge 2>/dev/null || :; done
    nft flush ruleset
    awk 'NR == FNR { old[$1]; next }
        !($1 in old) && $5 ~ \"^(/var/lib|/run/(docker|containerd|containers|netns|libpod|user))/\" { print $5 }' \\
        mounts /proc/self/mountinfo | tac | xargs -r umount -l
    umount -l /var/lib /opt /usr/local /etc";

impl<'a> Host<'a> {
    fn new(sandbox: &'a Sandbox) -> Self {
        sandbox.cmd(&["sh", "-exc", UP, &sandbox.programs().display().to_string()]).run().ok();
        let host = Self { sandbox };
        host.ok(include_str!("hosts/image.sh"));
        host
    }

    /// Puts a file of docs/deploy.md where the document says it belongs; `more` is what only the test needs in it.
    fn install(&self, path: &str, more: &str) {
        self.sandbox.write(path, block(&format!("`{path}`")) + more);
    }

    fn sh(&self, script: &str) -> Cmd {
        self.sandbox.sh(&format!("set -eu\n{script}"))
    }

    /// Runs shell text that has to succeed.
    #[track_caller]
    fn ok(&self, script: &str) -> Outcome {
        self.sh(script).run().ok()
    }

    fn down(self) {
        self.sh(DOWN).run().ok();
    }
}

/// Returns the first fenced block of docs/deploy.md below the line that contains `text`.
fn block(text: &str) -> String {
    let document = std::fs::read_to_string(source().join("docs/deploy.md")).unwrap();
    let mut lines =
        document.lines().skip_while(|line| !line.contains(text)).skip_while(|line| !line.starts_with("```"));
    assert!(lines.next().is_some(), "docs/deploy.md has no block below {text}");
    lines.take_while(|line| *line != "```").flat_map(|line| [line, "\n"]).collect()
}
