//! `bundle cp`: docker cp's rules, and roots that nobody gets out of.

use crate::support::{Need, Sandbox, Test, image, test, wait_for};

const NEEDS: &[Need] = &[Need::Registry, Need::Overlay, Need::Nft];

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("cp_reads_and_writes_tar_as_layers_do", NEEDS, dialects),
        test("cp_follows_docker_s_rules", NEEDS, rules),
        test("cp_makes_all_the_caller_s_or_the_container_s_root_s", NEEDS, owners),
        test("cp_reaches_volumes_and_containers_that_have_ended", NEEDS, reach),
        test("cp_takes_and_gives_archives", NEEDS, archives),
        test("cp_does_not_leave_the_container_s_root", NEEDS, hostile),
        test("cp_is_not_misled_by_a_container_that_moves_things", NEEDS, race),
        test("cp_says_in_one_line_what_cannot_be_copied", NEEDS, wrong),
    ]
}

/// A container that runs, and its shell.
fn up(sandbox: &Sandbox, options: &str) {
    let busybox = image("busybox").reference;
    sandbox.sh(&format!("run -d --name web --network none {options} {busybox} sleep 1000")).run().ok();
}

fn down(sandbox: &Sandbox) {
    sandbox.run(&["keep", "rm", "--force", "web"]).ok();
}

fn rules(sandbox: &Sandbox) {
    up(sandbox, "");
    sandbox.sh("mkdir -p dir/sub; echo file >file; echo deep >dir/sub/deep; ln -s file link; mkdir out").run().ok();
    let inside = |script: &str| sandbox.run(&["spawn", "exec", "web", "sh", "-c", script]).ok().stdout;
    for (source, destination, look, want) in [
        // A file: to a new name, over a file, into a directory.
        ("file", "web:/tmp/new", "cat /tmp/new", "file\n"),
        ("file", "web:/tmp/new", "cat /tmp/new", "file\n"),
        ("file", "web:tmp", "cat /tmp/file", "file\n"),
        ("file", "web:/tmp/", "cat /tmp/file", "file\n"),
        // A directory: its copy, below one that is there, only its content.
        ("dir", "web:/tmp/copy", "cd /tmp/copy; find . | sort", ".\n./sub\n./sub/deep\n"),
        (
            "dir",
            "web:/tmp/copy",
            "cd /tmp/copy; find . | sort",
            ".\n./dir\n./dir/sub\n./dir/sub/deep\n./sub\n./sub/deep\n",
        ),
        ("dir/.", "web:/tmp/content", "cd /tmp/content; find . | sort", ".\n./sub\n./sub/deep\n"),
        ("dir/.", "web:/tmp/content", "cd /tmp/content; find . | sort", ".\n./sub\n./sub/deep\n"),
        ("dir/", "web:/srv", "cd /srv; find . | sort", ".\n./sub\n./sub/deep\n"),
        // A link is copied as one, but for -L; a destination that is a link is followed.
        ("link", "web:/tmp/l", "readlink /tmp/l", "file\n"),
        ("-L link", "web:/tmp/l2", "test -L /tmp/l2 || cat /tmp/l2", "file\n"),
        ("-L link", "web:/tmp", "test -L /tmp/file || cat /tmp/file", "file\n"),
    ] {
        sandbox.sh(&format!("bundle cp {source} {destination}")).run().ok().stdout_is("");
        assert_eq!(inside(look), want, "{source} {destination}");
    }
    inside("echo inner >/tmp/inner; mkdir -p /data/a; echo x >/data/a/x; ln -s a /data/l");
    for (source, destination, look, want) in [
        ("web:/tmp/inner", "out/name", "cat out/name", "inner\n"),
        ("web:/tmp/inner", "out", "cat out/inner", "inner\n"),
        ("web:/data", "out", "cd out/data; find . | sort", ".\n./a\n./a/x\n./l\n"),
        ("web:/data/.", "out/d2", "cd out/d2; find . | sort", ".\n./a\n./a/x\n./l\n"),
        ("web:/data/l", "out/d3", "readlink out/d3", "a\n"),
        ("-L web:/data/l", "out/d4", "ls out/d4", "x\n"),
        ("web:/data/l/", "out/d5", "ls out/d5", "x\n"),
        ("web:data/../tmp/inner", "out/n2", "cat out/n2", "inner\n"),
    ] {
        sandbox.sh(&format!("bundle cp {source} {destination}")).run().ok().stdout_is("");
        sandbox.sh(look).run().ok().stdout_is(want);
    }
    down(sandbox);
}

fn owners(sandbox: &Sandbox) {
    up(sandbox, "");
    sandbox.sh("echo f >f; chown 7:8 f; chmod 4750 f; mkdir d; chown 9 d; touch -d 2020-01-02 f").run().ok();
    let inside = |script: &str| sandbox.run(&["spawn", "exec", "web", "sh", "-c", script]).ok().stdout;
    sandbox.sh("bundle cp f web:/tmp/f; bundle cp d web:/tmp/d; bundle cp -a f web:/tmp/a").run().ok();
    let look = "stat -c '%u:%g %a %y' /tmp/f /tmp/a | cut -d. -f1; stat -c %u /tmp/d";
    assert_eq!(inside(look), "0:0 750 2020-01-02 00:00:00\n7:8 4750 2020-01-02 00:00:00\n0\n");
    // A program that would become root has to be asked for.
    inside("cp /bin/busybox /tmp/su; chown 0:5 /tmp/su; chmod 6755 /tmp/su");
    sandbox
        .sh("bundle cp web:/tmp/su su; bundle cp -a web:/tmp/su suid; stat -c '%u:%g %a' su suid")
        .run()
        .ok()
        .stdout_is("0:0 755\n0:5 6755\n");
    down(sandbox);
}

fn reach(sandbox: &Sandbox) {
    up(sandbox, "-v data:/data --tmpfs /t");
    sandbox.sh("echo one >one; bundle cp one web:/data; bundle cp one web:/t; bundle cp one web:/root").run().ok();
    assert_eq!(sandbox.read("state/volumes/data/one"), "one\n");
    sandbox.run(&["spawn", "exec", "web", "cat", "/t/one"]).ok().stdout_is("one\n");
    sandbox.sh("bundle cp web:/data/one two; cmp one two").run().ok();
    sandbox.run(&["keep", "stop", "--time", "0", "web"]).ok();
    sandbox
        .sh("echo three >one; bundle cp web:/root/one four; cat four; bundle cp one web:/root/one")
        .run()
        .ok()
        .stdout_is("one\n");
    let again = "bundle mount web | keep >again; spawn exec web cat /root/one";
    sandbox.sh(again).run().ok().stdout_is("three\n");
    down(sandbox);
    sandbox
        .sh(&format!(
            "pull {} | unpack --flat tree | bundle --id flat --network none -- true",
            image("busybox").reference
        ))
        .run()
        .ok();
    sandbox.sh("bundle cp one flat:/flat; cat tree/flat; bundle delete flat").run().ok().stdout_is("three\n");
}

fn archives(sandbox: &Sandbox) {
    up(sandbox, "");
    let make = "mkdir -p /d/s; echo one >/d/one; ln /d/one /d/two; ln -s one /d/l; mkfifo /d/p; mknod /d/n c 1 3; chown 5:6 /d/one";
    sandbox.run(&["spawn", "exec", "web", "sh", "-c", make]).ok();
    let long = "x".repeat(150);
    sandbox.sh(&format!("spawn exec web sh -c 'echo long >/d/s/{long}'")).run().ok();
    sandbox.sh("bundle cp web:/d - >d.tar; tar -tf d.tar | sort >names").run().ok();
    let want = format!("d/\nd/l\nd/n\nd/one\nd/p\nd/s/\nd/s/{long}\nd/two\n");
    assert_eq!(sandbox.read("names"), want);
    // Back again: as the container's root's, and as it was.
    sandbox
        .sh("spawn exec web mkdir /back /same; bundle cp - web:/back <d.tar; bundle cp -a - web:/same <d.tar")
        .run()
        .ok();
    let look = "cd /$0/d; find . | sort; cat one two s/*; readlink l; stat -c '%h %u:%g' one; stat -c '%F %t,%T' n p";
    for (place, owner) in [("back", "0:0"), ("same", "5:6")] {
        let names = format!(".\n./l\n./n\n./one\n./p\n./s\n./s/{long}\n./two\n");
        let want = format!("{names}one\none\nlong\none\n2 {owner}\ncharacter special file 1,3\nfifo 0,0\n");
        sandbox.run(&["spawn", "exec", "web", "sh", "-c", look, place]).ok().stdout_is(&want);
    }
    sandbox.sh("bundle cp web:/bin/busybox - | tar -tv").run().ok().stdout_has("busybox");
    sandbox.sh("head -c 700 d.tar | bundle cp - web:/back").run().fails(1).one_error_line("bundle", &["archive"]);
    down(sandbox);
}

/// Holes, parts of seconds, and ids that no header has room for: in the forms that tar writes, and in ours.
fn dialects(sandbox: &Sandbox) {
    up(sandbox, "");
    let make =
        "mkdir d && truncate -s 1M d/holes && printf data | dd of=d/holes bs=1 seek=600000 conv=notrunc status=none
        chown 3000000:3000001 d/holes; touch -d '2001-02-03 04:05:06.123456789 UTC' d/holes d";
    sandbox.sh(make).run().ok();
    let want = "1048576 3000000:3000001 981173106.123456789 981173106.123456789\n";
    for form in
        ["--format=posix", "--format=gnu", "--format=posix --sparse", "--format=posix --sparse --sparse-version=0.1"]
    {
        // GNU's own form has whole seconds only.
        let want = if form.ends_with("gnu") { want.replace(".123456789", ".000000000") } else { want.to_owned() };
        let there = "tar -c $0 d | bundle cp -a - web:/ && bundle cp web:/d - >back.tar && bundle cp -a web:/d seen";
        sandbox.sh(&there.replace("$0", form)).run().ok();
        let look = "echo $(stat -c '%s %u:%g' $1/holes) $(stat -c %.9Y $1/holes $1); cmp $1/holes d/holes";
        sandbox.sh(&look.replace("$1", "seen")).run().ok().stdout_is(&want);
        sandbox
            .sh(&format!("mkdir t && tar -xf back.tar -C t && {}; rm -r t seen", look.replace("$1", "t/d")))
            .run()
            .ok()
            .stdout_is(&want);
    }
    down(sandbox);
}

/// Links of the container's, and paths of archives, lead through its root only.
fn hostile(sandbox: &Sandbox) {
    up(sandbox, "");
    let canary = sandbox.at("canary");
    sandbox.sh("mkdir canary; echo safe >canary/file; echo evil >evil").run().ok();
    let script = format!(
        "ln -s {canary} /tmp/out; ln -s ../../../../../../../..{canary} /tmp/up; ln -s {canary}/file /tmp/f; ln -s /proc/1/root /tmp/proc"
    );
    sandbox.run(&["spawn", "exec", "web", "sh", "-c", &script]).ok();
    // There is no such directory in the container.
    for destination in ["web:/tmp/out/file", "web:/tmp/up/file", &format!("web:/../../..{canary}/file")] {
        sandbox.sh(&format!("bundle cp evil {destination}")).run().fails(1);
    }
    sandbox
        .sh("bundle cp evil web:/tmp/proc/x; bundle cp web:/tmp/out/file stolen; bundle cp -L web:/tmp/f stolen")
        .run();
    assert!(!sandbox.exists("stolen"));
    // As a regular destination the dangling link is where the file shall be, in the container's own tree.
    sandbox
        .sh(&format!("spawn exec web mkdir -p {canary}; bundle cp evil web:/tmp/f; spawn exec web cat {canary}/file"))
        .run()
        .ok()
        .stdout_is("evil\n");
    let archive = "mkdir -p x; echo evil >x/file; tar -cf evil.tar --transform 's,x/file,../../../../../..'$PWD'/canary/file,' -P x/file
        tar -rf evil.tar --transform 's,x/file,tmp/out/file,' x/file; bundle cp - web:/ <evil.tar";
    sandbox.sh(archive).run().ok();
    assert_eq!(sandbox.read("canary/file"), "safe\n");
    down(sandbox);
}

/// A directory becomes a link and a directory again, as fast as the container can.
fn race(sandbox: &Sandbox) {
    let swap = "mkdir -p /w/d; ln -s $0 /w/l; while :; do mv -T /w/d /w/t; mv -T /w/l /w/d; mv -T /w/d /w/l; mv -T /w/t /w/d; done";
    let busybox = image("busybox").reference;
    sandbox.sh("mkdir canary; echo safe >canary/file; mkdir -p in/d; echo evil >in/d/file").run().ok();
    let canary = sandbox.at("canary");
    sandbox.cmd(&["run", "-d", "--name", "web", "--network", "none", &busybox, "sh", "-c", swap, &canary]).run().ok();
    wait_for("the exchange", || sandbox.run(&["spawn", "exec", "web", "test", "-d", "/w"]).code().eq(&0).then_some(()));
    for _ in 0..60 {
        // It may fail; where it does not, it went into the container.
        sandbox
            .sh("bundle cp in/d/. web:/w/d; bundle cp in/. web:/w; bundle cp web:/w out; bundle cp web:/w/d/file got")
            .run();
    }
    assert_eq!(sandbox.read("canary/file"), "safe\n");
    assert!(sandbox.sh("grep -rs safe out got").run().stdout.is_empty());
    down(sandbox);
}

fn wrong(sandbox: &Sandbox) {
    up(sandbox, "--read-only");
    sandbox.sh("echo f >f; mkdir d; mkdir -p have/f").run().ok();
    for (arguments, code, words) in [
        ("web:/no/such out", 1, "/no/such: no such file or directory"),
        ("web:/etc/hosts no/such/dir", 1, "no/such"),
        ("web:/etc/hosts none/", 1, "none/: no such directory"),
        ("web:/etc/hosts f/", 1, "not a directory"),
        ("web:/etc/hosts/ out", 1, "/etc/hosts/: not a directory"),
        ("web:/etc f", 1, "f: not a directory"),
        ("f web:/etc/new", 1, "Read-only file system"),
        ("web:/bin have", 0, ""),
        ("nobody:/x out", 1, "no such container"),
        ("../x:/y out", 2, "CONTAINER:PATH"),
        ("f d", 2, "CONTAINER:PATH"),
        ("web:/x web:/y", 2, "CONTAINER:PATH"),
        ("- f", 2, "CONTAINER:PATH"),
    ] {
        let outcome = sandbox.sh(&format!("bundle cp {arguments}")).run().fails(code);
        if code != 0 {
            outcome.one_error_line("bundle", &[words]);
        }
    }
    // What is a directory is not replaced by a file.
    sandbox
        .sh("bundle cp web:/etc/hosts have; mkdir have/hostname; bundle cp web:/etc/hostname have")
        .run()
        .fails(1)
        .one_error_line("bundle", &["a directory is there"]);
    down(sandbox);
}
