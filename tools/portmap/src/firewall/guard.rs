//! What keeps 127.0.0.0/8 the host's own while `route_localnet` is on, which publishing on 127.0.0.1 needs: neighbours and
//! containers would reach what listens only there (CVE-2020-8558). It is in a table of its own, so that it goes neither with
//! the last mapping nor with the process that holds one, but when the switch is off again.

use netlink::nft::expression::{self as expression, Base, Comparison, Meta, compare, meta, payload};
use netlink::nft::{Expression, Family, Hook, Table};
use netlink::{Batch, flag};

pub(super) const TABLE: Table<'static> = Table { family: Family::Ip, name: "portmap-guard" };
pub(super) const RULES: usize = 1;

const CHAIN: &str = "raw";
const LOOPBACK: u8 = 127;

/// Adds the chain in a table that is there to a batch; a rule that is there is replaced.
pub(super) fn write(batch: &mut Batch, table: Table<'_>) {
    let hook = Hook { kind: "filter", number: Hook::PREROUTING, priority: -300 };
    batch.push(&table.create_chain(CHAIN, Some(hook)), flag::CREATE);
    batch.push(&table.flush_chain(CHAIN), 0);
    batch.push(&table.create_rule(CHAIN, &rule(), None), flag::CREATE | flag::APPEND);
}

/// `iifname != lo ip daddr 127.0.0.0/8 drop`
fn rule() -> Vec<Expression> {
    let mut name = [0; 16];
    name[..2].copy_from_slice(b"lo");
    vec![
        meta(Meta::InputName, 0),
        compare(0, Comparison::Unequal, &name),
        payload(Base::Network, 16, 1, 0),
        compare(0, Comparison::Equal, &[LOOPBACK]),
        expression::drop(),
    ]
}
