//! `checkpoint` and `restore`: a container's processes become files and processes again, by criu(8). As with runc, the images
//! say nothing of the bundle: it is the same, or an equal one, when they come back.

mod criu;
mod mounts;

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use cgroup::Cgroups;
use rustix::fs::OFlags;
use rustix::mount::MountPropagationFlags;
use rustix::process::Pid;
use sys::namespace::Kind as NamespaceType;

use self::criu::{Criu, Kind, Message};
use crate::config::{Config, NamespaceKind};
use crate::create::{self, CreatedContainer, Order};
use crate::request::{Checkpoint, CriuOptions, Restore};
use crate::state::{Container, Status};
use crate::{file, hooks, rootfs, tty, userns};

/// What the container's three standard descriptors were, beside criu's images; runc's file has this name, too.
const DESCRIPTORS: &str = "descriptors.json";
/// Where the mounts came from that were not the container's own.
const MOUNTS: &str = "mounts.json";

/// criu's settings for runtimes like runc.
const RUNTIME_SETTINGS: &str = "/etc/criu/runc.conf";

/// Writes a container's processes to the directory of images.
pub(crate) fn checkpoint(container: &Container, options: &Checkpoint, program: &Path) -> Result<()> {
    let status = container.status()?;
    let pid = container.process().filter(|_| matches!(status, Status::Running | Status::Paused));
    let pid = pid.with_context(|| format!("cannot checkpoint a container that is {}", status.name()))?;
    let config = container.config()?;
    if let Some(parent) = &options.parent_path {
        let there = parent.is_relative() && options.criu.image_path.join(parent).is_dir();
        ensure!(there, "--parent-path {}: no directory relative to --image-path", parent.display());
    }
    let mounts = mounts::external(&config, pid)?;
    let descriptors = descriptors(pid, &mounts)?;
    let (images, work) = directories(&options.criu)?;
    // The numbers are the fields of `criu_opts` in criu's images/rpc.proto. Here: pid 2, leave_running 3, ps 11 (the
    // page server), root 13, parent_img 14, track_mem 15, link_remap 18, external 37, tcp_skip_in_flight 46,
    // status_fd 49.
    let mut request = request(&options.criu, &images, &work, "dump.log");
    own_settings(&mut request, &config);
    request.number(2, u64::from(pid.as_raw_pid().unsigned_abs()));
    // A dump before the dump writes memory only: its processes must go on.
    request.flag(3, options.leave_running || options.pre_dump);
    request.text(13, &container.state.rootfs.to_string_lossy());
    request.flag(18, options.link_remap);
    request.flag(46, options.tcp_skip_in_flight);
    options.parent_path.iter().for_each(|parent| request.text(14, &parent.to_string_lossy()));
    // The kernel marks pages that are written to from now on (soft-dirty): the next dump has only those. It has to be
    // on in every dump of a chain, or the next one would find no marks.
    request.flag(15, options.parent_path.is_some() || options.pre_dump);
    options.status_fd.iter().for_each(|fd| request.number(49, u64::from(*fd)));
    if let Some(server) = &options.page_server {
        request.message(11, &page_server(server)?);
    }
    for (name, path) in joined_namespaces(&config) {
        let inode = rustix::fs::stat(path).with_context(|| format!("stat {}", path.display()))?.st_ino;
        // External resources are named by what they are outside: TYPE[INODE]:KEY. The key alone is in the images, and
        // `restore` says what it stands for then.
        request.text(37, &format!("{name}[{inode}]:{}", key_of(name)));
    }
    mounts.found.keys().for_each(|place| request.text(37, &format!("mnt[{place}]:{place}")));
    let files = descriptors.iter().filter(|descriptor| descriptor.starts_with("file["));
    files.for_each(|descriptor| request.text(37, descriptor));
    let write = |name: &str, text: String| {
        let path = options.criu.image_path.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    };
    write(DESCRIPTORS, serde_json::to_string(&descriptors)?)?;
    write(MOUNTS, serde_json::to_string(&mounts.found)?)?;
    let kind = if options.pre_dump { Kind::PreDump } else { Kind::Dump };
    let dumped = Criu::start(program)?.call(kind, &request, |_| Ok(()));
    dumped.map(drop).map_err(|error| explained(error, &options.criu, "dump.log"))
}

/// Makes a container of images and an order; it runs already.
pub(crate) fn restore(order: &Order, options: &Restore, program: &Path) -> Result<CreatedContainer> {
    let bundle = std::path::absolute(&order.bundle)?;
    let (config, text) = Config::read(&bundle, &order.root)?;
    let terminal = config.process()?.terminal;
    let detached = !order.child.foreground;
    let nobody = terminal && detached && order.child.common.console_socket.is_none();
    ensure!(!nobody, "cannot restore a terminal without console socket");
    let mut container = Container::create(&order.root, &order.id)?;
    let restored = Restoring { order, options, config: &config, bundle: &bundle }.make(&mut container, &text, program);
    let (pid, console) = restored.inspect_err(|_| create::clean_up(&container, &config.hooks))?;
    let pidfd = userns::pidfd(pid).inspect_err(|_| create::clean_up(&container, &config.hooks))?;
    container.unlock();
    Ok(CreatedContainer { container, config, pid, pidfd, notify: None, console })
}

struct Restoring<'a> {
    order: &'a Order,
    options: &'a Restore,
    config: &'a Config,
    bundle: &'a Path,
}

impl Restoring<'_> {
    fn make(&self, container: &mut Container, text: &[u8], program: &Path) -> Result<(Pid, Option<OwnedFd>)> {
        let (order, config) = (self.order, self.config);
        let rootfs = self.bundle.join(&config.root.as_ref().context("config.json: no root")?.path);
        create::describe(container, order, config, self.bundle, &rootfs)?;
        let (cgroups, scope) = create::make_cgroups(order, config, container)?;
        container.write_first("config.json", text)?;
        enter_own_mounts(&rootfs)?;
        // Opened in the new namespace: criu makes mounts by descriptors of what it is given, and the kernel refuses
        // those of a mount in another namespace (`check_mnt()` in fs/namespace.c).
        let (images, work) = directories(&self.options.criu)?;
        let mut request = self.request(&cgroups, (&images, &work), &rootfs)?;
        let namespaces = self.inherit_namespaces(&mut request)?;
        mounts::make_places(config, self.bundle, &rootfs)?;
        let criu = Criu::start(program)?;
        // What it restores is born where it is.
        cgroups.put(Pid::from_child(&criu.process))?;
        let mut console = None;
        let restored = criu.call(Kind::Restore, &request, |mut notice| match notice.script {
            // criu's point after the namespaces are there and before processes of the container run in them: the one
            // moment that corresponds to `createRuntime`.
            "setup-namespaces" => self.run_hooks(container, notice.pid),
            "orphan-pts-master" => {
                console = self.hand_over(notice.fd.take().context("criu gives no terminal")?)?;
                Ok(())
            }
            _ => Ok(()),
        });
        drop(namespaces);
        let pid = restored
            .map_err(|error| explained(error, &self.options.criu, "restore.log"))?
            .context("criu made no process")?;
        drop(scope);
        create::enter_in_state(container, pid)?;
        keep_time_namespace(container, text, pid)?;
        if let Some(file) = &order.child.common.pid_file {
            create::write_pid_file(file, pid)?;
        }
        Ok((pid, console))
    }

    fn request(&self, cgroups: &Cgroups, (images, work): (&OwnedFd, &OwnedFd), rootfs: &Path) -> Result<Message> {
        let mut request = request(&self.options.criu, images, work, "restore.log");
        own_settings(&mut request, self.config);
        request.text(13, &rootfs.to_string_lossy());
        // `rst_sibling`: the restored process becomes our child and not criu's, so that we can wait for it and hear how
        // it ends.
        request.flag(26, true);
        for (controllers, directory) in cgroups.below_roots() {
            let mut root = Message::default();
            root.text(1, &controllers);
            root.text(2, &directory);
            // `cg_root`: the cgroups of the images are looked for below these. The container's may have another name
            // now.
            request.message(25, &root);
        }
        let read = |name: &str| {
            let path = self.options.criu.image_path.join(name);
            fs::read(&path).with_context(|| format!("read {}", path.display()))
        };
        let found = serde_json::from_slice(&read(MOUNTS)?).context(MOUNTS)?;
        for (place, source) in mounts::sources(&found, self.config, self.bundle, cgroups)? {
            // `external` once more, and below `lsm_profile` (53) and `lsm_mount_context` (63).
            request.text(37, &format!("mnt[{place}]:{}", source.display()));
        }
        let descriptors: Vec<String> = serde_json::from_slice(&read(DESCRIPTORS)?).context(DESCRIPTORS)?;
        let inherited = |one: &&String| one.starts_with("pipe:") || one.starts_with("file[");
        for (fd, descriptor) in (0..3).zip(&descriptors).filter(|(_, descriptor)| inherited(descriptor)) {
            inherit(&mut request, descriptor, fd);
        }
        self.options.lsm_profile.iter().for_each(|profile| request.text(53, profile));
        self.options.lsm_mount_context.iter().for_each(|context| request.text(63, context));
        Ok(request)
    }

    /// Has criu inherit the namespaces that the container joins.
    fn inherit_namespaces(&self, request: &mut Message) -> Result<Vec<OwnedFd>> {
        let inherit = |(name, path): (&str, &Path)| {
            let namespace = file::open(path, OFlags::RDONLY)?;
            // criu is executed below, and finds the namespace by this number.
            rustix::io::fcntl_setfd(&namespace, rustix::io::FdFlags::empty())?;
            inherit(request, &key_of(name), namespace.as_raw_fd());
            Ok(namespace)
        };
        joined_namespaces(self.config).map(inherit).collect()
    }

    /// The hooks that the parent runs; those inside have run, long ago.
    fn run_hooks(&self, container: &Container, pid: Option<Pid>) -> Result<()> {
        let state = record::State { pid: pid.map(Pid::as_raw_pid), ..container.report(Status::Creating) };
        hooks::run("prestart", None, &self.config.hooks.prestart, &state)?;
        hooks::run("createRuntime", None, &self.config.hooks.create_runtime, &state)
    }

    fn hand_over(&self, master: OwnedFd) -> Result<Option<OwnedFd>> {
        let Some(socket) = &self.order.child.common.console_socket else { return Ok(Some(master)) };
        tty::hand_over(tty::connect(socket)?.as_fd(), master.as_fd())?;
        Ok(None)
    }
}

/// The namespaces that criu neither writes nor makes: those of the container that are somebody else's. It can do so with
/// two types.
fn joined_namespaces(config: &Config) -> impl Iterator<Item = (&'static str, &Path)> {
    let kinds = [("net", NamespaceKind::Network), ("pid", NamespaceKind::Pid)];
    kinds.into_iter().filter_map(|(name, kind)| Some((name, config.linux.joins(kind)?)))
}

/// Names such a namespace in images, in runc's way.
fn key_of(name: &str) -> String {
    let initial = name[..1].to_uppercase();
    format!("extRoot{initial}{}NS", &name[1..])
}

fn inherit(request: &mut Message, key: &str, fd: i32) {
    let mut inherited = Message::default();
    inherited.text(1, key);
    inherited.number(2, u64::try_from(fd).unwrap_or_default());
    request.message(27, &inherited);
}

/// criu restores into a time namespace of its own making, which further processes have to join, or the next checkpoint
/// cannot be restored.
fn keep_time_namespace(container: &Container, text: &[u8], pid: Pid) -> Result<()> {
    if userns::is_own(pid, NamespaceKind::Time) || container.config()?.linux.has(NamespaceKind::Time) {
        return Ok(());
    }
    let mut config: serde_json::Value = serde_json::from_slice(text)?;
    if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
        namespaces.push(serde_json::json!({"type": "time"}));
    }
    container.write("config.json", config.to_string().as_bytes())
}

/// Begins a request with what both verbs say.
fn request(options: &CriuOptions, images: &OwnedFd, work: &OwnedFd, log: &str) -> Message {
    let mut request = Message::default();
    // images_dir_fd, ext_unix_sk, tcp_established, evasive_devices, shell_job, file_locks, log_level, log_file,
    // notify_scripts, auto_dedup, work_dir_fd, manage_cgroups, manage_cgroups_mode, empty_ns, lazy_pages,
    // orphan_pts_master: by number.
    request.fd(1, images);
    request.flag(4, options.ext_unix_sk);
    request.flag(5, options.tcp_established);
    // A device of the host's may have another name in the container.
    request.flag(6, true);
    request.flag(7, options.shell_job);
    request.flag(8, options.file_locks);
    request.number(9, 4);
    request.text(10, log);
    request.flag(12, true);
    request.flag(16, options.auto_dedup);
    request.fd(17, work);
    request.flag(24, true);
    request.number(34, options.manage_cgroups_mode as u64);
    if !options.empty_ns.is_empty() {
        // An empty network namespace: the interfaces are neither written nor made, since the engine above makes them.
        request.number(38, libc::CLONE_NEWNET as u64);
    }
    request.flag(48, options.lazy_pages);
    // The terminal's master is outside of the container: criu makes one and gives it to us by a notice,
    // `orphan-pts-master`.
    request.flag(50, true);
    request
}

/// criu's settings for this container alone, as criu's own documentation has it for runtimes.
fn own_settings(request: &mut Message, config: &Config) {
    let annotated = config.annotations.get("org.criu.config").cloned();
    let general = || Some(RUNTIME_SETTINGS.to_owned()).filter(|path| Path::new(path).exists());
    if let Some(path) = annotated.or_else(general) {
        request.text(51, &path);
    }
}

fn page_server(server: &str) -> Result<Message> {
    let split = server.rsplit_once(':').and_then(|(address, port)| Some((address, port.parse::<u16>().ok()?)));
    let (address, port) = split.with_context(|| format!("--page-server {server:?} is not ADDRESS:PORT"))?;
    let mut message = Message::default();
    message.text(1, address);
    message.number(2, u64::from(port));
    Ok(message)
}

/// Makes and opens the directories of images and logs.
fn directories(options: &CriuOptions) -> Result<(OwnedFd, OwnedFd)> {
    let open = |path: &Path| {
        sys::file::make_private(path).with_context(|| format!("make {}", path.display()))?;
        file::open(path, OFlags::RDONLY | OFlags::DIRECTORY)
    };
    Ok((open(&options.image_path)?, open(work_path(options))?))
}

fn work_path(options: &CriuOptions) -> &Path {
    options.work_path.as_deref().unwrap_or(&options.image_path)
}

/// Says why criu failed by the last error of its log but the summary: the first ones are of what this kernel lacks.
fn explained(error: anyhow::Error, options: &CriuOptions, name: &str) -> anyhow::Error {
    let path = work_path(options).join(name);
    let log = fs::read(&path).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let last = log.lines().rfind(|line| line.contains("Error (") && !line.contains("FAILED"));
    match last.and_then(|line| line.split_once("): ")) {
        Some((_, cause)) => anyhow!("criu: {cause} (log: {})", path.display()),
        None => error,
    }
}

/// Names the standard descriptors as criu does: those that are not the container's own have to be inherited again.
fn descriptors(pid: Pid, mounts: &mounts::External) -> Result<Vec<String>> {
    let process = PathBuf::from("/proc").join(pid.as_raw_pid().to_string());
    (0..3)
        .map(|fd: u32| {
            let link = process.join("fd").join(fd.to_string());
            // It may have closed one.
            let Ok(target) = fs::read_link(&link) else { return Ok(String::new()) };
            let info = file::read(process.join("fdinfo").join(fd.to_string())).unwrap_or_default();
            let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse::<u64>().ok());
            match (target.to_string_lossy(), mount) {
                (name, Some(mount)) if name.starts_with('/') && !mounts.own.contains(&mount) => {
                    let inode = rustix::fs::stat(&link).with_context(|| format!("stat {}", link.display()))?.st_ino;
                    Ok(format!("file[{mount:x}:{inode:x}]"))
                }
                (name, _) => Ok(name.into_owned()),
            }
        })
        .collect()
}

/// Gives this process, and so criu, a mount namespace of its own, in which the rootfs is a mount, as criu wants it to be.
fn enter_own_mounts(rootfs: &Path) -> Result<()> {
    sys::namespace::unshare(NamespaceType::Mount).context("make a mount namespace")?;
    // A slave, not private: what the host unmounts meanwhile must not be kept busy by this copy of its mounts.
    rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .context("make / a slave")?;
    let root = rootfs::clone_root(rootfs)?;
    // criu restores a mount namespace only below a directory that is a mount point, as pivot_root(2) wants it.
    let target = file::open(rootfs, OFlags::PATH | OFlags::DIRECTORY)?;
    sys::mount::attach(root.as_fd(), target.as_fd()).with_context(|| format!("mount {}", rootfs.display()))
}
