//! Ways to dial an agent: from where it is, from its namespace, from a neighbour of its network.

use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::os::fd::AsFd;
use std::path::PathBuf;

use nix::sched::{CloneFlags, setns};
use tokio::net::{TcpListener, TcpStream};

use crate::support::process;

/// A namespace to be in while a socket is made; `None` is the test's own.
pub(crate) type Namespace = Option<PathBuf>;

/// How agent and control side meet.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) name: &'static str,
    pub(crate) bind: SocketAddr,
    agent_side: Namespace,
    control_side: Namespace,
    made: Vec<String>,
}

impl Link {
    /// Both in the test's own namespace.
    pub(crate) fn plain() -> Self {
        Self {
            name: "plain",
            bind: "127.0.0.1:0".parse().unwrap(),
            agent_side: None,
            control_side: None,
            made: Vec::new(),
        }
    }

    /// The control side enters the instance's namespace.
    pub(crate) async fn entered() -> Self {
        let name = namespace("entered").await;
        let path = Some(PathBuf::from("/run/netns").join(&name));
        Self {
            name: "entered",
            bind: "127.0.0.1:8003".parse().unwrap(),
            agent_side: path.clone(),
            control_side: path,
            made: vec![name],
        }
    }

    /// The control side is a member of the instance's network.
    pub(crate) async fn member() -> Self {
        let (one, two) = (namespace("member1").await, namespace("member2").await);
        let veth = [
            "ip", "-n", &one, "link", "add", "v0", "type", "veth", "peer", "name", "v0",
        ];
        process::succeed(&[&veth[..], &["netns", &two]].concat()).await;
        for (name, address) in [(&one, "10.9.0.12/24"), (&two, "10.9.0.2/24")] {
            process::succeed(&["ip", "-n", name, "addr", "add", address, "dev", "v0"]).await;
            process::succeed(&["ip", "-n", name, "link", "set", "v0", "up"]).await;
        }
        let path = |name: &str| Some(PathBuf::from("/run/netns").join(name));
        Self {
            name: "member",
            bind: "10.9.0.12:8003".parse().unwrap(),
            agent_side: path(&one),
            control_side: path(&two),
            made: vec![one, two],
        }
    }

    /// The agent's listener.
    pub(crate) async fn listen(&self) -> TcpListener {
        let bind = self.bind;
        let listener = inside(self.agent_side.clone(), move || StdListener::bind(bind)).await;
        listener.set_nonblocking(true).unwrap();
        TcpListener::from_std(listener).unwrap()
    }

    /// A connection from the control side.
    pub(crate) async fn dial(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        dial(self.control_side.clone(), address).await
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for name in &self.made {
            process::run(&["ip", "netns", "del", name]);
        }
    }
}

/// Connects from within a namespace.
pub(crate) async fn dial(namespace: Namespace, address: SocketAddr) -> std::io::Result<TcpStream> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    on_thread(namespace, move || {
        sender.send(StdStream::connect(address)).ok();
    });
    let stream = receiver.await.expect("the thread answers")?;
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

async fn inside<T: Send + 'static>(
    namespace: Namespace,
    make: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> T {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    on_thread(namespace, move || {
        sender.send(make()).ok();
    });
    receiver
        .await
        .expect("the thread answers")
        .expect("make a socket in the namespace")
}

/// A thread that enters the namespace and dies: threads of a pool must not be moved.
fn on_thread(namespace: Namespace, work: impl FnOnce() + Send + 'static) {
    std::thread::spawn(move || {
        if let Some(path) = namespace {
            let file = std::fs::File::open(&path).expect("open the namespace");
            setns(file.as_fd(), CloneFlags::CLONE_NEWNET).expect("enter the namespace");
        }
        work();
    });
}

async fn namespace(name: &str) -> String {
    process::require_root();
    let name = format!("coffer-it-{name}-{}", std::process::id());
    process::succeed(&["ip", "netns", "add", &name]).await;
    process::succeed(&["ip", "-n", &name, "link", "set", "lo", "up"]).await;
    name
}
