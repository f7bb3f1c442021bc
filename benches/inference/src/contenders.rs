//! Who is measured, and how each is started. What others offer is looked for on the `PATH`; what is not there is left out,
//! and the run says so.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;
use crate::http::Connection;
use crate::load::Load;
use crate::part::Ended;
use crate::process::{Process, Usage};
use crate::talk::Shape;
use crate::venue::keys;

/// Our tier's name in rows.
pub(crate) const TIER: &str = "grid tier";
/// The bare proxy's.
pub(crate) const BARE: &str = "bare hyper proxy";
/// The path of chat completions everywhere.
pub(crate) const PATH: &str = "/v1/chat/completions";
/// The one key that gateways of others know.
const PEER_KEY: &str = "sk-bench";

/// A process that takes calls.
pub(crate) struct Contender {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    /// At more calls per second, plans are not kept; the plan is made for no more.
    pub(crate) rate_max: f64,
    process: Process,
    keys: Vec<String>,
    /// What has been asked of it, to compare with what it settled.
    asked: Asked,
    is_venue: bool,
}

/// Calls that were answered, and the tokens they must be billed for.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    calls: u64,
    tokens: u64,
}

impl Contender {
    fn new(name: impl Into<String>, process: Process, address: SocketAddr) -> Self {
        Self {
            name: name.into(),
            address,
            rate_max: f64::INFINITY,
            process,
            keys: vec![PEER_KEY.to_owned()],
            asked: Asked::default(),
            is_venue: false,
        }
    }

    /// The supplier itself.
    pub(crate) fn direct(program: &Path) -> Result<Self, Failure> {
        let (process, address) = Process::part(program, &["supplier"])?;
        Ok(Self::new("direct to the supplier", process, address))
    }

    /// The bare proxy in front of it.
    pub(crate) fn bare(program: &Path, supplier: SocketAddr) -> Result<Self, Failure> {
        let (process, address) = Process::part(program, &["proxy", &supplier.to_string()])?;
        Ok(Self::new(BARE, process, address))
    }

    /// A venue whose journal lies in this directory, with its tier.
    pub(crate) fn venue(
        program: &Path,
        supplier: SocketAddr,
        name: &str,
        dir: &Path,
    ) -> Result<Self, Failure> {
        let dir = dir.to_str().ok_or("a directory whose name is text")?;
        let (process, address) = Process::part(program, &["venue", dir, &format!("http://{supplier}/v1")])?;
        Ok(Self { keys: keys(), is_venue: true, ..Self::new(name, process, address) })
    }

    /// The programs of others that are on this machine, and the names of those that are not.
    pub(crate) fn peers(supplier: SocketAddr, dir: &Path) -> Result<(Vec<Self>, Vec<&'static str>), Failure> {
        type Start = fn(&Path, SocketAddr, &Path) -> Result<Contender, Failure>;
        let all: [(&str, Start); 3] = [("nginx", nginx), ("vllm-router", vllm_router), ("litellm", litellm)];
        let (mut there, mut absent) = (Vec::new(), Vec::new());
        for (name, start) in all {
            let Some(program) = on_path(name) else {
                absent.push(name);
                continue;
            };
            let dir = dir.join(name);
            fs::create_dir_all(&dir)?;
            let mut contender =
                start(&program, supplier, &dir).map_err(|error| format!("{name}: {error}"))?;
            contender.wait_to_answer().map_err(|error| format!("{name}: {error}"))?;
            there.push(contender);
        }
        Ok((there, absent))
    }

    fn wait_to_answer(&mut self) -> Result<(), Failure> {
        let (address, shape) = (self.address, Shape::Whole);
        let request = Connection::request(PATH, &self.keys[0], &shape.body());
        self.process.wait_until(|| {
            let mut connection = Connection::open(address)?;
            connection.ask(&request)?;
            shape.check(connection.body())
        })
    }

    /// The load that asks it.
    pub(crate) fn load(&self, shape: Shape, connections: usize) -> Load {
        Load { address: self.address, path: PATH, keys: self.keys.clone(), shape, connections }
    }

    /// Notes that so many calls were answered.
    pub(crate) fn answered(&mut self, calls: u64, shape: Shape) {
        self.asked.calls += calls;
        self.asked.tokens += calls * shape.tokens();
    }

    /// What it has taken so far.
    pub(crate) fn usage(&self) -> Usage {
        self.process.usage()
    }

    /// Ends it. A venue must have settled what was asked of it, each call once and to the token, and hold nothing open.
    pub(crate) fn end(self) -> Result<(), Failure> {
        if !self.is_venue {
            drop(self.process);
            return Ok(());
        }
        let last = self.process.end()?.ok_or("a venue says what it settled")?;
        let ended = Ended::read(&last).ok_or_else(|| format!("not what a venue says at its end: {last}"))?;
        let Asked { calls, tokens } = self.asked;
        let wanted = Ended { settled: calls, released: 0, billed: tokens, open: 0 };
        let told = || format!("{} should have ended with {wanted:?}, not {ended:?}", self.name);
        (ended == wanted).then_some(()).ok_or_else(|| told().into())
    }
}

/// Where a program is.
fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut places = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    places.find_map(|dir| Some(dir.join(name)).filter(|program| program.is_file()))
}

fn nginx(program: &Path, supplier: SocketAddr, dir: &Path) -> Result<Contender, Failure> {
    let address = grid_ports::address()?;
    let mut text = String::new();
    write!(
        text,
        "worker_processes auto; daemon off; pid {dir}/pid; error_log {dir}/error.log;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; keepalive_requests 1000000000; client_body_buffer_size 64k;\n\
         client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/f;\n\
         uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;\n\
         upstream supplier {{ server {supplier}; keepalive 64; keepalive_requests 1000000000; }}\n\
         server {{ listen {address}; location / {{ proxy_pass http://supplier; proxy_http_version 1.1;\n\
         proxy_set_header Connection \"\"; proxy_buffering off; }} }} }}\n",
        dir = dir.display(),
    )?;
    let config = dir.join("nginx.conf");
    fs::write(&config, text)?;
    let mut command = Command::new(program);
    command.arg("-p").arg(dir).arg("-c").arg(&config);
    Ok(Contender::new("nginx", Process::program(&mut command, &dir.join("log"))?, address))
}

fn vllm_router(program: &Path, supplier: SocketAddr, dir: &Path) -> Result<Contender, Failure> {
    let (address, metrics) = (grid_ports::address()?, grid_ports::address()?);
    let mut command = Command::new(program);
    command.args(["--worker-urls", &format!("http://{supplier}"), "--policy", "round_robin"]);
    command.args(["--host", "127.0.0.1", "--port", &address.port().to_string()]);
    command.args(["--prometheus-port", &metrics.port().to_string(), "--log-level", "error"]);
    Ok(Contender::new("vllm-router", Process::program(&mut command, &dir.join("log"))?, address))
}

fn litellm(program: &Path, supplier: SocketAddr, dir: &Path) -> Result<Contender, Failure> {
    let address = grid_ports::address()?;
    let config = dir.join("config.yaml");
    fs::write(
        &config,
        format!(
            "model_list:\n  - model_name: {model}\n    litellm_params:\n      model: openai/{model}\n      \
             api_base: http://{supplier}/v1\n      api_key: none\ngeneral_settings:\n  master_key: {PEER_KEY}\n",
            model = crate::talk::MODEL
        ),
    )?;
    let mut command = Command::new(program);
    command.arg("--config").arg(&config).args(["--host", "127.0.0.1", "--num_workers", "1"]);
    command.args(["--port", &address.port().to_string()]);
    command.env("LITELLM_LOCAL_MODEL_COST_MAP", "True").env("LITELLM_LOG", "ERROR").current_dir(dir);
    let process = Process::program(&mut command, &dir.join("log"))?;
    Ok(Contender { rate_max: 30.0, ..Contender::new("LiteLLM, one worker", process, address) })
}
