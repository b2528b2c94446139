//! Links, addresses and routes (rtnetlink(7)): the requests that a container's network needs, as functions.

mod cidr;
mod entry;

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{
    IFA_ADDRESS, IFA_BROADCAST, IFA_LOCAL, IFLA_ADDRESS, IFLA_AF_SPEC, IFLA_ALT_IFNAME, IFLA_EXT_MASK, IFLA_GROUP,
    IFLA_IFALIAS, IFLA_IFNAME, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_INFO_SLAVE_DATA, IFLA_INFO_SLAVE_KIND, IFLA_LINK,
    IFLA_LINK_NETNSID, IFLA_LINKINFO, IFLA_MASTER, IFLA_MTU, IFLA_NET_NS_FD, IFLA_PROP_LIST, NDA_DST, NDA_LLADDR,
    NUD_PERMANENT, RT_SCOPE_LINK, RT_SCOPE_UNIVERSE, RT_TABLE_LOCAL, RT_TABLE_MAIN, RTA_DST, RTA_GATEWAY, RTA_OIF,
    RTA_PREFSRC, RTA_PRIORITY, RTM_DELLINK, RTM_GETADDR, RTM_GETLINK, RTM_GETNSID, RTM_GETROUTE, RTM_NEWADDR,
    RTM_NEWLINK, RTM_NEWNEIGH, RTM_NEWROUTE, RTN_UNICAST, RTPROT_STATIC,
};
use rustix::io::Errno;

use crate::{Attributes, Error, NetlinkFamily, Raw, Socket, flag, unless};

pub use cidr::Cidr;
pub use entry::{Address, Link, Route};

/// An address of the link layer.
pub type Mac = [u8; 6];

// include/uapi/linux/rtnetlink.h
const RTM_NEWLINKPROP: u16 = 108;
const RTM_DELLINKPROP: u16 = 109;

// include/uapi/linux/if_link.h
const RTEXT_FILTER_SKIP_STATS: u32 = 8;
const IFLA_BRPORT_MODE: u16 = 4;
const VETH_INFO_PEER: u16 = 1;
const IFLA_MACVLAN_MODE: u16 = 1;
const MACVLAN_MODE_BRIDGE: u32 = 4;
const IFLA_INET_CONF: u16 = 1;
// include/uapi/linux/ip.h
const IPV4_DEVCONF_ARP_NOTIFY: u16 = 22;
const IFF_UP: u32 = 1;
/// A name's bytes, and the zero byte behind them; further names may be longer.
const IFNAMSIZ: usize = 16;

// include/uapi/linux/if_addr.h
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u8 = 2;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;
const IFA_F_PERMANENT: u8 = 0x80;

/// The answer names the table.
const RTM_F_LOOKUP_TABLE: u32 = 0x1000;

const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;

/// `AF_INET` and `AF_INET6`, which no kernel numbers otherwise.
pub(crate) const AF_INET: u8 = 2;
pub(crate) const AF_INET6: u8 = 10;

/// A new link's own properties.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewLink {
    /// Its name.
    pub name: String,
    /// Its address; the kernel draws one where none is given.
    pub mac: Option<Mac>,
    /// Its longest packet.
    pub mtu: Option<u32>,
    /// A number that says whose it is from its birth on, unlike an alias, which can only be given later.
    pub group: Option<u32>,
}

impl NewLink {
    fn attributes(&self) -> Attributes {
        let attributes = Attributes::new().text(IFLA_IFNAME, &self.name);
        let attributes = self.mac.iter().fold(attributes, |a, mac| a.bytes(IFLA_ADDRESS, mac));
        let attributes = self.mtu.iter().fold(attributes, |a, mtu| a.number(IFLA_MTU, *mtu));
        self.group.iter().fold(attributes, |a, group| a.number(IFLA_GROUP, *group))
    }
}

/// A routing socket in the network namespace in which it was opened.
#[derive(Debug)]
pub struct Router(Socket);

impl Router {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> Result<Self, Error> {
        Ok(Self(Socket::open(NetlinkFamily::Route)?))
    }

    /// Returns all links, or those that are ports of the link `controller`.
    ///
    /// Statistics are left out of the answers, which with thousands of links are long.
    pub fn links(&mut self, controller: Option<u32>) -> Result<Vec<Link>, Error> {
        let attributes = Attributes::new().number(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        Ok(links(&self.0.dump(&list_message(controller, attributes))?))
    }

    /// Returns some of all links, or of those that are ports of the link `controller`, if there are any. This socket is not to be used for anything else then: there may
    /// be more to come.
    pub fn some_links(mut self, controller: Option<u32>) -> Result<Vec<Link>, Error> {
        // For a mask the kernel would measure all links before the first answer.
        Ok(links(&self.0.begin_dump(&list_message(controller, Attributes::new()))?))
    }

    /// Returns the link of that name, be it one of its further ones, or `None`.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        let kind = if name.len() < IFNAMSIZ { IFLA_IFNAME } else { IFLA_ALT_IFNAME };
        self.find(0, Attributes::new().text(kind, name))
    }

    /// Returns the link of that number, or `None`.
    pub fn link_at(&mut self, index: u32) -> Result<Option<Link>, Error> {
        self.find(index, Attributes::new())
    }

    fn find(&mut self, index: u32, attributes: Attributes) -> Result<Option<Link>, Error> {
        let attributes = attributes.number(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        let found = self.0.fetch(&link_message(RTM_GETLINK, index, false, attributes));
        Ok(unless(Errno::NODEV, found)?.and_then(|raw| Link::parse(&raw.payload)))
    }

    /// Gives a link further names, which no other link of the namespace has: `EEXIST`.
    pub fn add_names(&mut self, index: u32, names: &[String]) -> Result<(), Error> {
        if names.is_empty() {
            return Ok(());
        }
        self.create(&names_message(RTM_NEWLINKPROP, index, names))
    }

    /// Takes further names from a link.
    pub fn remove_names(&mut self, index: u32, names: &[String]) -> Result<(), Error> {
        self.0.request(&names_message(RTM_DELLINKPROP, index, names), 0)
    }

    /// Makes a bridge. `EEXIST` where a link of that name is there.
    pub fn add_bridge(&mut self, link: &NewLink) -> Result<(), Error> {
        let attributes = link.attributes().nest(IFLA_LINKINFO, &Attributes::new().text(IFLA_INFO_KIND, "bridge"));
        self.create(&link_message(RTM_NEWLINK, 0, false, attributes))
    }

    /// Makes a pair of virtual Ethernet links: `link`, up, as a port of `controller` if one is given, and `peer` in another
    /// namespace.
    ///
    /// One message makes both ends where they belong: no end is ever seen in a namespace that is not its own.
    /// # Errors
    /// `EEXIST` where either name is taken, `ENODEV` where the controller is gone.
    pub fn add_veth(
        &mut self,
        link: &NewLink,
        controller: Option<u32>,
        peer: &NewLink,
        netns: BorrowedFd<'_>,
    ) -> Result<(), Error> {
        // The peer must stay down: IFF_UP here is answered by ENOTCONN.
        let peer = peer.attributes().bytes(IFLA_NET_NS_FD, &netns.as_raw_fd().to_ne_bytes());
        let peer = link_message(0, 0, false, peer).payload;
        let info = Attributes::new()
            .text(IFLA_INFO_KIND, "veth")
            .nest(IFLA_INFO_DATA, &Attributes::new().bytes(VETH_INFO_PEER, &peer));
        let attributes = controller.iter().fold(link.attributes(), |a, index| a.number(IFLA_MASTER, *index));
        let attributes = attributes.nest(IFLA_LINKINFO, &info);
        self.create(&link_message(RTM_NEWLINK, 0, true, attributes))
    }

    /// Makes a macvlan (mode bridge) over the link `lower`, in another namespace.
    pub fn add_macvlan(&mut self, link: &NewLink, lower: u32, netns: BorrowedFd<'_>) -> Result<(), Error> {
        let mode = Attributes::new().number(IFLA_MACVLAN_MODE, MACVLAN_MODE_BRIDGE);
        let info = Attributes::new().text(IFLA_INFO_KIND, "macvlan").nest(IFLA_INFO_DATA, &mode);
        let attributes = link
            .attributes()
            .number(IFLA_LINK, lower)
            .bytes(IFLA_NET_NS_FD, &netns.as_raw_fd().to_ne_bytes())
            .nest(IFLA_LINKINFO, &info);
        self.create(&link_message(RTM_NEWLINK, 0, false, attributes))
    }

    /// Gives a link its alias: a text that `ip link` shows.
    pub fn set_alias(&mut self, name: &str, alias: &str) -> Result<(), Error> {
        self.change(0, Attributes::new().text(IFLA_IFNAME, name).bytes(IFLA_IFALIAS, alias.as_bytes()))
    }

    /// Lets a bridge send a packet back through the port that it came from.
    ///
    /// Without it a container that asks for its own published port gets no answer where `br_netfilter` passes bridged
    /// packets through netfilter: the packet is translated and has to leave by the port by which it came.
    pub fn set_hairpin(&mut self, name: &str) -> Result<(), Error> {
        let info = Attributes::new()
            .text(IFLA_INFO_SLAVE_KIND, "bridge")
            .nest(IFLA_INFO_SLAVE_DATA, &Attributes::new().bytes(IFLA_BRPORT_MODE, &[1]));
        self.change(0, Attributes::new().text(IFLA_IFNAME, name).nest(IFLA_LINKINFO, &info))
    }

    /// Moves a link into another network namespace and gives it the name `name` there, which may be a pattern such as
    /// `eth%d`. It arrives down and without addresses.
    ///
    /// # Errors
    /// `EEXIST` where the name is taken there; `EINVAL` for a link that is bound to its namespace, such as `lo`.
    pub fn move_link(&mut self, index: u32, name: &str, netns: BorrowedFd<'_>) -> Result<(), Error> {
        let netns = netns.as_raw_fd().to_ne_bytes();
        self.change(index, Attributes::new().bytes(IFLA_NET_NS_FD, &netns).text(IFLA_IFNAME, name))
    }

    /// Makes a link a port of the link `controller`.
    pub fn set_controller(&mut self, index: u32, controller: u32) -> Result<(), Error> {
        self.change(index, Attributes::new().number(IFLA_MASTER, controller))
    }

    /// Brings a link up.
    pub fn set_up(&mut self, index: u32) -> Result<(), Error> {
        self.0.request(&link_message(RTM_NEWLINK, index, true, Attributes::new()), 0)
    }

    /// Gives a link the address that it has. For the kernel that is a change, of which it tells the neighbours: by a
    /// gratuitous ARP from now on, and by an unsolicited neighbour advertisement where `ndisc_notify` is on.
    pub fn announce(&mut self, index: u32, mac: &[u8]) -> Result<(), Error> {
        let notify = Attributes::new().number(IPV4_DEVCONF_ARP_NOTIFY, 1);
        let ipv4 = Attributes::new().nest(u16::from(AF_INET), &Attributes::new().nest(IFLA_INET_CONF, &notify));
        self.change(index, Attributes::new().nest(IFLA_AF_SPEC, &ipv4))?;
        self.change(index, Attributes::new().bytes(IFLA_ADDRESS, mac))
    }

    /// Removes a link, and with it its peer. One that is gone is no error.
    ///
    /// What is known by the link goes with it: its addresses, routes and neighbours.
    pub fn delete_link(&mut self, index: u32) -> Result<(), Error> {
        let done = self.0.request(&link_message(RTM_DELLINK, index, false, Attributes::new()), 0);
        unless(Errno::NODEV, done).map(Option::unwrap_or_default)
    }

    /// Gives a link an address; the same one again is no error. `on_link`: the others of its network are the link's neighbours.
    pub fn add_address(&mut self, index: u32, address: Cidr, on_link: bool) -> Result<(), Error> {
        let bytes = octets(address.address);
        let attributes = Attributes::new().bytes(IFA_LOCAL, &bytes).bytes(IFA_ADDRESS, &bytes);
        let attributes = match address.last() {
            last @ IpAddr::V4(_) if address.prefix < 31 => attributes.bytes(IFA_BROADCAST, &octets(last)),
            _ => attributes,
        };
        // Nobody else can have a container's address, and duplicate detection would keep it from use for a second.
        let flags = u32::from(IFA_F_NODAD) | if on_link { 0 } else { IFA_F_NOPREFIXROUTE };
        let attributes = attributes.number(IFA_FLAGS, flags);
        let header = [family(address.address), address.prefix, IFA_F_NODAD, 0];
        let payload = [&header[..], &index.to_ne_bytes(), &attributes.into_bytes()].concat();
        unless(Errno::EXIST, self.create(&Raw { kind: RTM_NEWADDR, payload })).map(Option::unwrap_or_default)
    }

    /// Returns the addresses of all links.
    pub fn addresses(&mut self) -> Result<Vec<Address>, Error> {
        self.addresses_of(0)
    }

    /// Returns the addresses of the link of that number.
    pub fn addresses_of(&mut self, index: u32) -> Result<Vec<Address>, Error> {
        let payload = [[0; 4], index.to_ne_bytes()].concat();
        let answers = self.0.dump(&Raw { kind: RTM_GETADDR, payload })?;
        let addresses = answers.iter().filter_map(|raw| Address::parse(&raw.payload));
        // A kernel before 4.20 answers with all.
        Ok(addresses.filter(|own| index == 0 || own.index == index).collect())
    }

    /// Adds a route to the main table, in the place of one that has the same destination and metric.
    ///
    /// An existing one with the same destination and metric is replaced, so that a repeated call is no error.
    pub fn add_route(&mut self, route: &Route) -> Result<(), Error> {
        let Cidr { address, prefix } = route.destination;
        let is_direct = route.gateway.is_none();
        let scope = if is_direct && address.is_ipv4() { RT_SCOPE_LINK } else { RT_SCOPE_UNIVERSE };
        let header = [family(address), prefix, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, scope, RTN_UNICAST, 0, 0, 0, 0];
        let destination = Some(address).filter(|_| prefix > 0);
        let addresses = [(RTA_DST, destination), (RTA_GATEWAY, route.gateway), (RTA_PREFSRC, route.source)];
        let given = addresses.iter().filter_map(|(kind, address)| Some((*kind, octets((*address)?))));
        let attributes = given.fold(Attributes::new(), |a, (kind, octets)| a.bytes(kind, &octets));
        let attributes = route.index.iter().fold(attributes, |a, index| a.number(RTA_OIF, *index));
        // Without one IPv6 takes 1024 (`IP6_RT_PRIO_USER`).
        let metric = if address.is_ipv4() || route.metric == 0 { route.metric } else { 1024 + route.metric };
        let payload = [&header[..], &attributes.number(RTA_PRIORITY, metric).into_bytes()].concat();
        self.0.request(&Raw { kind: RTM_NEWROUTE, payload }, flag::CREATE | flag::REPLACE)
    }

    /// Says for good which link-layer address a neighbour of a link has. Nobody is asked for it then, and it does not count
    /// towards the kernel's limit of neighbours.
    ///
    /// The limit is `net.ipv4.neigh.default.gc_thresh3`, 1,024 unless it is raised (arp(7)); permanent entries are
    /// not counted since Linux 5.0.
    pub fn set_neighbour(&mut self, index: u32, address: IpAddr, mac: Mac) -> Result<(), Error> {
        let attributes = Attributes::new().bytes(NDA_DST, &octets(address)).bytes(NDA_LLADDR, &mac);
        let header = [&[family(address), 0, 0, 0][..], &index.to_ne_bytes(), &NUD_PERMANENT.to_ne_bytes(), &[0; 2]];
        let payload = [&header.concat()[..], &attributes.into_bytes()].concat();
        self.0.request(&Raw { kind: RTM_NEWNEIGH, payload }, flag::CREATE | flag::REPLACE)
    }

    /// Returns the route that packets to an address take, if one leads beyond the host.
    ///
    /// `None` covers every refusal of the kernel: unreachable, prohibited, no route.
    pub fn route_to(&mut self, address: IpAddr) -> Result<Option<Route>, Error> {
        // IPv6 names the table unasked, and refuses the flag.
        let flags = if address.is_ipv4() { RTM_F_LOOKUP_TABLE } else { 0 };
        let header = [family(address), Cidr::of(address).prefix, 0, 0, 0, 0, 0, 0];
        let attributes = Attributes::new().bytes(RTA_DST, &octets(address)).into_bytes();
        let payload = [&header[..], &flags.to_ne_bytes(), &attributes].concat();
        match self.0.fetch(&Raw { kind: RTM_GETROUTE, payload }) {
            Ok(raw) => Ok(Route::parse(&raw.payload)),
            Err(error) if error.errno().is_some() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the routes of the main table.
    pub fn routes(&mut self) -> Result<Vec<Route>, Error> {
        Ok(self.all_routes()?.into_iter().filter(|route| route.is_main).collect())
    }

    /// Returns the routes of all tables but that of the host's own addresses.
    pub fn all_routes(&mut self) -> Result<Vec<Route>, Error> {
        let answers = self.0.dump(&Raw { kind: RTM_GETROUTE, payload: vec![0; 12] })?;
        Ok(answers.iter().filter_map(|raw| Route::parse(&raw.payload)).collect())
    }

    /// Returns the number by which this socket's namespace knows another one, if it has given it one.
    pub fn namespace_id(&mut self, netns: BorrowedFd<'_>) -> Result<Option<u32>, Error> {
        let attributes = Attributes::new().bytes(NETNSA_FD, &netns.as_raw_fd().to_ne_bytes());
        let payload = [&[0; 4][..], &attributes.into_bytes()].concat();
        let answer = self.0.fetch(&Raw { kind: RTM_GETNSID, payload })?;
        let id = crate::find(answer.payload.get(4..).unwrap_or_default(), NETNSA_NSID);
        Ok(id.and_then(|a| u32::try_from(i32::from_ne_bytes(a.payload.try_into().ok()?)).ok()))
    }

    fn create(&mut self, message: &Raw) -> Result<(), Error> {
        self.0.request(message, flag::CREATE | flag::EXCL)
    }

    /// Changes a link of that number; with number 0, the one that the attributes name.
    fn change(&mut self, index: u32, attributes: Attributes) -> Result<(), Error> {
        self.0.request(&link_message(RTM_NEWLINK, index, false, attributes), 0)
    }
}

fn list_message(controller: Option<u32>, attributes: Attributes) -> Raw {
    let attributes = controller.iter().fold(attributes, |a, index| a.number(IFLA_MASTER, *index));
    link_message(RTM_GETLINK, 0, false, attributes)
}

fn links(answers: &[Raw]) -> Vec<Link> {
    answers.iter().filter_map(|raw| Link::parse(&raw.payload)).collect()
}

fn names_message(kind: u16, index: u32, names: &[String]) -> Raw {
    let list = names.iter().fold(Attributes::new(), |list, name| list.text(IFLA_ALT_IFNAME, name));
    link_message(kind, index, false, Attributes::new().nest(IFLA_PROP_LIST, &list))
}

/// `struct ifinfomsg`, then the attributes.
fn link_message(kind: u16, index: u32, up: bool, attributes: Attributes) -> Raw {
    let flags = if up { IFF_UP } else { 0 };
    let header = [[0; 4], index.to_ne_bytes(), flags.to_ne_bytes(), flags.to_ne_bytes()].concat();
    Raw { kind, payload: [header, attributes.into_bytes()].concat() }
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

/// Returns an address as its bytes.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
