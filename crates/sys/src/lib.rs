//! The only crate with `unsafe`: system calls that rustix has no safe face for, each wrapped so that its caller needs
//! no `unsafe`. Functions take `BorrowedFd` and give `OwnedFd`; a raw descriptor occurs in no signature.

#![allow(unsafe_code, reason = "this crate exists so that all the others may forbid it")]

pub mod bpf;
pub mod child;
pub mod clone;
pub mod confinement;
pub mod datagram;
pub mod file;
pub mod launch;
pub mod memory;
pub mod mount;
pub mod namespace;
pub mod netlink;
pub mod network;
pub mod packet;
mod raw;
pub mod ready;
pub mod signal;
pub mod sockets;
pub mod start;
pub mod terminal;
