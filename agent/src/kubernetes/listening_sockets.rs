//! Whose the sockets are that listen at an address of this network namespace (proc(5), `/proc/net/tcp` and `tcp6`). Reading
//! them asks for no right.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// States of sockets (`enum tcp_state`): one that listens, and a connection that it has not accepted yet. A table has these
/// first, and a busy node's has a long rest.
const LISTENS: &str = "0A";
const IS_ASKED: &str = "03";

/// A socket that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listening {
    address: SocketAddr,
    /// The user who has made it.
    owner: u32,
}

/// The users who own the sockets that accept connections to `address`: those that are bound to it, or else to all
/// addresses. Empty where there is none, or no table.
pub(super) fn owners(proc: &Path, address: SocketAddr) -> Vec<u32> {
    let tables = ["net/tcp", "net/tcp6"].map(|table| read(&proc.join(table)));
    serving(&tables.concat(), address)
}

#[expect(
    clippy::disallowed_methods,
    reason = "/proc is the kernel's; on a thread that may block"
)]
fn read(table: &Path) -> Vec<Listening> {
    let Ok(file) = File::open(table) else {
        return Vec::new();
    };
    let lines = BufReader::new(file).lines().skip(1).map_while(Result::ok);
    listening(lines)
}

/// The sockets that listen, from a table without its heading.
fn listening(lines: impl Iterator<Item = String>) -> Vec<Listening> {
    let mut found = Vec::new();
    for line in lines {
        // sl, local_address, rem_address, st, queues, timer, retrnsmt, uid
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words.get(3) {
            Some(&LISTENS) => {}
            Some(&IS_ASKED) => continue,
            _ => break,
        }
        let address = words.get(1).and_then(|word| address(word));
        let owner = words.get(7).and_then(|word| word.parse().ok());
        if let (Some(address), Some(owner)) = (address, owner) {
            found.push(Listening { address, owner });
        }
    }
    found
}

/// `ADDRESS:PORT` in hexadecimal digits; the address in words of 32 bits, each in the machine's byte order.
fn address(word: &str) -> Option<SocketAddr> {
    let (address, port) = word.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let bytes = |word: &str| Some(u32::from_str_radix(word, 16).ok()?.to_ne_bytes());
    let address = match address.len() {
        8 => IpAddr::from(bytes(address)?),
        32 => {
            let mut all = [0; 16];
            for (part, index) in all.chunks_exact_mut(4).zip(0..) {
                part.copy_from_slice(&bytes(address.get(index * 8..index * 8 + 8)?)?);
            }
            // A socket of IPv6 that is bound to an address of IPv4.
            IpAddr::from(all).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

/// The owners of those among the sockets that accept connections to `wanted`.
fn serving(sockets: &[Listening], wanted: SocketAddr) -> Vec<u32> {
    let everywhere: &[IpAddr] = match wanted {
        SocketAddr::V4(_) => &[
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ],
        SocketAddr::V6(_) => &[IpAddr::V6(Ipv6Addr::UNSPECIFIED)],
    };
    let bound_to = |addresses: &[IpAddr]| -> Vec<u32> {
        sockets
            .iter()
            .filter(|socket| {
                socket.address.port() == wanted.port() && addresses.contains(&socket.address.ip())
            })
            .map(|socket| socket.owner)
            .collect()
    };
    let exactly = bound_to(&[wanted.ip()]);
    if exactly.is_empty() {
        bound_to(everywhere)
    } else {
        exactly
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<Listening> {
        listening(text.lines().map(str::to_owned))
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn the_kernels_tables_are_read_up_to_the_first_connection() {
        let table = "   0: 0100007F:2808 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 71 1 0 100 0
   1: 0100007F:2808 0100007F:C001 03 00000000:00000000 00:00000000 00000000     0        0 0 1 0 100 0
   2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 72 1 0 100 0
   3: 0100007F:2808 0100007F:C000 01 00000000:00000000 00:00000000 00000000     0        0 73 1 0 100 0
   4: 0100007F:2809 00000000:0000 0A 00000000:00000000 00:00000000 00000000     7        0 74 1 0 100 0
";
        let expected = [("127.0.0.1:10248", 1000), ("0.0.0.0:22", 0)].map(|(address, owner)| Listening {
            address: address.parse().expect("an address"),
            owner,
        });
        assert_eq!(lines(table), expected);
        let table = "   0: 00000000000000000000000001000000:2808 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 71 1
   1: 0000000000000000FFFF00000100007F:2808 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     5        0 71 1
   2: 00000000000000000000000000000000:2808 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     6        0 71 1
";
        let expected = [("[::1]:10248", 0), ("127.0.0.1:10248", 5), ("[::]:10248", 6)];
        let expected = expected.map(|(address, owner)| Listening {
            address: address.parse().expect("an address"),
            owner,
        });
        assert_eq!(lines(table), expected);
        for broken in ["", "   0: x:y z 0A", "   0: 0100007F 0 0A a b c d e"] {
            assert_eq!(lines(broken), []);
        }
    }

    /// The addresses that sockets are bound to with their owners, the address that is asked for, and its owners.
    type Row<'a> = (&'a [(&'a str, u32)], &'a str, &'a [u32]);

    #[test]
    fn a_socket_that_is_bound_to_the_address_serves_it_before_one_that_is_bound_to_all() {
        let sockets = |bound: &[(&str, u32)]| -> Vec<Listening> {
            bound
                .iter()
                .map(|(address, owner)| Listening {
                    address: address.parse().expect("an address"),
                    owner: *owner,
                })
                .collect()
        };
        let (v4, v6) = ("127.0.0.1:10248", "[::1]:10248");
        #[rustfmt::skip]
        let table: &[Row<'_>] = &[
            (&[],                                             v4, &[]),
            (&[(v4, 0)],                                      v4, &[0]),
            (&[(v4, 0)],                                      v6, &[]),
            (&[(v6, 0)],                                      v4, &[]),
            (&[(v6, 0)],                                      v6, &[0]),
            (&[("127.0.0.1:10249", 0)],                       v4, &[]),
            (&[("10.0.0.1:10248", 0)],                        v4, &[]),
            (&[("0.0.0.0:10248", 0)],                         v4, &[0]),
            (&[("0.0.0.0:10248", 0)],                         v6, &[]),
            (&[("[::]:10248", 0)],                            v4, &[0]),
            (&[("[::]:10248", 0)],                            v6, &[0]),
            (&[(v4, 1000), ("[::]:10248", 0)],                v4, &[1000]),
            (&[(v4, 1000), ("[::]:10248", 0)],                v6, &[0]),
            (&[(v4, 0), ("[::]:10248", 1000)],                v4, &[0]),
            // Several sockets share a port (SO_REUSEPORT) only where one user has made them.
            (&[(v4, 0), (v4, 0)],                             v4, &[0, 0]),
        ];
        for (bound, wanted, expected) in table {
            let owners = serving(&sockets(bound), wanted.parse().expect("an address"));
            assert_eq!(owners, *expected, "{bound:?} {wanted}");
        }
    }
}
