//! How one node names another to a client: the address of the leader's binary door, as numbers, so that every decoder
//! can read it. It is a hint; a client must be able to go on without it.

use std::net::{IpAddr, SocketAddr};

/// The leader's address as `leader_ip` and `leader_port` of a message; zeros for nobody known.
pub fn leader_fields(leader: Option<SocketAddr>) -> (u128, u16) {
    leader.map_or((0, 0), |address| {
        let ip = match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        (ip.to_bits(), address.port())
    })
}

/// The address that these fields name, if any.
pub fn leader_address(leader_ip: u128, leader_port: u16) -> Option<SocketAddr> {
    let ip = std::net::Ipv6Addr::from_bits(leader_ip).to_canonical();
    (!ip.is_unspecified() && leader_port != 0).then_some(SocketAddr::new(ip, leader_port))
}
