//! The last steps before a container's program: a list of system calls that a program of some hundred bytes, in a
//! sealed memfd, executes one after another, the last of them being the `execve` of the container's program.
//!
//! What this is for: until its `execve` succeeds, the process that enters a container is one that the container's
//! processes may see, and `/proc/PID/exe` is the program that it runs (CVE-2019-5736; `#!/proc/self/exe` makes even
//! the kernel execute it again). Here that is not the runtime's file on the host's disk but a sealed page with
//! nothing of value. It costs one more `execve` of one page instead of a copy of the runtime, and it needs no memory
//! allocator, no stack and no file of the container.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, SealFlags};

/// One argument of a call: a number, or the address of data given before.
pub type Word = u64;

/// The list of calls under construction.
#[derive(Debug)]
pub struct Launch {
    data: Vec<u8>,
    calls: Vec<[Word; CALL_WORDS]>,
}

/// Words of one entry. The code in `launch/*.s` counts in them, too.
const CALL_WORDS: usize = 11;
/// Where code and data are loaded: any addresses that do not overlap, since nothing else is in the process but its
/// stack.
const CODE_BASE: u64 = 0x40_0000;
const DATA_BASE: u64 = 0x80_0000;
/// A segment's address and its place in the file must agree modulo the page's size, which is up to 64 KiB on ARM
/// (elf(5), `p_align`); so there the data begins that far into the file.
const PAGE: usize = if cfg!(target_arch = "x86_64") { 0x1000 } else { 0x1_0000 };
/// The file's header and three program headers; the code follows them in the same segment.
const ELF_HEADERS: usize = 64 + 3 * 56;
/// Where the descriptor for a failure's message stands: the first word of the data.
const REPORT: u64 = DATA_BASE;
/// Where the address of the first call stands.
const FIRST_CALL: usize = 8;
const IGNORE_FAILURE: u64 = 1;
const SA_RESTORER: u64 = 0x0400_0000;
/// Marks a place for a result that is a word of the list of calls.
const PASSED: u64 = 1 << 63;

impl Launch {
    /// Starts an empty list. The message of a call that fails goes to `report`: the four bytes `tag`, the error number,
    /// and the call's name.
    pub fn new(report: BorrowedFd<'_>) -> Self {
        let mut launch = Self { data: vec![0; 16], calls: Vec::with_capacity(64) };
        launch.data[..8].copy_from_slice(&number(report.as_raw_fd()).to_le_bytes());
        launch
    }

    /// Adds data and returns its address.
    pub fn bytes(&mut self, bytes: &[u8]) -> Word {
        self.data.resize(self.data.len().next_multiple_of(8), 0);
        let address = DATA_BASE + self.data.len() as u64;
        self.data.extend_from_slice(bytes);
        address
    }

    /// Adds a string with its final NUL and returns its address.
    pub fn string(&mut self, string: &CStr) -> Word {
        self.bytes(string.to_bytes_with_nul())
    }

    /// Adds an array of numbers or addresses and returns its address.
    pub fn words(&mut self, words: &[Word]) -> Word {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.bytes(&bytes)
    }

    /// Adds the array of strings that `execve(2)` wants and returns its address.
    pub fn strings<S: AsRef<CStr>>(&mut self, strings: &[S]) -> Word {
        let mut addresses: Vec<Word> = strings.iter().map(|string| self.string(string.as_ref())).collect();
        addresses.push(0);
        self.words(&addresses)
    }

    /// Adds a call. Its failure ends the process and is reported as `name`.
    ///
    /// Up to six arguments; those that are not given are 0. `tag` is the message's first word, for its reader to tell
    /// it from others.
    pub fn call(&mut self, name: &str, tag: u32, call: libc::c_long, arguments: &[Word]) {
        let mut message = tag.to_ne_bytes().to_vec();
        message.extend_from_slice(&[0; 4]);
        message.extend_from_slice(name.as_bytes());
        let address = self.bytes(&message);
        let mut words = [0; CALL_WORDS];
        words[0] = u64::try_from(call).unwrap_or(u64::MAX);
        for (word, argument) in words[1..7].iter_mut().zip(arguments) {
            *word = *argument;
        }
        words[9] = address;
        words[10] = message.len() as u64;
        self.calls.push(words);
    }

    /// Adds a call whose failure does not matter.
    pub fn try_call(&mut self, call: libc::c_long, arguments: &[Word]) {
        self.call("", 0, call, arguments);
        if let Some(last) = self.calls.last_mut() {
            last[8] = IGNORE_FAILURE;
        }
    }

    /// Stores the result of the call added last (32 bits of it) at `address`.
    ///
    /// The address is one that [`Self::bytes`] or [`Self::words`] has returned. A result of 0 is stored like any
    /// other.
    pub fn store_result(&mut self, address: Word) {
        if let Some(last) = self.calls.last_mut() {
            last[7] = address;
        }
    }

    /// Makes the descriptor that the call added last returns the one that later failures are reported to.
    pub fn report_to_result(&mut self) {
        self.store_result(REPORT);
    }

    /// Makes the result of the call added last the argument `argument` of the call that will be added next but `calls`.
    ///
    /// `calls` 0 is the next one; arguments count from 0. It is how a descriptor gets from `openat` to `write`: no
    /// number is known when the list is made.
    pub fn pass_result(&mut self, calls: usize, argument: usize) {
        let word = (self.calls.len() + calls) * CALL_WORDS + 1 + argument;
        self.store_result(PASSED | word as u64);
    }

    /// Has the process end when it gets `signal`, until its `execve`.
    ///
    /// The first process of a pid namespace ignores signals that have the default action (`pid_namespaces(7)`), so it
    /// needs a handler to be ended by its own kind.
    pub fn end_on(&mut self, signal: i32) {
        unsafe extern "C" {
            static drayage_launch_end_it: u8;
        }
        let at = &raw const drayage_launch_end_it as usize - code().as_ptr() as usize;
        // What the handler would return to is never asked, but x86-64 wants it to be named.
        let flags = if cfg!(target_arch = "x86_64") { SA_RESTORER } else { 0 };
        let action = self.words(&[CODE_BASE + (ELF_HEADERS + at) as u64, flags, 0, 0]);
        self.call("choose to end", 0, libc::SYS_rt_sigaction, &[number(signal), action, 0, 8]);
    }

    /// Builds the program into a sealed memfd.
    ///
    /// # Errors
    /// Those of `memfd_create(2)`: `EACCES` where the sysctl `vm.memfd_noexec` is 2.
    pub fn seal(mut self) -> io::Result<OwnedFd> {
        self.data.resize(self.data.len().next_multiple_of(8), 0);
        let first = DATA_BASE + self.data.len() as u64;
        self.data[FIRST_CALL..FIRST_CALL + 8].copy_from_slice(&first.to_ne_bytes());
        for call in &mut self.calls {
            if call[7] & PASSED != 0 {
                call[7] = first + (call[7] & !PASSED) * 8;
            }
        }
        for word in self.calls.iter().flatten() {
            self.data.extend_from_slice(&word.to_ne_bytes());
        }
        // The list ends with a number that is no call, should the last one return.
        self.data.extend_from_slice(&u64::MAX.to_ne_bytes());
        let mut image = elf_headers(code().len(), self.data.len());
        image.extend_from_slice(code());
        // The code has to fit into the first page with the headers; it is some hundred bytes.
        image.resize(PAGE, 0);
        image.extend_from_slice(&self.data);
        let memfd = executable_memfd()?;
        let file = std::fs::File::from(memfd);
        file.write_all_at(&image, 0)?;
        let memfd = OwnedFd::from(file);
        // F_SEAL_SEAL makes the others final. While the file is executed, writing would fail with ETXTBSY; the seals
        // are for the time before and after that.
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&memfd, seals)?;
        Ok(memfd)
    }
}

/// Executes a program by descriptor; returns only on failure. Descriptors without close-on-exec reach it.
///
/// execveat(2) with `AT_EMPTY_PATH`: the program needs no name in any file system, so it works in a root without /proc.
pub fn execute(program: BorrowedFd<'_>, arguments: &[&CStr], environment: &[&CStr]) -> io::Error {
    let argv: Vec<*const libc::c_char> =
        arguments.iter().map(|argument| argument.as_ptr()).chain([std::ptr::null()]).collect();
    let envp: Vec<*const libc::c_char> =
        environment.iter().map(|variable| variable.as_ptr()).chain([std::ptr::null()]).collect();
    execute_arrays(program, &argv, &envp)
}

/// Executes a launching program, under the name that processes have which are to become a container's. It allocates nothing.
pub fn execute_init(program: BorrowedFd<'_>) -> io::Error {
    execute_arrays(program, &[c"spawn".as_ptr(), c"init".as_ptr(), std::ptr::null()], &[std::ptr::null()])
}

/// Both end with a null pointer, and the others point to strings that live until the call returns.
fn execute_arrays(program: BorrowedFd<'_>, argv: &[*const libc::c_char], envp: &[*const libc::c_char]) -> io::Error {
    let (argv, envp) = (argv.as_ptr(), envp.as_ptr());
    // SAFETY: the path is NUL-terminated, and both arrays end with a null pointer, as both callers in this file have it.
    unsafe { libc::syscall(libc::SYS_execveat, program.as_raw_fd(), c"".as_ptr(), argv, envp, libc::AT_EMPTY_PATH) };
    io::Error::last_os_error()
}

/// Copies the running program into a sealed memfd, for the rare container that may look into the processes entering it.
///
/// `/proc/self/exe` is opened as the kernel knows it, not by a path: what has replaced the file meanwhile is not
/// meant.
pub fn sealed_self() -> io::Result<OwnedFd> {
    let program = std::fs::File::open("/proc/self/exe")?;
    let memfd = executable_memfd()?;
    let size = usize::try_from(program.metadata()?.len()).unwrap_or(usize::MAX);
    let mut copied = 0;
    while copied < size {
        let count = rustix::fs::sendfile(&memfd, &program, None, size - copied)?;
        if count == 0 {
            break;
        }
        copied += count;
    }
    rustix::fs::fcntl_add_seals(&memfd, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(memfd)
}

/// Tells whether the running program is such a copy.
///
/// It ends the recursion: the copy executes the same `main`. Files that are no memfd have no seals (`EINVAL`).
pub fn is_sealed_self() -> bool {
    std::fs::File::open("/proc/self/exe").is_ok_and(|program| {
        rustix::fs::fcntl_get_seals(program.as_fd()).is_ok_and(|seals| seals.contains(SealFlags::WRITE))
    })
}

fn executable_memfd() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 do not know the flag and need none.
    match rustix::fs::memfd_create(c"spawn", flags | MemfdFlags::EXEC) {
        Err(rustix::io::Errno::INVAL) => Ok(rustix::fs::memfd_create(c"spawn", flags)?),
        other => Ok(other?),
    }
}

fn number(fd: i32) -> u64 {
    u64::try_from(fd).unwrap_or(u64::MAX)
}

fn elf_headers(code: usize, data: usize) -> Vec<u8> {
    const MACHINE: u64 = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
    let code = (ELF_HEADERS + code) as u64;
    // The head's fields and each segment's, of one, two, four or eight bytes, as words.
    let mut words = vec![2 | MACHINE << 16 | 1 << 32, CODE_BASE + ELF_HEADERS as u64, 64, 0];
    words.extend([64 << 32 | 56 << 48, 3 | 64 << 16]);
    for (kind, flags, offset, address, size) in [
        (libc::PT_LOAD, libc::PF_R | libc::PF_X, 0, CODE_BASE, code),
        (libc::PT_LOAD, libc::PF_R | libc::PF_W, PAGE as u64, DATA_BASE, data as u64),
        (libc::PT_GNU_STACK, libc::PF_R | libc::PF_W, 0, 0, 0),
    ] {
        words.extend([u64::from(kind) | u64::from(flags) << 32, offset, address, address, size, size, PAGE as u64]);
    }
    b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0"
        .iter()
        .copied()
        .chain(words.into_iter().flat_map(u64::to_le_bytes))
        .collect()
}

// Each entry of the list has eleven words: the call's number; six arguments; where to store its result, or 0; whether
// a failure is to be ignored; address and length of its message. For each the code loads number and arguments and
// executes the call. On failure, unless that is to be ignored, it puts the error number behind the message's tag,
// writes the message to the report descriptor and exits with 127; else it stores the result, if that is wanted, and
// goes on.
#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(include_str!("launch/x86_64.s"), data = const DATA_BASE);

#[cfg(target_arch = "aarch64")]
std::arch::global_asm!(include_str!("launch/aarch64.s"), data = const DATA_BASE);

fn code() -> &'static [u8] {
    unsafe extern "C" {
        static drayage_launch_begin: u8;
        static drayage_launch_end: u8;
    }
    // As addresses: each static by itself is one byte.
    let begin = (&raw const drayage_launch_begin).expose_provenance();
    let end = (&raw const drayage_launch_end).expose_provenance();
    // SAFETY: both labels stand in one section of the program, in this order, and what is between them is constant for the
    // whole run.
    unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance(begin), end - begin) }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::clone::{Cloned, How, clone, exit_now};

    /// Runs a list in a child and returns what it reported and its exit status. Tests have many threads, so this forks
    /// through a helper that has one.
    fn run(build: fn(&mut Launch)) -> (Vec<u8>, i32) {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let mut launch = Launch::new(theirs.as_fd());
        build(&mut launch);
        let program = launch.seal().unwrap();
        rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty()).unwrap();
        let mut child = std::process::Command::new(format!("/proc/self/fd/{}", {
            rustix::io::fcntl_setfd(&program, rustix::io::FdFlags::empty()).unwrap();
            program.as_raw_fd()
        }))
        .spawn()
        .unwrap();
        drop(theirs);
        let mut report = Vec::new();
        ours.read_to_end(&mut report).unwrap();
        (report, child.wait().unwrap().code().unwrap())
    }

    #[test]
    fn calls_are_made_in_order_and_the_failing_one_is_named() {
        let (report, code) = run(|launch| {
            launch.try_call(libc::SYS_close, &[9999]);
            launch.call("first", 7, libc::SYS_dup, &[2]);
            launch.pass_result(0, 0);
            launch.call("close the copy", 7, libc::SYS_close, &[9999]);
            let path = launch.string(c"/nonexistent");
            launch.call("execute it", 7, libc::SYS_chdir, &[path]);
            launch.call("never", 7, libc::SYS_exit_group, &[3]);
        });
        assert_eq!(code, 127);
        assert_eq!(report, [&7_u32.to_ne_bytes()[..], &2_u32.to_ne_bytes()[..], b"execute it"].concat());
    }

    #[test]
    fn the_program_is_sealed() {
        let memfd = Launch::new(io::stderr().as_fd()).seal().unwrap();
        assert!(rustix::io::pwrite(&memfd, b"x", 0).is_err());
        assert!(rustix::fs::ftruncate(&memfd, 0).is_err());
    }

    #[test]
    fn a_second_thread_forbids_cloning() {
        match std::thread::spawn(|| clone(How::default())).join().unwrap() {
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EDEADLK)),
            Ok(Cloned::Child) => exit_now(1),
            Ok(Cloned::Parent { .. }) => panic!("cloned"),
        }
    }
}
