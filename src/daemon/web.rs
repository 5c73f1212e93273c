//! The status page: read-only, over HTTP, for a browser on the same machine.
//!
//! `/` is a page whose script asks for `/status.json` and `/history.json` and draws them; nothing is loaded from elsewhere, and
//! nothing is built. It asks nobody who they are, so it belongs on the loopback device, and there the browser itself is the
//! way in: a page from anywhere may make it ask this one. `guard` answers only those who say an address or `localhost` as
//! the host, which a name that was rebound to this machine is not, and gives no other origin anything to read.
//!
//! A client cannot hold anything up: thirty-two connections at a time, each for one request and ten seconds.

mod guard;
mod history;
#[cfg(test)]
mod tests;

use crate::daemon::control::Controlled;
use crate::daemon::status::{STATUS_VERSION, unix_now};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use history::Recorder;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use serde_json::json;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Connections at a time.
const CONNECTIONS_MAX: usize = 32;

/// How long a client may take to say what it wants.
const HEAD_PATIENCE: Duration = Duration::from_secs(5);

/// How long one connection may take.
const PATIENCE: Duration = Duration::from_secs(10);

const PAGE: &str = include_str!("web/page/index.html");
const STYLE: &str = include_str!("web/page/style.css");
const SCRIPT: &str = include_str!("web/page/page.js");

/// A page that is served. Dropping it ends that.
#[derive(Debug)]
pub struct WebServer {
    address: SocketAddr,
    task: JoinHandle<()>,
    _recorder: Arc<Recorder>,
}

impl WebServer {
    /// Serves the page. Port 0 takes a free one.
    pub fn start(
        address: SocketAddr,
        daemons: Arc<dyn Controlled>,
        handle: &Handle,
    ) -> io::Result<WebServer> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let recorder = Arc::new(Recorder::start(daemons.clone())?);
        let router = router(Shared {
            daemons,
            recorder: recorder.clone(),
        });
        let listener = {
            let _context = handle.enter();
            TcpListener::from_std(listener)?
        };
        let task = handle.spawn(serve(listener, router));
        Ok(WebServer {
            address,
            task,
            _recorder: recorder,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, router: Router) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(_) => {
                // Out of descriptors, most likely: it passes, but not faster by asking again at once.
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_PATIENCE)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            match tokio::time::timeout(PATIENCE, connection).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!("a browser was not answered: {error}"),
                Err(_) => tracing::debug!("a browser took too long"),
            }
            drop(permit);
        });
    }
}

#[derive(Clone)]
struct Shared {
    daemons: Arc<dyn Controlled>,
    recorder: Arc<Recorder>,
}

fn router(shared: Shared) -> Router {
    Router::new()
        .route("/", get(|| async { text("text/html; charset=utf-8", PAGE) }))
        .route(
            "/style.css",
            get(|| async { text("text/css; charset=utf-8", STYLE) }),
        )
        .route(
            "/page.js",
            get(|| async { text("text/javascript; charset=utf-8", SCRIPT) }),
        )
        .route("/status.json", get(status))
        .route("/history.json", get(history))
        .fallback(|| async { (StatusCode::NOT_FOUND, "the status is at /\n") })
        .method_not_allowed_fallback(|| async {
            let allow = [(header::ALLOW, "GET, HEAD")];
            (StatusCode::METHOD_NOT_ALLOWED, allow, "only GET is answered\n")
        })
        .layer(middleware::from_fn(guard::check))
        .with_state(shared)
}

fn text(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// What `driftless status --json` tells, of this process, and what happened of late.
async fn status(State(shared): State<Shared>) -> Response {
    // A receiver that opens a large module answers late.
    blocking(move || {
        let recent = shared.recorder.recent();
        json!({"version": STATUS_VERSION, "now": unix_now(), "daemons": shared.daemons.status(),
            "changes": recent.changes, "incidents": recent.incidents})
    })
    .await
}

/// How it went in the last hour.
async fn history(State(shared): State<Shared>) -> Response {
    blocking(move || {
        json!({"version": STATUS_VERSION, "now": unix_now(), "every": history::SAMPLE_EVERY.as_secs(),
            "targets": shared.recorder.history()})
    })
    .await
}

async fn blocking<T: Serialize + Send + 'static>(answer: impl FnOnce() -> T + Send + 'static) -> Response {
    let text = tokio::task::spawn_blocking(move || serde_json::to_string(&answer())).await;
    match text {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "the status cannot be told\n").into_response(),
    }
}
