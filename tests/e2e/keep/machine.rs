//! What a real boot starts again: in the machine that `tests/vm` makes, and there only.

use std::time::Duration;

use crate::support::{Need, Sandbox, Test, test};

/// No sandbox: the machine's own systemd executes the unit that `make install` has installed.
const MACHINE: &[Need] = &[Need::Program("busybox"), Need::Program("systemctl")];

pub(crate) fn tests() -> Vec<Test> {
    if std::env::var_os("DRAYAGE_VM").is_none() {
        return Vec::new();
    }
    vec![
        test("a_reboot_starts_what_nobody_has_stopped", MACHINE, reboot),
        test("a_unit_starts_stops_and_restarts_its_container", MACHINE, unit),
    ]
}

const BEFORE: &str = "
    mkdir -p /srv/root/bin /srv/root/page
    cp \"$(command -v busybox)\" /srv/root/bin/busybox
    for applet in httpd sleep; do ln -s busybox /srv/root/bin/$applet; done
    echo served >/srv/root/page/index.html
    systemctl daemon-reload
    systemctl enable drayage 2>/dev/null
    drayage run -d --name always --restart always -p 8081:81 --rootfs /srv/root httpd -f -p 81 -h /page
    drayage run -d --name unless --restart unless-stopped --rootfs /srv/root sleep 100000
    drayage run -d --name stopped --restart unless-stopped --rootfs /srv/root sleep 100000
    drayage run -d --name fails --restart on-failure --rootfs /srv/root sleep 100000
    drayage run -d --name once --rootfs /srv/root sleep 100000
    drayage run -d --name united --rootfs /srv/root sleep 100000
    drayage keep stop -t 0 stopped united
    drayage unit united >/etc/systemd/system/united.service
    systemctl enable united 2>/dev/null
    drayage keep list --running -q | sort | xargs
    cp /proc/sys/kernel/random/boot_id /srv/boot";

const AFTER: &str = "
    cmp -s /proc/sys/kernel/random/boot_id /srv/boot && echo the same boot
    systemctl is-active drayage
    drayage keep list --running -q | sort | xargs
    drayage keep list -q | sort | xargs
    busybox wget -q -O - http://127.0.0.1:8081/
    drayage spawn exec always busybox true && echo entered";

/// The test is run twice, on both sides of the reboot.
fn reboot(sandbox: &Sandbox) {
    let machine =
        |script: &str| sandbox.sh(&format!("set -eu; unset DRAYAGE_ROOT\n{script}")).limit(Duration::from_secs(170));
    if !sandbox.exists("/srv/boot") {
        let before = "always\nunless\nstopped\nfails\nonce\nunited\nstopped\nunited\nalways fails once unless\n";
        machine(BEFORE).run().ok().stdout_is(before);
        // The machine's end is this program's.
        machine("touch /run/reboots; systemctl reboot; exec sleep 1000").run();
        panic!("the machine goes on");
    }
    let after = "active\nalways united unless\nalways fails once stopped united unless\nserved\nentered\n";
    machine(AFTER).run().ok().stdout_is(after);
    // Stopping the unit, as the machine's end does, is nobody's wish that they stay down.
    let again = "systemctl disable --now united 2>/dev/null; rm /etc/systemd/system/united.service
        systemctl stop drayage; drayage keep list --running -q; systemctl start drayage; drayage keep list --running -q";
    machine(again).run().ok().stdout_is("always\nunless\n");
    machine(
        "systemctl disable drayage 2>/dev/null; drayage keep rm -f $(drayage keep list -q); rm -r /srv/root /srv/boot",
    )
    .run()
    .ok();
}

/// The stop signal is the container's own, and what it says goes to the journal.
fn unit(sandbox: &Sandbox) {
    let script = r#"
        mkdir -p /srv/lab/bin; cp "$(command -v busybox)" /srv/lab/bin/busybox; for applet in sh sleep; do ln -s busybox /srv/lab/bin/$applet; done
        program='echo begun; trap "echo asked; exit 0" QUIT; while :; do sleep 0.1; done'
        drayage run -d --name lab --network none --stop-signal QUIT --rootfs /srv/lab sh -c "$program" >/dev/null
        drayage stop lab >/dev/null
        drayage unit lab >/etc/systemd/system/lab.service
        systemd-analyze verify /etc/systemd/system/lab.service
        systemctl daemon-reload
        systemctl start lab; systemctl is-active lab; drayage keep list --running -q
        pid() { drayage spawn state lab 2>/dev/null | jq .pid; }
        first=$(pid); drayage spawn kill lab KILL
        until [ "$(pid)" -gt 0 ] 2>/dev/null && [ "$(pid)" != "$first" ]; do sleep 0.1; done
        until [ "$(systemctl is-active lab)" = active ]; do sleep 0.1; done
        echo restarted; systemctl stop lab; systemctl is-active lab || :; drayage keep list --running -q
        journalctl --sync; journalctl -u lab -o cat | grep -xE 'begun|asked' | tail -n 2
        rm /etc/systemd/system/lab.service; systemctl daemon-reload; drayage rm lab; rm -r /srv/lab"#;
    let done = sandbox.sh(&format!("set -eu; unset DRAYAGE_ROOT\n{script}")).limit(Duration::from_secs(170)).run();
    done.ok().stdout_is("active\nlab\nrestarted\ninactive\nbegun\nasked\nlab\n");
}
