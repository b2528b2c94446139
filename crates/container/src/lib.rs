//! What a container is: its id and who owns it, where everything of it is, and the state that its runtime has noted. And
//! the containers that are known on this machine, whoever runs them: runtimes note their processes in one directory a
//! container, engines the names that people give. All of that is read as it is found, and what cannot be read is not there.

#![forbid(unsafe_code)]

pub mod accounts;
mod directories;
mod exit;
mod file;
mod id;
mod known;
mod name;
mod noted;
mod owner;
mod process;
mod state;
mod unwritten;

pub use directories::{Directories, NAMESPACES, NetworkNote, flush_note, hash, machine, namespace, state_in};
pub use exit::{Exit, write_json};
pub use id::{ContainerId, NameError, NetworkName, RuntimeId, VolumeName};
pub use known::{Condition, Known, in_full};
pub use name::Names;
pub use noted::{JOINED, Noted, all, find, of_id};
pub use owner::{OWNER, Owner, Ownership};
pub use process::{NotedProcess, birth};
pub use state::State;
pub use unwritten::{Unwritten, boot};
