//! A machine of its own for a test: own process, mount, network, UTS and IPC namespaces, in which it plays the host. The real
//! firewall, mounts and interfaces are out of reach, and whatever a failed test leaves goes with the namespaces.

use std::fs;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use super::command::{self, Cmd, Outcome};
use super::needs::{Need, find_program};
use super::{images, leaks, programs, wait};

/// The registry's address inside every sandbox that needs one.
pub(crate) const REGISTRY: &str = "127.0.0.1:5000";

/// Prepares the namespaces from inside, says so, and stays as their init. `$1` is the sandbox's directory, `$2` the name
/// of a control group in each hierarchy that stands for the root in here, so that containers of one name in two sandboxes
/// have nothing in common; the last argument says which of the hierarchies are in sight. /run/netns is as ip-netns(8)
/// makes it once. What the machine's own engines and services have mounted is not copied, so that nothing of theirs is
/// busy because of a test. The programs get a name that everybody may follow, wherever the source tree is. SIGCHLD is
/// ignored, so the kernel reaps what the test's daemons leave to init; end of file on stdin is the end of everything.
const INIT: &str = r#"set -e
trees() {
    for tree in /sys/fs/cgroup /sys/fs/cgroup/*; do
        [ -e "$tree/cgroup.procs" ] && [ ! -L "$tree" ] || continue
        case $tree in /sys/fs/cgroup/*) grep -q " $tree " /proc/self/mountinfo || continue; esac
        echo "$tree"
    done
}
if [ "$3" = join ]; then
    for tree in $(trees); do
        # What containers on this machine would be given, too: nobody may have asked for it here before.
        [ -e "$tree/tasks" ] || sed 's/[^ ]\+/+&/g' "$tree/cgroup.controllers" >"$tree/cgroup.subtree_control" || true
        mkdir "$tree/$2"
        for file in cpuset.mems cpuset.cpus; do
            [ ! -e "$tree/tasks" ] || [ ! -e "$tree/$file" ] || cat "$tree/$file" >"$tree/$2/$file"
        done
        echo 0 >"$tree/$2/cgroup.procs"
    done
    exec unshare --cgroup sh -c "$4" init "$1" "$2" stay "$5"
fi
for tree in $(trees); do
    if [ ! -e "$tree/tasks" ]; then
        mkdir "$tree/$2/init"
        echo 0 >"$tree/$2/init/cgroup.procs"
        # A systemd may take a controller back between the two: then those that are left are meant.
        for _ in 1 2 3 4 5; do
            ! sed 's/[^ ]\+/+&/g' "$tree/$2/cgroup.controllers" >"$tree/$2/cgroup.subtree_control" || break
        done
    fi
    mount --bind "$tree/$2" "$tree"
done
hybrid=/sys/fs/cgroup/unified
case $4 in
    unified) [ ! -e $hybrid ] || mount --bind $hybrid /sys/fs/cgroup ;;
    legacy) [ ! -e $hybrid ] || mount -t tmpfs -o ro,mode=555 drayage-e2e $hybrid ;;
esac
awk '$5 ~ "^(/run|/var/lib/(containers|containerd|docker|drayage|kubelet))/" { print $5 }' /proc/self/mountinfo |
    sed 's/\\040/ /g' | tac | xargs -r -d '\n' umount -l
mount -t tmpfs -o mode=755,size=75% drayage-e2e "$1"
mount -t tmpfs -o mode=755 drayage-e2e-run /run
mkdir -p /run/netns /run/lock "$1/home" "$1/programs" "$1/tmp"
chmod 1777 "$1/tmp" /run/lock
mount --bind "$PROGRAMS" "$1/programs"
# A test that writes there would change what all others run.
mount -o remount,bind,ro "$1/programs"
command -v ip >/dev/null && ip link set lo up
mount --bind /run/netns /run/netns
mount --make-shared /run/netns
hostname sandbox
echo ready
exec env --ignore-signal=CHLD cat"#;

/// The place where one test runs.
pub(crate) struct Sandbox {
    directory: tempfile::TempDir,
    machine: Option<Machine>,
}

/// The namespaces, held by their init.
struct Machine {
    unshare: Child,
    init: i32,
    name: String,
}

impl Sandbox {
    /// Makes the place; `needs` decides what it offers.
    pub(super) fn new(test: &str, needs: &[Need]) -> Result<Self, String> {
        programs::directory();
        let directory = tempfile::Builder::new()
            .prefix(&format!("drayage-e2e-{}.", test.replace("::", "-")))
            .tempdir_in(std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from))
            .map_err(|error| format!("a directory for the test: {error}"))?;
        let isolated = needs
            .iter()
            .any(|need| matches!(need, Need::Root | Need::NetNs | Need::Overlay | Need::Nft | Need::Registry));
        let view = match () {
            () if needs.contains(&Need::UnifiedCgroups) => "unified",
            () if needs.contains(&Need::LegacyCgroups) => "legacy",
            () => "all",
        };
        let machine = if isolated { Some(Machine::boot(directory.path(), view)?) } else { None };
        let sandbox = Self { directory, machine };
        if sandbox.machine.is_none() {
            for name in ["home", "tmp"] {
                fs::create_dir(sandbox.path(name)).map_err(|error| error.to_string())?;
            }
        }
        if needs.contains(&Need::Registry) {
            sandbox.serve_images()?;
        }
        Ok(sandbox)
    }

    /// Returns the path of a file in the test's directory, as the commands see it. Absolute paths stay.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns the same as text, for command lines.
    pub(crate) fn at(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Returns a path by which the test itself reaches a file of the sandbox (absolute symlinks on the way would lead
    /// out of it).
    pub(crate) fn outside(&self, name: impl AsRef<Path>) -> PathBuf {
        let path = self.path(name);
        match &self.machine {
            Some(machine) => Path::new(&format!("/proc/{}/root", machine.init)).join(path.strip_prefix("/").unwrap()),
            None => path,
        }
    }

    /// Reads a text file.
    #[track_caller]
    pub(crate) fn read(&self, name: impl AsRef<Path>) -> String {
        let path = self.outside(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Writes a file, and the directories above it.
    #[track_caller]
    pub(crate) fn write(&self, name: impl AsRef<Path>, text: impl AsRef<[u8]>) {
        let path = self.outside(name);
        fs::create_dir_all(path.parent().unwrap())
            .and_then(|()| fs::write(&path, text))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// Tells whether something has this name; a dangling symlink counts.
    pub(crate) fn exists(&self, name: impl AsRef<Path>) -> bool {
        fs::symlink_metadata(self.outside(name)).is_ok()
    }

    /// Makes a command: a tool by its name, or any program in PATH. It runs in the test's directory, with
    /// `DRAYAGE_ROOT` set to `state` there.
    pub(crate) fn cmd(&self, arguments: &[&str]) -> Cmd {
        let mut command = match &self.machine {
            Some(machine) => machine.enter(self.directory.path()),
            None => Command::new("env"),
        };
        command.args(arguments).current_dir(self.directory.path());
        command
            .env("PATH", self.search_path())
            .env("DRAYAGE_ROOT", self.path("state"))
            .env("HOME", self.path("home"))
            .env("TMPDIR", self.path("tmp"))
            .env("SANDBOX", self.directory.path())
            .env("REGISTRY", REGISTRY)
            .env("LC_ALL", "C")
            // mount(8) hands fsconfig(2) all of `lowerdir` at once, of which that takes 256 bytes.
            .env("LIBMOUNT_FORCE_MOUNT2", "always")
            .env("TERM", "dumb");
        for name in ["DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_DATA_HOME", "RUST_BACKTRACE"] {
            command.env_remove(name);
        }
        Cmd::new(command, arguments.join(" "), true)
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Outcome {
        self.cmd(arguments).run()
    }

    /// Runs a command to its end, and returns the most memory that it had, in KiB, too. Its parent's counts as its own
    /// until it is executed, so that has little: Python without its libraries.
    pub(crate) fn run_measured(&self, arguments: &[&str]) -> (Outcome, u64) {
        let measure = "import os, sys
_, status, usage = os.wait4(os.spawnvp(os.P_NOWAIT, sys.argv[1], sys.argv[1:]), 0)
open('peak', 'w').write(str(usage.ru_maxrss))
sys.exit(os.waitstatus_to_exitcode(status))";
        let outcome = self.run(&[&["python3", "-IS", "-c", measure], arguments].concat());
        (outcome, self.read("peak").parse().expect("a number"))
    }

    /// Makes a command out of shell text.
    pub(crate) fn sh(&self, script: &str) -> Cmd {
        self.cmd(&["sh", "-c", script])
    }

    /// Runs stages as one shell pipe; the exit code is the last one's.
    pub(crate) fn pipe(&self, stages: &[&str]) -> Outcome {
        self.sh(&stages.join(" | ")).run()
    }

    /// Gets `/` from a server inside the sandbox and returns headers and body, or `None` while nobody answers.
    pub(crate) fn http_get(&self, address: &str) -> Option<String> {
        // This very program, started inside the sandbox, is the client: no other one is needed there.
        let own = std::env::current_exe().expect("own executable");
        let outcome = self.cmd(&[&own.display().to_string(), "--http-get", address]).run();
        (outcome.code() == 0).then_some(outcome.stdout)
    }

    /// Waits until a server inside the sandbox answers, and returns its page.
    pub(crate) fn wait_http(&self, address: &str) -> String {
        wait::wait_for(&format!("an answer of {address}"), || self.http_get(address))
    }

    /// Waits until a server inside the sandbox answers no more.
    pub(crate) fn wait_gone(&self, address: &str) {
        wait::wait_for(&format!("the end of {address}"), || self.http_get(address).is_none().then_some(()));
    }

    /// Returns the process whose namespaces the sandbox is.
    pub(super) fn init(&self) -> Option<i32> {
        self.machine.as_ref().map(|machine| machine.init)
    }

    /// Returns the name of the control groups that stand for the root.
    pub(super) fn name(&self) -> Option<&str> {
        self.machine.as_ref().map(|machine| machine.name.as_str())
    }

    /// Returns the directory of the programs, as the commands see it.
    pub(crate) fn programs(&self) -> PathBuf {
        if self.machine.is_some() { self.path("programs") } else { programs::directory().to_owned() }
    }

    fn search_path(&self) -> String {
        let programs = self.programs();
        let inherited = std::env::var("PATH").unwrap_or_default();
        format!("{}:{inherited}:/usr/local/sbin:/usr/sbin:/sbin", programs.display())
    }

    /// Starts a registry of the sandbox's own over the images, which it cannot change.
    fn serve_images(&self) -> Result<(), String> {
        let cache = images::ready()?;
        let configuration = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage:\n  filesystem: {{rootdirectory: {}}}\n  maintenance: {{readonly: {{enabled: true}}, \
             uploadpurging: {{enabled: false}}}}\nhttp: {{addr: \"{REGISTRY}\", secret: tests}}\n",
            cache.join("registry").display()
        );
        self.write("registry.yml", configuration);
        let script = "docker-registry serve registry.yml >registry.log 2>&1 &";
        self.sh(script).env("REGISTRY_LOG_LEVEL", "error").run().ok();
        self.wait_http(REGISTRY);
        Ok(())
    }
}

impl Machine {
    fn boot(directory: &Path, cgroups: &str) -> Result<Self, String> {
        let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut complaints = tempfile::tempfile().map_err(|error| error.to_string())?;
        let mut unshare = Command::new("unshare")
            .args(["--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc", "--"])
            .args(["sh", "-c", INIT, "init"])
            .arg(directory)
            .args([&name, "join", INIT, cgroups])
            .env("PROGRAMS", programs::directory())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Shown when it matters: util-linux 2.38's unshare complains at its end about signals, without a cause.
            .stderr(complaints.try_clone().map_err(|error| error.to_string())?)
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        let mut line = String::new();
        let stdout = unshare.stdout.take().ok_or("unshare has no stdout")?;
        BufReader::new(stdout).read_line(&mut line).map_err(|error| format!("the sandbox: {error}"))?;
        if line != "ready\n" {
            let _ = unshare.wait();
            let mut text = String::new();
            let _ = complaints.seek(SeekFrom::Start(0)).and_then(|_| complaints.read_to_string(&mut text));
            return Err(format!("the sandbox's namespaces cannot be made: {text}"));
        }
        let outer = i32::try_from(unshare.id()).map_err(|error| error.to_string())?;
        let init = command::child_of(outer).ok_or("the sandbox's init is gone")?;
        let machine = Self { unshare, init, name };
        // A test's clean-up flushes firewalls and removes links, mounts and control groups: never this machine's.
        for namespace in ["mnt", "net", "pid", "uts", "ipc", "cgroup"] {
            let of = |process: &str| fs::read_link(format!("/proc/{process}/ns/{namespace}"));
            let own = of(&init.to_string()).map_err(|error| format!("the sandbox's {namespace} namespace: {error}"))?;
            if of("self").is_ok_and(|outside| outside == own) {
                return Err(format!("the sandbox has no {namespace} namespace of its own"));
            }
        }
        Ok(machine)
    }

    /// Returns a command that runs its arguments inside.
    fn enter(&self, directory: &Path) -> Command {
        static NSENTER: OnceLock<PathBuf> = OnceLock::new();
        let nsenter = NSENTER.get_or_init(|| find_program("nsenter").unwrap_or_else(|| "nsenter".into()));
        let mut command = match delegating_hierarchy() {
            Some(mount) => {
                let mut command = Command::new("sh");
                command.args(["-c", "echo 0 >\"$0\" && exec \"$@\""]);
                command.arg(mount.join(&self.name).join("init/cgroup.procs")).arg(nsenter);
                command
            }
            None => Command::new(nsenter),
        };
        command.arg("--target").arg(self.init.to_string());
        command.args(["--mount", "--net", "--pid", "--uts", "--ipc", "--cgroup"]);
        command.arg(format!("--wdns={}", directory.display())).args(["--", "env"]);
        command
    }

    fn kill(&self) {
        // The end of a pid namespace's init is the end of everything in it.
        let pid = rustix::process::Pid::from_raw(self.init);
        let _ = pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
    }
}

/// Returns where cgroup2 is mounted if its namespaces are borders of delegation, as systemd has it: from a cgroup outside
/// nobody is born into one inside (cgroups(7), "nsdelegate").
fn delegating_hierarchy() -> Option<&'static Path> {
    static MOUNT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || {
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        mounts.lines().find_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
            [_, place, "cgroup2", options, ..] => {
                options.split(',').any(|option| option == "nsdelegate").then(|| PathBuf::from(place))
            }
            _ => None,
        })
    };
    MOUNT.get_or_init(find).as_deref()
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
        let _ = self.unshare.wait();
        leaks::remove_cgroups(&self.name);
    }
}
