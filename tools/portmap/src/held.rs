//! What a process that serves a container's ports says in its record of those that are translated.

use record::PortMapping;
use serde::{Deserialize, Serialize};

/// In `portmap list`: the number of the socket that holds the ports. A table of its own has them (nftables' `owner` flag),
/// which the kernel deletes with the socket, however its process ends.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct HeldBy(pub(crate) u32);

record::part! { HeldBy: "heldBy" by "portmap"; }

/// In the record of the process beside translated ports: what it holds. 0.0.0.0 or `::` keeps a port to a family.
#[derive(Serialize, Deserialize)]
pub(crate) struct Holds(pub(crate) Vec<PortMapping>);

record::part! { Holds: "holds" by "portmap"; }
