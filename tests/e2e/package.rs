//! What `make deb tarball` makes: the same each time, whole, and gone again when it is removed.

use std::process::Command;
use std::time::Duration;

use crate::support::{Need, Sandbox, Test, image, programs_directory, source, test};

pub(crate) fn tests() -> Vec<Test> {
    let needs: &[Need] = &[
        Need::Registry,
        Need::Overlay,
        Need::Program("dpkg-deb"),
        Need::Program("strip"),
        Need::Program("man"),
        Need::Program("lintian"),
    ];
    let install = test("make_uninstall_removes_what_make_install_has_put_there", &[], uninstall);
    vec![install, test("packages_are_reproduced_installed_used_and_removed", needs, packages)]
}

/// The programs are of another architecture here, and so others say what the manual needs.
fn uninstall(sandbox: &Sandbox) {
    let make = |target: &str| {
        let made = Command::new("make")
            .args(["-s", target, "PREFIX=/usr"])
            .arg(format!("BIN={}", sandbox.at("programs")))
            .arg(format!("NATIVE={}", programs_directory().display()))
            .arg(format!("DESTDIR={}", sandbox.at("installed")))
            .current_dir(source())
            .output()
            .unwrap();
        assert!(made.status.success() && made.stderr.is_empty(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    let tools = "mkdir programs; cd programs; for tool in pull push unpack bundle ns portmap spawn keep run compose; do
        echo no program >$tool; chmod +x $tool; done";
    sandbox.sh(tools).run().ok();
    make("install");
    let count = "cd installed/usr; find . -name '*drayage' -type f";
    let shown = sandbox.sh(count).run().ok().stdout;
    for file in ["bin/drayage", "completions/drayage", "site-functions/_drayage"] {
        assert!(shown.contains(file), "{shown}");
    }
    assert!(sandbox.exists("installed/usr/share/man/man1/drayage-ns-network-create.1"), "{shown}");
    make("uninstall");
    sandbox.sh("find installed -type f").run().ok().stdout_is("");
}

fn packages(sandbox: &Sandbox) {
    sandbox.write("stripped/.keep", "");
    // As a release's are: those under test may have all that a debugger wants.
    let strip = "for tool in pull push unpack bundle ns portmap spawn keep run compose; do
        strip -o stripped/$tool $1/$tool; done";
    sandbox.run(&["sh", "-ec", strip, "sh", programs_directory().to_str().unwrap()]).ok();
    // The pages of the second are what others say of themselves, as those of another architecture's programs have to be.
    for (out, native) in [("first", "stripped".into()), ("second", programs_directory().to_owned())] {
        // Not in the sandbox, which has none of cargo's files.
        let made = Command::new(source().join("front/package"))
            .args([sandbox.outside("stripped"), sandbox.outside(out), sandbox.outside(native)])
            .env("DPKG_DEB_COMPRESSOR_TYPE", "gzip")
            .env("DPKG_DEB_COMPRESSOR_LEVEL", "1")
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
    sandbox.sh("diff -r first second; cd first; sha256sum -c SHA256SUMS").run().ok().stderr_is("");
    let listed = sandbox.sh("dpkg-deb --contents first/*.deb").run().ok();
    listed.stdout_has("docs/levels/01-run.md").stdout_has("docs/levels/01-run.svg").stdout_has("record.schema.json");
    sandbox.sh("lintian --no-cfg --allow-root first/*.deb").limit(Duration::from_secs(170)).run().ok().stdout_is("");
    let tarball = "set -e; tar xzf first/*.tar.gz; drayage-*/install $SANDBOX/opt >/dev/null
        opt/bin/drayage run --version | cut -d' ' -f1; grep ^ExecStart= opt/lib/systemd/system/drayage.service
        opt/bin/drayage run --rm --network none $1 echo used; opt/bin/drayage __complete keep att | cut -f1
        for page in drayage-keep-logs 'drayage ps' drayage-ns-network-create drayage-record; do
            MANWIDTH=80 man -M opt/share/man $page | grep -m 1 -A 1 ^NAME | tail -n 1
        done
        dpkg-deb -c first/*.deb | grep -o 'share/man/man1/drayage-run.*'
        drayage-*/install --remove $SANDBOX/opt >/dev/null; find opt -type f";
    let busybox = image("busybox").reference;
    let unit = format!("ExecStart={}/bin/drayage keep start --boot\n", sandbox.at("opt"));
    let pages = "       drayage-keep-logs - print a container's output
       drayage-keep-list - list containers, including ended ones
       drayage-ns-network-create - create a network, which exists until it is
       drayage-record - the JSON object that passes between two stages
share/man/man1/drayage-run.1.gz\n";
    sandbox.run(&["sh", "-c", tarball, "sh", &busybox]).ok().stdout_is(&format!("run\n{unit}used\nattach\n{pages}"));
    // Another Debian's root, which knows nothing of this machine's packages. The package asks for none.
    let deb = r"set -e
        pull $1 | unpack --flat root >/dev/null; mkdir -p root/proc root/sys/fs/cgroup root/dev root/old
        dpkg --root=$SANDBOX/root -i first/*.deb >/dev/null; dpkg --root=$SANDBOX/root -V drayage
        cat >use <<'USE'
            mount --rbind root root; cd root; mount -t proc proc proc; mount --rbind /dev dev; mount --rbind /sys sys
            pivot_root . old; umount -l old
            unset DRAYAGE_ROOT; exec /usr/bin/drayage run --rm --network none $1 echo used
USE
        unshare -m sh -e use $2
        dpkg --root=$SANDBOX/root -P drayage >/dev/null; find root/etc root/usr root/var -name '*drayage*'";
    let debian = image("debian").reference;
    sandbox.run(&["sh", "-c", deb, "sh", &debian, &busybox]).ok().stdout_is("used\nroot/var/lib/drayage\n");
}
