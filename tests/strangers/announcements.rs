//! Announcements are anybody's: a liar on the network names other machines, and far too many.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::{Duration, Instant};

use hive_net::{Identity, PeerId};

use crate::common::lab::{Host, Lab, frames, pair, timed};
use crate::common::patiently;

/// An address on the link where nobody is: whoever believes the announcements asks who has it.
const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 99);
/// An address off the link that is announced by nobody.
const FAR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// Where the way out of the network is.
const GATE: &str = "10.77.0.4";

/// The version that machines speak: one of another is listed, and never dialled.
const SPEAKS: u32 = 2;

/// A record of multicast DNS, made by hand: libraries announce only what is true.
struct Record {
    peer: PeerId,
    name: String,
    port: u16,
    addresses: Vec<IpAddr>,
    ttl_s: u32,
}

impl Record {
    fn packet(&self) -> Vec<u8> {
        let id = self.peer.to_text();
        let (service, label) = (["_hivemind", "_udp", "local"], &id[..16]);
        let instance = [&[label][..], &service[..]].concat();
        let host = format!("hivemind-{label}");
        let host = [host.as_str(), "local"];
        let mut packet = vec![0, 0, 0x84, 0, 0, 0];
        packet.extend((3 + self.addresses.len() as u16).to_be_bytes());
        packet.extend([0; 4]);
        let mut answer = |name: &[&str], kind: u16, data: &[u8]| {
            packet.extend(labels(name));
            packet.extend([kind.to_be_bytes(), 1u16.to_be_bytes()].concat());
            packet.extend(self.ttl_s.to_be_bytes());
            packet.extend((data.len() as u16).to_be_bytes());
            packet.extend(data);
        };
        answer(&service, 12, &labels(&instance));
        answer(&instance, 33, &[&[0; 4][..], &self.port.to_be_bytes(), &labels(&host)].concat());
        let text = [format!("id={id}"), format!("v={SPEAKS}"), format!("name={}", self.name)];
        let text: Vec<u8> = text.iter().flat_map(|text| [&[text.len() as u8], text.as_bytes()].concat()).collect();
        answer(&instance, 16, &text);
        for address in &self.addresses {
            match address {
                IpAddr::V4(v4) => answer(&host, 1, &v4.octets()),
                IpAddr::V6(v6) => answer(&host, 28, &v6.octets()),
            }
        }
        packet
    }
}

fn labels(name: &[&str]) -> Vec<u8> {
    let labels = name.iter().flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat());
    labels.chain([0]).collect()
}

/// The group of multicast DNS, as this machine speaks to it.
fn announcer() -> UdpSocket {
    UdpSocket::bind("0.0.0.0:5353").unwrap()
}

fn announce(socket: &UdpSocket, record: &Record) {
    socket.send_to(&record.packet(), "224.0.0.251:5353").unwrap();
}

/// Helper: announces another machine at a thousand addresses, ever new ones, until it is ended.
#[test]
#[ignore = "started by another test"]
fn be_a_liar() {
    let peer: PeerId = std::env::var("TARGET_ID").unwrap().parse().unwrap();
    let mut addresses: Vec<IpAddr> = vec![NOBODY.into(), "10.77.0.255".parse().unwrap(), "10.77.0.0".parse().unwrap()];
    addresses.extend(["127.0.0.1", "224.0.1.1", "255.255.255.255", "0.0.0.0", "ff02::99", "::1"].map(address));
    for n in 0..250u8 {
        addresses.push(Ipv4Addr::new(8, 8, n, 8).into());
        addresses.push(Ipv4Addr::new(192, 168, n, 8).into());
        addresses.push(Ipv4Addr::new(10, 99, n, 8).into());
        addresses.push(Ipv6Addr::new(0x2001, 0xdb8, u16::from(n), 0, 0, 0, 0, 8).into());
    }
    let socket = announcer();
    for port in [53, 40_000, 40_001, 123].into_iter().cycle() {
        for some in addresses.chunks(20) {
            let addresses = some.to_vec();
            announce(&socket, &Record { peer, name: "bob".to_owned(), port, addresses, ttl_s: 120 });
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Helper: sends a datagram off the link.
#[test]
#[ignore = "started by another test"]
fn send_off_the_link() {
    UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"hello", (FAR, 4483)).unwrap();
}

/// Helper: announces a thousand machines that are not there, all over the network.
#[test]
#[ignore = "started by another test"]
fn be_a_thousand_machines() {
    let socket = announcer();
    let started = Instant::now();
    for n in 0..1000u32 {
        let peer = Identity::generate().id();
        let addresses = vec![Ipv4Addr::new(10, 77, 0, 100 + (n % 150) as u8).into()];
        announce(&socket, &Record { peer, name: "studio".to_owned(), port: 40_000, addresses, ttl_s: 4500 });
        if n % 10 == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    println!("a thousand machines were announced in {:?}", started.elapsed());
    std::io::stdout().flush().unwrap();
}

/// A network with a way out of it, which everybody would take.
fn network_with_a_way_out() -> Lab {
    let mut lab = Lab::new();
    lab.network("switch", &["ann", "bob", "eve", "gate"], "10.77.0");
    for (host, machine) in [(1, "ann"), (2, "bob"), (3, "eve"), (4, "gate")] {
        lab.address(machine, "lan", &format!("fd77::{host}/64"));
    }
    for machine in ["ann", "bob", "eve"] {
        lab.route(machine, GATE);
        lab.route(machine, "fd77::4");
    }
    // The liar has a computer of her own.
    if let [swarms, strangers, ..] = Lab::cores()[..] {
        for (machine, core) in [("ann", swarms), ("bob", swarms), ("eve", strangers)] {
            lab.one_core(machine, core);
        }
    }
    lab
}

/// Where the frames went that left the link: to the gate, but not for it.
fn off_link(frames: &[Vec<u8>]) -> Vec<IpAddr> {
    let to = |frame: &Vec<u8>| match frame.get(12..14)? {
        [8, 0] => Some(IpAddr::from(<[u8; 4]>::try_from(frame.get(30..34)?).ok()?)),
        [0x86, 0xdd] => Some(IpAddr::from(<[u8; 16]>::try_from(frame.get(38..54)?).ok()?)),
        _ => None,
    };
    let stays = |ip: &IpAddr| match ip {
        IpAddr::V4(v4) => v4.octets()[..3] == [10, 77, 0] || v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] == 0xfd77 || matches!(v6.octets()[..2], [0xfe, 0x80] | [0xff, 0x02]),
    };
    frames.iter().filter_map(to).filter(|ip| !stays(ip)).collect()
}

/// Frames in which somebody asks who has the address where nobody is.
fn asks_for_nobody(frames: &[Vec<u8>]) -> usize {
    frames
        .iter()
        .filter(|frame| frame.get(12..14) == Some(&[8, 6]) && frame.get(38..42) == Some(&NOBODY.octets()))
        .count()
}

#[test]
fn a_false_announcement_sends_no_packet_off_the_link() {
    for options in ["", "--lan-only"] {
        let mut lab = network_with_a_way_out();
        let (ann, mut bob) = (lab.node("ann", options), lab.node("bob", options));
        pair(&lab, &ann, &bob);
        let id = ann.peer(&lab, "bob").unwrap()["id"].as_str().unwrap().to_owned();
        bob.kill();
        ann.wait_for(&lab, "bob", "unreachable");
        let file = lab.scratch().join("from-ann");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/lab/capture.py");
        lab.help("switch", &format!("python3 {script} to-ann {}", file.display()));
        patiently("the capture runs", || file.exists());
        // What leaves the link is seen.
        let sent = crate::common::finish(lab.helper("ann", "announcements::send_off_the_link", &[]), None);
        assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stdout));
        patiently("a packet off the link is captured", || off_link(&frames(&file)) == [FAR]);
        let liar = lab.helper("eve", "announcements::be_a_liar", &[("TARGET_ID", &*id)]).spawn().unwrap();
        lab.keep(liar);
        let stays_on_the_link = || {
            let seen = frames(&file);
            assert_eq!(off_link(&seen), [FAR], "{options:?}: more left the link than what was sent on purpose");
            seen
        };
        // What is on the link is believed, so the announcements are heard. Each dial asks three times for an address.
        patiently("ann follows false announcements on the link", || asks_for_nobody(&stays_on_the_link()) > 9);
        // And bob is found when he comes back, on a port that nobody knows, while the liar continues.
        let back = timed(|| {
            bob.start(&lab);
            ann.wait_for(&lab, "bob", "approved");
        });
        println!("{options:?}: {} frames; bob was back after {back:?}, his start included", stays_on_the_link().len());
    }
}

#[test]
fn a_thousand_false_machines_hide_no_new_one_and_are_counted() {
    let mut lab = network_with_a_way_out();
    let (ann, bob) = (lab.node("ann", ""), lab.node("bob", ""));
    pair(&lab, &ann, &bob);
    let (_dan, in_peace) = newcomer(&mut lab, "dan", "10.77.0.5/24", &[&ann, &bob]);
    let before = ann.resident_bytes();
    let flood = crate::common::finish(lab.helper("eve", "announcements::be_a_thousand_machines", &[]), None);
    assert!(flood.status.success(), "{}", String::from_utf8_lossy(&flood.stdout));
    patiently("announcements are left out", || left_out(&lab, &ann) > 0);
    // A real one, after them.
    let (cat, found) = newcomer(&mut lab, "cat", "10.77.0.6/24", &[&ann, &bob]);
    let listed = ann.json(&lab, &["peers"])["peers"].as_array().unwrap().len();
    println!("cat was started and seen by both after {found:?}, in peace {in_peace:?}; ann lists {listed} machines");
    println!(
        "ann has left out {}; memory grew by {} kB",
        left_out(&lab, &ann),
        ann.resident_bytes().saturating_sub(before) >> 10
    );
    // Three seconds, on a machine that has nothing else to do; in peace it takes as long where it has.
    assert!(found < Duration::from_secs(3) + 2 * in_peace, "{found:?}, in peace {in_peace:?}");
    assert!(listed <= 259, "{listed}");
    assert_eq!(ann.peer(&lab, "bob").unwrap()["state"], "approved");
    assert!(ann.run(&lab, &["peers"]).contains("were ignored"));
    pair(&lab, &ann, &cat);
}

/// Plugs a new machine in and starts a node on it; gives how long it takes until the others see it.
fn newcomer(lab: &mut Lab, name: &str, address: &str, others: &[&Host]) -> (Host, Duration) {
    let port = format!("to-{name}");
    lab.machine(name);
    lab.cable((name, "lan"), ("switch", &port));
    lab.join_switch("switch", &port);
    lab.address(name, "lan", address);
    lab.plug(name, "lan");
    let started = Instant::now();
    let host = lab.node(name, "");
    for other in others {
        other.wait_for(lab, name, "found");
    }
    (host, started.elapsed())
}

fn left_out(lab: &Lab, host: &Host) -> u64 {
    host.json(lab, &["peers"])["left_out"].as_u64().unwrap()
}
