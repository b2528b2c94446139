//! Other firewalls' chains, as far as published ports are concerned.

use netlink::Socket;
use netlink::foreign::{self, Forward, Passage};
use netlink::nft::expression::{accept, translated};
use netlink::nft::{Family, Rule};

use crate::firewall::FAMILIES;
use crate::mapping::Mapping;

/// The comment of the rule that is put into such a chain.
const COMMENT: &str = "drayage portmap: published ports";

/// Looks for chains that would drop what is sent to published ports, and does about them what is asked.
pub(crate) fn open(how: Forward, mappings: &[Mapping]) -> anyhow::Result<()> {
    let has = |family: &Family| mappings.iter().any(|mapping| mapping.target.is_ipv4() == (*family == Family::Ip));
    let passage = Passage {
        comment: COMMENT.to_owned(),
        rules: vec![translated().into_iter().chain([accept()]).collect()],
        is_plain: false,
        options: vec![["-m", "conntrack", "--ctstate", "DNAT"].map(str::to_owned).to_vec()],
        is_open,
        families: FAMILIES.into_iter().filter(has).collect(),
        legacy: true,
        loss: "other machines will not reach the ports".to_owned(),
    };
    let how = if mappings.is_empty() { Forward::Off } else { how };
    foreign::open(&mut Socket::open(netlink::NetlinkFamily::Netfilter)?, how, &passage)
}

/// Where `ns add` has let all of a bridge's packets through, those of its ports come through too.
fn is_open(own: &str, rule: &Rule) -> bool {
    let ours = |comment: &str| comment == own || comment.starts_with(foreign::BRIDGE);
    rule.accepts_translated || rule.comment.as_deref().is_some_and(ours)
}
