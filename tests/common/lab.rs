//! Several machines on one: hosts with addresses of their own, in network namespaces, joined by bridges and cables.
//!
//! Nothing in a lab reaches beyond it: its namespaces have no way out. They and every process in them end with the
//! [`Lab`]. It takes root, as containers and CI have it.

#![allow(clippy::unused_self, reason = "what happens in a lab is said of the lab")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{finish, patiently};

/// A lab of this process.
pub(crate) struct Lab {
    namespaces: Vec<String>,
    helpers: Vec<Child>,
    folder: tempfile::TempDir,
    /// Machines that have only one of this machine's cores, and which.
    cores: BTreeMap<String, usize>,
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split_whitespace()).status().expect("iproute2 is installed");
    assert!(status.success(), "`ip {arguments}` failed; these tests make network namespaces and need root");
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self {
            namespaces: Vec::new(),
            helpers: Vec::new(),
            folder: tempfile::tempdir().unwrap(),
            cores: BTreeMap::new(),
        }
    }

    /// The full name of a namespace of this lab.
    fn full(name: &str) -> String {
        format!("hm{}-{name}", std::process::id())
    }

    /// A machine, or a switch, or a router: a namespace with nothing but its loopback.
    pub(crate) fn machine(&mut self, name: &str) {
        let full = Self::full(name);
        ip(&format!("netns add {full}"));
        ip(&format!("-n {full} link set lo up"));
        self.namespaces.push(full);
    }

    /// A cable from `a` to `b`; each end is named and has an address where one is given. It is still unplugged.
    pub(crate) fn cable(&mut self, (a, a_end): (&str, &str), (b, b_end): (&str, &str)) {
        let (a, b) = (Self::full(a), Self::full(b));
        ip(&format!("link add {a_end} netns {a} type veth peer name {b_end} netns {b}"));
    }

    pub(crate) fn address(&self, machine: &str, end: &str, address: &str) {
        ip(&format!("-n {} addr add {address} dev {end}", Self::full(machine)));
    }

    pub(crate) fn no_address(&self, machine: &str, end: &str) {
        ip(&format!("-n {} addr flush dev {end}", Self::full(machine)));
    }

    pub(crate) fn plug(&self, machine: &str, end: &str) {
        ip(&format!("-n {} link set {end} up", Self::full(machine)));
    }

    pub(crate) fn unplug(&self, machine: &str, end: &str) {
        ip(&format!("-n {} link set {end} down", Self::full(machine)));
    }

    pub(crate) fn route(&self, machine: &str, via: &str) {
        ip(&format!("-n {} route add default via {via}", Self::full(machine)));
    }

    /// A switch with one host per name, at `subnet.1`, `subnet.2`, and so on, on an interface called `lan`.
    pub(crate) fn network(&mut self, switch: &str, hosts: &[&str], subnet: &str) {
        self.machine(switch);
        let full = Self::full(switch);
        ip(&format!("-n {full} link add br0 type bridge mcast_snooping 0"));
        ip(&format!("-n {full} link set br0 up"));
        for (index, host) in hosts.iter().enumerate() {
            self.machine(host);
            let port = format!("to-{host}");
            self.cable((host, "lan"), (switch, &port));
            ip(&format!("-n {full} link set {port} master br0 up"));
            self.address(host, "lan", &format!("{subnet}.{}/24", index + 1));
            self.plug(host, "lan");
        }
    }

    /// Plugs the end of a cable into a switch.
    pub(crate) fn join_switch(&self, switch: &str, port: &str) {
        ip(&format!("-n {} link set {port} master br0 up", Self::full(switch)));
    }

    /// One more host on a switch, on a cable whose frames can be made to come late and irregularly: see [`Lab::rough`].
    pub(crate) fn host_on_a_rough_cable(&mut self, switch: &str, host: &str, address: &str) {
        let (middle, port) = (format!("{host}-middle"), format!("to-{host}"));
        self.machine(host);
        self.machine(&middle);
        self.cable((host, "lan"), (&middle, "inner"));
        self.cable((&middle, "outer"), (switch, &port));
        ip(&format!("-n {} link set {port} master br0 up", Self::full(switch)));
        // What is forwarded by a program must be whole: no checksum, no cutting left to hardware that is not there.
        for (place, end) in [(host, "lan"), (&middle, "inner"), (&middle, "outer"), (switch, port.as_str())] {
            let command = format!("ethtool -K {end} tx off gro off");
            assert!(finish(self.command(place, &command), None).status.success(), "{command}");
        }
        self.address(host, "lan", &format!("{address}/24"));
        self.plug(host, "lan");
        self.plug(&middle, "inner");
        self.plug(&middle, "outer");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/lab/delay.py");
        self.help(&middle, &format!("python3 {script} inner outer 0"));
    }

    /// Makes the rough cable of a host jitter by up to 50 ms, or ends that.
    pub(crate) fn rough(&self, host: &str, on: bool) {
        let middle = format!("{}-middle", Self::full(host));
        let pids = Command::new("ip").args(["netns", "pids", &middle]).output().unwrap();
        for pid in String::from_utf8_lossy(&pids.stdout).lines() {
            let signal = if on { "-USR1" } else { "-USR2" };
            assert!(Command::new("kill").args([signal, pid]).status().unwrap().success());
        }
    }

    /// Lets one in twenty datagrams to a machine get lost, or ends that.
    pub(crate) fn lossy(&self, machine: &str, on: bool) {
        let rules = if on {
            "table ip rough { chain come { type filter hook input priority 0; meta l4proto udp numgen random mod 20 < 1 drop; }; }\n"
        } else {
            "delete table ip rough\n"
        };
        let mut nft = self.command(machine, "nft -f -");
        nft.stdin(Stdio::piped());
        assert!(finish(nft, Some(rules.as_bytes())).status.success(), "nftables is installed");
    }

    /// A cable whose ends are `end` on both machines, with a delay each way.
    pub(crate) fn slow_cable(&mut self, a: &str, b: &str, end: &str, one_way_ms: u32) {
        let middle = format!("{end}-middle");
        self.machine(&middle);
        for machine in [a, b] {
            let port = format!("to-{machine}");
            self.cable((machine, end), (&middle, &port));
            // What is forwarded by a program must be whole: no checksum, no cutting left to hardware that is not there.
            for (place, end) in [(machine, end), (middle.as_str(), port.as_str())] {
                let command = format!("ethtool -K {end} tx off gro off");
                assert!(finish(self.command(place, &command), None).status.success(), "{command}");
            }
            self.plug(&middle, &port);
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/lab/delay.py");
        let helper = format!("python3 {script} to-{a} to-{b} {one_way_ms}");
        self.help(&middle, &helper);
    }

    /// Runs a program in a machine until the lab ends.
    pub(crate) fn help(&mut self, machine: &str, command: &str) {
        self.helpers.push(self.command(machine, command).spawn().expect("the helper starts"));
    }

    /// The cores that there are, by their numbers.
    pub(crate) fn cores() -> Vec<usize> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
        let ranges = list.trim().split(',').map(|range| range.split_once('-').unwrap_or((range, range)));
        ranges.flat_map(|(first, last)| first.parse().unwrap()..=last.parse().unwrap()).collect()
    }

    /// Leaves a machine one core: what is started on it from now on takes nothing from those on others.
    pub(crate) fn one_core(&mut self, machine: &str, core: usize) {
        self.cores.insert(machine.to_owned(), core);
    }

    /// A command in a machine.
    pub(crate) fn command(&self, machine: &str, command: &str) -> Command {
        let mut run = Command::new("ip");
        run.args(["netns", "exec", &Self::full(machine)]);
        if let Some(core) = self.cores.get(machine) {
            run.args(["taskset", "--cpu-list", &core.to_string()]);
        }
        run.args(command.split_whitespace());
        run.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        super::of_nobody(&mut run);
        run
    }

    /// One of this test binary's helpers, the ignored test of that name, to be run in a machine.
    pub(crate) fn helper(&self, machine: &str, name: &str, environment: &[(&str, &str)]) -> Command {
        let exe = std::env::current_exe().unwrap();
        let line = format!("{} --exact {name} --ignored --nocapture", exe.display());
        let mut command = self.command(machine, &line);
        command.envs(environment.iter().copied());
        command
    }

    /// Ends a process with the lab.
    pub(crate) fn keep(&mut self, process: Child) {
        self.helpers.push(process);
    }

    /// Makes a machine a router that hides what is behind it, and lets no datagrams from outside in or inside out: the
    /// kind of network in which only a relay helps.
    pub(crate) fn masquerade(&self, router: &str, outside: &str) {
        let rules = format!(
            "table ip nat {{ chain out {{ type nat hook postrouting priority 100; oifname {outside} masquerade; }}; }}
             table ip filter {{ chain pass {{ type filter hook forward priority 0; meta l4proto udp drop; }}; }}\n"
        );
        let mut nft = self.command(router, "nft -f -");
        nft.stdin(Stdio::piped());
        assert!(finish(nft, Some(rules.as_bytes())).status.success(), "nftables is installed");
        let forward = self.command(router, "sysctl -q -w net.ipv4.ip_forward=1");
        assert!(finish(forward, None).status.success());
    }

    /// Cuts a machine off from an address, and from nothing else, or lets it through again.
    pub(crate) fn cut(&self, machine: &str, address: &str, off: bool) {
        let rules = if off {
            format!(
                "table ip cut {{ chain in {{ type filter hook input priority 0; ip saddr {address} drop; }}; \
                 chain out {{ type filter hook output priority 0; ip daddr {address} drop; }}; }}\n"
            )
        } else {
            "delete table ip cut\n".to_owned()
        };
        let mut nft = self.command(machine, "nft -f -");
        nft.stdin(Stdio::piped());
        assert!(finish(nft, Some(rules.as_bytes())).status.success(), "nftables is installed");
    }

    /// Starts a node in a machine.
    pub(crate) fn node(&self, machine: &str, options: &str) -> Host {
        let mut host = self.host(machine, options);
        host.start(self);
        host
    }

    /// A folder for a test's own files; it ends with the lab.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// A machine on which no node runs yet.
    pub(crate) fn host(&self, machine: &str, options: &str) -> Host {
        let (machine, options) = (machine.to_owned(), options.to_owned());
        let folder = self.folder.path().join(&machine);
        Host { machine, folder, node: None, options, environment: Vec::new(), log: None }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for helper in &mut self.helpers {
            let _ = helper.kill();
            let _ = helper.wait();
        }
        for namespace in &self.namespaces {
            let pids = Command::new("ip").args(["netns", "pids", namespace]).output();
            for pid in String::from_utf8_lossy(&pids.map(|output| output.stdout).unwrap_or_default()).lines() {
                let _ = Command::new("kill").args(["-KILL", pid]).stderr(Stdio::null()).status();
            }
            let _ = Command::new("ip").args(["netns", "del", namespace]).status();
        }
    }
}

/// A machine with a node on it.
pub(crate) struct Host {
    pub(crate) machine: String,
    pub(crate) folder: PathBuf,
    node: Option<Child>,
    options: String,
    /// What its node finds in the environment.
    pub(crate) environment: Vec<(&'static str, PathBuf)>,
    /// Where its node's log goes, if a test wants to read it.
    pub(crate) log: Option<PathBuf>,
}

impl Host {
    pub(crate) fn start(&mut self, lab: &Lab) {
        let exe = env!("CARGO_BIN_EXE_hivemind");
        let line = format!("{exe} node --name {} --data-dir {} {}", self.machine, self.folder.display(), self.options);
        let mut command = lab.command(&self.machine, &line);
        command.stdout(Stdio::null()).stderr(Stdio::inherit());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(level) = std::env::var_os("HIVEMIND_LAB_LOG") {
            command.env("RUST_LOG", level);
        }
        if let Some(log) = &self.log {
            command.env("RUST_LOG", "hive_=info").stderr(std::fs::File::create(log).unwrap());
        }
        // The machine's own location, in case a node of before left one.
        let _ = std::fs::remove_file(self.folder.join("api.json"));
        self.node = Some(command.spawn().expect("the node starts"));
        patiently("the node answers", || self.try_run(lab, &["status"]).0 == 0);
    }

    /// Has a machine that was measured say something else of its speed.
    pub(crate) fn claim(&mut self, lab: &Lab, change: impl Fn(&mut Value)) {
        let file = self.folder.join("speed.json");
        patiently("its speed is measured", || file.exists());
        self.kill();
        let mut speed: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        change(&mut speed);
        std::fs::write(&file, speed.to_string()).unwrap();
        self.start(lab);
    }

    /// What its node has logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log.as_ref().expect("the node has a log")).unwrap()
    }

    /// The node's process. `ip netns exec` becomes the program it runs.
    pub(crate) fn process(&self) -> u32 {
        self.node.as_ref().expect("the node was started").id()
    }

    /// Its workers' processes.
    pub(crate) fn workers(&self) -> Vec<u32> {
        super::children(self.process())
    }

    pub(crate) fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.process().to_string()]).status().unwrap().success());
    }

    /// Until the node has ended by itself.
    pub(crate) fn wait(&mut self) {
        let mut node = self.node.take().expect("the node was started");
        super::wait(&mut node);
    }

    pub(crate) fn kill(&mut self) {
        let mut node = self.node.take().expect("the node was started");
        node.kill().unwrap();
        node.wait().unwrap();
    }

    pub(crate) fn command(&self, lab: &Lab, arguments: &[&str]) -> Command {
        let exe = env!("CARGO_BIN_EXE_hivemind");
        let mut command = lab.command(&self.machine, &format!("{exe} --data-dir {}", self.folder.display()));
        command.args(arguments);
        command
    }

    /// Runs a command against the node: exit code, standard output, standard error.
    pub(crate) fn try_run(&self, lab: &Lab, arguments: &[&str]) -> (i32, String, String) {
        let output = finish(self.command(lab, arguments), None);
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }

    #[track_caller]
    pub(crate) fn run(&self, lab: &Lab, arguments: &[&str]) -> String {
        let (code, stdout, stderr) = self.try_run(lab, arguments);
        assert_eq!(code, 0, "{} {arguments:?}: {stderr}", self.machine);
        stdout
    }

    #[track_caller]
    pub(crate) fn json(&self, lab: &Lab, arguments: &[&str]) -> Value {
        let stdout = self.run(lab, &[arguments, &["--json"]].concat());
        serde_json::from_str(&stdout).expect("standard output is JSON")
    }

    /// What the node says of a machine that it lists by this name.
    pub(crate) fn peer(&self, lab: &Lab, name: &str) -> Option<Value> {
        let peers = self.json(lab, &["peers"]);
        peers["peers"].as_array().unwrap().iter().find(|peer| peer["name"] == name).cloned()
    }

    #[track_caller]
    pub(crate) fn wait_for(&self, lab: &Lab, name: &str, state: &str) {
        patiently(&format!("{} sees {name} as {state}", self.machine), || {
            self.peer(lab, name).is_some_and(|peer| peer["state"] == state)
        });
    }

    /// An answer over this many machines.
    #[track_caller]
    pub(crate) fn ask(&self, lab: &Lab, prompt: &str, tokens: u32, stages: u32) -> Value {
        let (tokens, stages) = (tokens.to_string(), stages.to_string());
        self.json(lab, &["chat", "--prompt", prompt, "--max-tokens", &tokens, "--stages", &stages])
    }

    /// Most memory and memory now, resident, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut node) = self.node.take() {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

/// Both owners compare the code and approve.
#[track_caller]
pub(crate) fn pair(lab: &Lab, a: &Host, b: &Host) {
    a.wait_for(lab, &b.machine, "found");
    let asked = a.json(lab, &["approve", &b.machine]);
    let code = asked["code"].as_str().unwrap().to_owned();
    b.wait_for(lab, &a.machine, "pending");
    assert_eq!(b.peer(lab, &a.machine).unwrap()["code"], code.as_str(), "both machines show one code");
    let child = a.command(lab, &["approve", &b.machine, "--code", &code]).spawn().unwrap();
    b.run(lab, &["approve", &a.machine, "--code", &code]);
    assert!(child.wait_with_output().unwrap().status.success());
    a.wait_for(lab, &b.machine, "approved");
    b.wait_for(lab, &a.machine, "approved");
}

/// Time that something takes, for figures that are printed and not judged.
pub(crate) fn timed(run: impl FnOnce()) -> Duration {
    let started = Instant::now();
    run();
    started.elapsed()
}

/// The frames that `capture.py` wrote.
pub(crate) fn frames(file: &std::path::Path) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(file).unwrap();
    let (mut frames, mut at) = (Vec::new(), 0);
    while let Some(length) = bytes.get(at..at + 4) {
        let length = u32::from_le_bytes(length.try_into().unwrap()) as usize;
        let Some(frame) = bytes.get(at + 4..at + 4 + length) else { break };
        frames.push(frame.to_vec());
        at += 4 + length;
    }
    frames
}
