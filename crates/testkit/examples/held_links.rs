//! Links that a conductor holds, with real agents at their other ends: what memory and ingest are
//! measured on.
//!
//! `held_links agents DIR COUNT VOLUME` makes a store in DIR, runs COUNT agents over engines in
//! memory, each on a socket and with a certificate of its own, writes DIR/addresses when all are
//! enrolled and have their spec, and runs until it is ended. VOLUME is what they take for their
//! data volume. `held_links churn …` does the same and makes the volume fuller and emptier again,
//! which every agent then has to tell.
//!
//! `held_links hold DIR SECONDS` is the shipped conductor on that store and those agents. When
//! it holds every link it goes on for SECONDS and prints four numbers: bytes of memory (PSS),
//! telling answers of the agents, and seconds of processor and of time that passed meanwhile.

use std::collections::{BTreeSet, HashMap};
use std::error::Error;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use coffer_control::authority;
use coffer_control::clock::{Clock, SystemClock, SystemEntropy};
use coffer_control::conductor::Conductor;
use coffer_control::guest::{
    AgentBinary, GuestAddress, Guests, LinkGuests, Result as GuestResult, guest_name,
};
use coffer_control::secrets::SecretBox;
use coffer_control::services::{Services, Tuning};
use coffer_control::supervise::Supervisor;
use coffer_control::tls::{AltNames, Authority, Renewed, Usage};
use coffer_core::id::ServerId;
use coffer_guest::agent;
use coffer_guest::embed::MemoryEngine;
use coffer_infra::fake::{FakeProvider, NoFaults};
use coffer_infra::link::GuestLink;
use coffer_store::{Durability, Store, StoreOptions, StoreUrl};
use coffer_testkit::rows::{self, Rows};
use coffer_wire::guest::v1::{
    AgentUpload, Boot, Command, CommandState, EngineState, Enrolled, Enrolment, InventoryPage,
    PROTOCOL, Role, Spec, SpecAccepted, Status,
};
use tokio::net::TcpListener;

type Failed = Box<dyn Error>;

/// Longest time until every link is held.
const HELD_MAX: Duration = Duration::from_secs(120);
/// How often it is looked whether they are.
const PACE: Duration = Duration::from_millis(100);
/// How long the volume stays full, and empty: as long as agents take between two looks at it.
const CHURN: Duration = Duration::from_secs(1);
/// What the volume is filled with: more than the hundredth part that is worth telling.
const FILLING: usize = 1 << 20;
/// Longest time for the conductor to stop.
const STOP_MAX: Duration = Duration::from_secs(20);
/// Processor time in `/proc` is counted in these.
const TICKS_PER_SECOND: f64 = 100.0;

fn main() -> Result<(), Failed> {
    coffer_infra::local::memory::be_frugal();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["agents", dir, count, volume] => runtime.block_on(agents(
            Path::new(dir),
            count.parse()?,
            Path::new(volume),
            false,
        )),
        ["churn", dir, count, volume] => runtime.block_on(agents(
            Path::new(dir),
            count.parse()?,
            Path::new(volume),
            true,
        )),
        ["hold", dir, seconds] => runtime.block_on(hold(Path::new(dir), seconds.parse()?)),
        _ => {
            Err("give agents DIR COUNT VOLUME, churn DIR COUNT VOLUME, or hold DIR SECONDS".into())
        }
    }
}

/// What both processes work with.
struct Base {
    store: Store,
    secrets: SecretBox,
    clock: Arc<SystemClock>,
    link: Authority,
}

impl Base {
    async fn open(dir: &Path, durability: Durability) -> Result<Self, Failed> {
        let url = StoreUrl::SqliteFile(dir.join("coffer.db"));
        let options = StoreOptions {
            durability,
            ..StoreOptions::default()
        };
        let store = Store::open(&url, options).await?;
        // Both processes have to open what one of them seals; nothing here is worth a secret.
        let secrets = SecretBox::new([7; 32], Arc::new(SystemEntropy));
        let clock = Arc::new(SystemClock::new());
        let link = authority::ensure(&store, &secrets, authority::LINK, clock.now()).await?;
        Ok(Self {
            store,
            secrets,
            clock,
            link,
        })
    }

    fn guests(&self, supervisor: &Supervisor) -> Result<LinkGuests, Failed> {
        let (link, alt, clock) = (self.link.clone(), AltNames::default(), self.clock.clone());
        let own = Renewed::new(link, "coffer", alt, Usage::Client, clock)?;
        let ca = self.link.cert_pem.clone();
        Ok(LinkGuests::new(supervisor.clone(), Arc::new(own), ca))
    }
}

async fn agents(dir: &Path, count: u32, volume: &Path, is_churned: bool) -> Result<(), Failed> {
    let base = Base::open(dir, Durability::Off).await?;
    let supervisor = Supervisor::new();
    let guests = base.guests(&supervisor)?;
    for name in ["config", "log"] {
        fs::create_dir_all(volume.join(name))?;
    }
    let (mut keys, mut addresses) = (Vec::new(), String::new());
    for number in 1..=count {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        start_agent(&supervisor, &base.link, number, volume.to_owned(), listener);
        keys.push(enrol(&base, &guests, number, address).await?);
        addresses.push_str(&format!("{address}\n"));
    }
    let rows = Rows {
        tenant_id: "a".repeat(32).parse()?,
        provider: "fake".to_owned(),
        keys,
    };
    rows.write(&base.store, count).await?;
    let part = dir.join("addresses.part");
    fs::write(&part, addresses)?;
    fs::rename(part, dir.join("addresses"))?;
    let filling = volume.join("filling");
    for turn in 0_u64.. {
        if is_churned && turn.is_multiple_of(2) {
            fs::write(&filling, vec![7; FILLING])?;
        } else if is_churned {
            fs::remove_file(&filling)?;
        }
        base.clock.sleep(CHURN).await;
    }
    Ok(())
}

fn start_agent(
    supervisor: &Supervisor,
    link: &Authority,
    number: u32,
    volume: PathBuf,
    listener: TcpListener,
) {
    let boot = Boot {
        protocol: PROTOCOL,
        server_id: rows::server_id(number).to_string(),
        instance_id: None,
        link_ca_pem: link.cert_pem.clone(),
        bind: Vec::new(),
        engine: "memory".to_owned(),
        engine_version: "1".to_owned(),
        agent_uid: 1,
        engine_uid: 2,
        data_dir: volume.display().to_string(),
        memory_mib: 512,
        vcpus: 1,
    };
    let parts = MemoryEngine::new(volume).parts(boot, None);
    supervisor.start("agent", async move {
        if let Err(error) = agent::serve(parts, vec![listener]).await {
            eprintln!("agent {number}: {error}");
        }
    });
}

fn address_of(number: u32, address: SocketAddr, key: Option<String>) -> GuestAddress {
    GuestAddress {
        server_id: rows::server_id(number),
        link: GuestLink::Direct { address },
        key_fingerprint: key,
    }
}

/// Signs an agent's key and tells it to run its engine; gives the key's fingerprint.
async fn enrol(
    base: &Base,
    guests: &LinkGuests,
    number: u32,
    address: SocketAddr,
) -> Result<String, Failed> {
    let guest = address_of(number, address, None);
    let (asked, key) = guests.enrolment(&guest).await?;
    let name = guest_name(guest.server_id);
    let alt = AltNames {
        names: vec![name.clone()],
        addresses: Vec::new(),
    };
    let now = base.clock.now();
    let csr = &asked.link_csr_pem;
    let link_cert_pem = base
        .link
        .sign_request(csr, &name, &alt, Usage::Server, now)?;
    guests.enrol(&guest, &Enrolled { link_cert_pem }).await?;
    let spec = Spec {
        generation: 1,
        version: 1,
        role: Role::Primary,
        engine_state: EngineState::Running,
        identity: guest.server_id.to_string(),
        config: Vec::new(),
        tls: None,
    };
    let guest = address_of(number, address, Some(key.clone()));
    guests.put_spec(&guest, &spec).await?;
    Ok(key)
}

async fn hold(dir: &Path, seconds: f64) -> Result<(), Failed> {
    let base = Base::open(dir, Durability::Full).await?;
    let supervisor = Supervisor::new();
    let mut addresses = HashMap::new();
    for (number, line) in (1..).zip(fs::read_to_string(dir.join("addresses"))?.lines()) {
        addresses.insert(rows::server_id(number), line.parse()?);
    }
    let count = u32::try_from(addresses.len())?;
    let guests = Arc::new(Reached {
        inner: base.guests(&supervisor)?,
        addresses,
        told: AtomicU64::new(0),
        heard: Mutex::default(),
    });
    let services = Services {
        agent: None,
        store: base.store.clone(),
        provider: Arc::new(FakeProvider::new(Arc::new(NoFaults))),
        guests: guests.clone(),
        clock: base.clock.clone(),
        entropy: Arc::new(SystemEntropy),
        secrets: base.secrets.clone(),
        tuning: Tuning::default(),
        chaos: None,
    };
    let conductor = Arc::new(Conductor::new(services, "measured".to_owned(), true));
    supervisor.start("conductor", conductor.run(supervisor.clone()));
    await_held(&base, &guests, count).await?;
    let (told, cpu) = (guests.told.load(Ordering::Relaxed), cpu_seconds()?);
    let begun = base.clock.monotonic();
    base.clock.sleep(Duration::from_secs_f64(seconds)).await;
    // As `coffer up` does again and again.
    coffer_infra::local::memory::give_back();
    let took = base.clock.monotonic() - begun;
    let told = guests.told.load(Ordering::Relaxed) - told;
    println!(
        "{} {told} {} {}",
        pss()?,
        cpu_seconds()? - cpu,
        took.as_secs_f64()
    );
    supervisor.stop(STOP_MAX).await;
    base.store.close().await;
    Ok(())
}

/// Waits until every agent was heard.
async fn await_held(base: &Base, guests: &Reached, count: u32) -> Result<(), Failed> {
    let end = base.clock.monotonic() + HELD_MAX;
    loop {
        let heard = guests.heard().len();
        if heard == usize::try_from(count)? {
            return Ok(());
        }
        if base.clock.monotonic() > end {
            return Err(format!("{heard} of {count} links are held, and no more").into());
        }
        base.clock.sleep(PACE).await;
    }
}

/// Memory of this process: what it has alone, and its part of what it shares; unit: bytes.
fn pss() -> Result<u64, Failed> {
    let text = fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next());
    Ok(kib.ok_or("find Pss")?.parse::<u64>()? * 1024)
}

/// Processor time of this process, its own and the kernel's for it.
fn cpu_seconds() -> Result<f64, Failed> {
    let text = fs::read_to_string("/proc/self/stat")?;
    let (_, rest) = text.rsplit_once(") ").ok_or("read /proc/self/stat")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks = |at: usize| {
        fields
            .get(at)
            .ok_or("too short")
            .map(|text| text.parse::<f64>())
    };
    Ok((ticks(11)?? + ticks(12)??) / TICKS_PER_SECOND)
}

/// Guests where the other process listens: the provider here is nobody and knows no addresses.
#[derive(Debug)]
struct Reached {
    inner: LinkGuests,
    addresses: HashMap<ServerId, SocketAddr>,
    /// Answers with news.
    told: AtomicU64,
    heard: Mutex<BTreeSet<ServerId>>,
}

impl Reached {
    fn heard(&self) -> MutexGuard<'_, BTreeSet<ServerId>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at(&self, guest: &GuestAddress) -> GuestAddress {
        let mut guest = guest.clone();
        if let Some(&address) = self.addresses.get(&guest.server_id) {
            guest.link = GuestLink::Direct { address };
        }
        guest
    }
}

#[async_trait]
impl Guests for Reached {
    async fn enrolment(&self, guest: &GuestAddress) -> GuestResult<(Enrolment, String)> {
        self.inner.enrolment(&self.at(guest)).await
    }

    async fn enrol(&self, guest: &GuestAddress, signed: &Enrolled) -> GuestResult<()> {
        self.inner.enrol(&self.at(guest), signed).await
    }

    async fn put_spec(&self, guest: &GuestAddress, spec: &Spec) -> GuestResult<SpecAccepted> {
        self.inner.put_spec(&self.at(guest), spec).await
    }

    async fn status(
        &self,
        guest: &GuestAddress,
        after: u64,
        wait: Duration,
    ) -> GuestResult<Status> {
        let status = self.inner.status(&self.at(guest), after, wait).await?;
        self.heard().insert(guest.server_id);
        if status.sequence > after {
            self.told.fetch_add(1, Ordering::Relaxed);
        }
        Ok(status)
    }

    async fn start_command(
        &self,
        guest: &GuestAddress,
        command: &Command,
    ) -> GuestResult<CommandState> {
        self.inner.start_command(&self.at(guest), command).await
    }

    async fn poll_command(
        &self,
        guest: &GuestAddress,
        id: &str,
        wait: Duration,
    ) -> GuestResult<CommandState> {
        self.inner.poll_command(&self.at(guest), id, wait).await
    }

    async fn inventory(
        &self,
        guest: &GuestAddress,
        after: Option<&str>,
        limit: u32,
    ) -> GuestResult<InventoryPage> {
        self.inner.inventory(&self.at(guest), after, limit).await
    }

    async fn send_agent(
        &self,
        guest: &GuestAddress,
        agent: &AgentBinary,
        offset: u64,
        piece: &[u8],
    ) -> GuestResult<AgentUpload> {
        let guest = self.at(guest);
        self.inner.send_agent(&guest, agent, offset, piece).await
    }

    async fn replace_agent(&self, guest: &GuestAddress, sha256: &str) -> GuestResult<AgentUpload> {
        self.inner.replace_agent(&self.at(guest), sha256).await
    }
}
