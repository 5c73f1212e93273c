//! How a daemon reports by itself: a status file, metrics, a status page.

use super::output;
use super::text::parse_span;
use crate::daemon::control::Controlled;
use crate::daemon::hooks::Slots;
use crate::daemon::metrics::MetricsServer;
use crate::daemon::web::WebServer;
use clap::Args;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// How often the status file is written.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// How many hooks run at once if nothing is said.
const HOOKS_AT_ONCE: usize = 4;

/// Where a daemon reports to.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct ReportingArgs {
    /// Write what `driftless status` says into FILE, again and again
    #[arg(long, value_name = "FILE")]
    status_file: Option<PathBuf>,
    /// How often [default: 10s]
    #[arg(long, value_name = "TIME", requires = "status_file", value_parser = parse_interval)]
    status_interval: Option<Duration>,
    /// Serve metrics for Prometheus at http://IP:PORT/metrics, to anybody who reaches it; a port alone is on the loopback device
    #[arg(long, value_name = "IP:PORT", value_parser = parse_metrics)]
    metrics: Option<SocketAddr>,
    /// How many hooks may run at once [default: 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    hooks_at_once: Option<u16>,
    /// Serve a status page for browsers at http://IP:PORT/, read-only, on the loopback device; a port alone is there, too
    #[arg(long, value_name = "IP:PORT", value_parser = parse_web)]
    web: Option<SocketAddr>,
    /// Let it be served at an address that is not of the loopback device, to anybody who reaches that: nobody is asked who he is
    #[arg(long)]
    web_allow_remote: bool,
}

fn parse_metrics(text: &str) -> Result<SocketAddr, String> {
    parse_address(text, "127.0.0.1:9464")
}

fn parse_web(text: &str) -> Result<SocketAddr, String> {
    parse_address(text, "127.0.0.1:9465")
}

fn parse_address(text: &str, example: &str) -> Result<SocketAddr, String> {
    let port = text.strip_prefix(':').unwrap_or(text).parse::<u16>();
    let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let address = port.map(loopback).ok().or_else(|| text.parse().ok());
    address.ok_or_else(|| format!("{text:?} is not an address: write IP:PORT, or a port, as in {example}"))
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    match parse_span(text)? {
        Duration::ZERO => Err("takes a time span above 0".to_owned()),
        interval => Ok(interval),
    }
}

impl ReportingArgs {
    /// These, and for what was not said those of `settings`.
    pub(super) fn or(&self, settings: &ReportingArgs) -> ReportingArgs {
        let (own, other) = (self.clone(), settings.clone());
        ReportingArgs {
            status_interval: own.status_interval.or(other.status_interval),
            status_file: own.status_file.or(other.status_file),
            metrics: own.metrics.or(other.metrics),
            hooks_at_once: own.hooks_at_once.or(other.hooks_at_once),
            web: own.web.or(other.web),
            web_allow_remote: own.web_allow_remote || other.web_allow_remote,
        }
    }

    /// The places of hooks that run.
    pub(super) fn slots(&self) -> Arc<Slots> {
        Slots::new(self.hooks_at_once.map_or(HOOKS_AT_ONCE, usize::from))
    }

    /// Serves metrics if that is wanted. Where it cannot be done, one line says why, and the rest goes on.
    pub(super) fn serve_metrics(&self, daemons: Arc<dyn Controlled>) -> Option<MetricsServer> {
        let address = self.metrics?;
        match MetricsServer::start(address, daemons) {
            Ok(server) => {
                tracing::info!("metrics are at http://{}/metrics", server.address());
                Some(server)
            }
            Err(error) => {
                output::note(&format!(
                    "no metrics are served at {address}: {error} (all else goes on; choose another address with --metrics or \
                     the key metrics)"
                ));
                None
            }
        }
    }

    /// Serves the status page if that is wanted, and nobody else is let in by mistake. Where it cannot be done, one line says why,
    /// and the rest goes on.
    pub(super) fn serve_page(&self, daemons: Arc<dyn Controlled>, handle: &Handle) -> Option<WebServer> {
        let address = self.web?;
        if !address.ip().is_loopback() && !self.web_allow_remote {
            output::note(&format!(
                "no status page is served at {address}: others could reach it, and it asks nobody who he is (all else goes on; choose \
                 a loopback address, or say --web-allow-remote or web-allow-remote = true)"
            ));
            return None;
        }
        match WebServer::start(address, daemons, handle) {
            Ok(server) => {
                tracing::info!("the status page is at http://{}/", server.address());
                Some(server)
            }
            Err(error) => {
                output::note(&format!(
                    "no status page is served at {address}: {error} (all else goes on; choose another address with --web or the \
                     key web)"
                ));
                None
            }
        }
    }

    /// The status file, and how often to write it.
    pub(super) fn status_file(&self) -> Option<(&PathBuf, Duration)> {
        let interval = self.status_interval.unwrap_or(STATUS_INTERVAL);
        self.status_file.as_ref().map(|path| (path, interval))
    }
}
