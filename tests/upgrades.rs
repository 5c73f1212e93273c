//! Upgrades: what comes from another version of driftless, over the wire or from the disk, is understood or refused with
//! the remedy.

#[path = "operating/site.rs"]
#[allow(dead_code, reason = "shared with the tests of operating")]
mod site;

use driftless_certs::{Identity, SERVER_NAME, receiver_config, sender_config};
use driftless_protocol::CloseCode;
use driftless_protocol::version::{ALPN_MIRROR, Features, HELLO_BYTES, Hello, VERSION};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use redb::{Database, TableDefinition};
use site::{Daemon, PATIENCE, Site, contents, free_port};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Runtime::new().unwrap())
}

/// A hello of a version far from ours, which understands nothing as old as we are.
fn of_the_future() -> Hello {
    Hello {
        version: VERSION + 8,
        oldest: VERSION + 7,
        features: Features(u64::MAX),
        window: 0,
    }
}

/// How a real receiver ends a connection that begins with these protocols and this hello; none if it answers the hello.
fn greeted_by_receiver(
    site: &Site,
    sender: &Identity,
    port: u16,
    alpn: &[u8],
    hello: Hello,
) -> Option<quinn::ConnectionError> {
    let pinned = site.fingerprint("home-far").parse().unwrap();
    let tls = sender_config(sender, pinned, &[alpn]).unwrap();
    runtime().block_on(async {
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let address = ([127, 0, 0, 1], port).into();
        let connection = match endpoint.connect_with(config, address, SERVER_NAME).unwrap().await {
            Ok(connection) => connection,
            Err(error) => return Some(error),
        };
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        send.write_all(&hello.to_bytes()).await.unwrap();
        let mut bytes = [0; HELLO_BYTES];
        match receive.read_exact(&mut bytes).await {
            Ok(()) => None,
            Err(_) => Some(tokio::time::timeout(PATIENCE, connection.closed()).await.unwrap()),
        }
    })
}

#[test]
fn a_receiver_tells_senders_of_other_versions_what_to_do() {
    let site = Site::new(&["far", "home-far"]);
    std::fs::set_permissions(
        site.path("home-far"),
        std::os::unix::fs::PermissionsExt::from_mode(0o700),
    )
    .unwrap();
    let (port, sender) = (free_port(), Identity::ephemeral().unwrap());
    let line = format!(
        "receive far --listen 127.0.0.1:{port} --allow {} --json",
        sender.fingerprint()
    );
    let receiver = Daemon::spawn(site.command_in("home-far", &line));
    // A later one that still understands us is let in.
    let compatible = Hello {
        oldest: VERSION,
        ..of_the_future()
    };
    assert!(greeted_by_receiver(&site, &sender, port, ALPN_MIRROR, compatible).is_none());
    let refused = greeted_by_receiver(&site, &sender, port, ALPN_MIRROR, of_the_future());
    let Some(quinn::ConnectionError::ApplicationClosed(close)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(
        CloseCode::from_number(close.error_code.into_inner()),
        CloseCode::Version
    );
    let text = String::from_utf8_lossy(&close.reason).into_owned();
    assert!(
        text.contains("versions 8 to 9") && text.contains("upgrade the older side"),
        "{text}"
    );
    // An incompatible one has another ALPN, and does not get as far as a hello.
    let stranger = greeted_by_receiver(&site, &sender, port, b"driftless/99", Hello::OURS);
    assert!(
        matches!(stranger, Some(quinn::ConnectionError::ConnectionClosed(_))),
        "{stranger:?}"
    );
    receiver.stop();
}

/// A receiver of another version: it shakes hands, and answers the hello with its own.
fn receiver_of(identity: &Identity, alpn: &'static [u8], hello: Hello) -> (quinn::Endpoint, u16) {
    let _inside = runtime().enter();
    let tls = receiver_config(identity, &[alpn]).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    let endpoint = quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
    let port = endpoint.local_addr().unwrap().port();
    let accepting = endpoint.clone();
    runtime().spawn(async move {
        while let Some(incoming) = accepting.accept().await {
            tokio::spawn(async move {
                let Ok(connection) = incoming.await else { return };
                let Ok((mut send, _receive)) = connection.accept_bi().await else {
                    return;
                };
                let _ = send.write_all(&hello.to_bytes()).await;
                connection.closed().await;
            });
        }
    });
    (endpoint, port)
}

#[test]
fn a_sender_tells_which_side_is_too_old() {
    let site = Site::new(&["src"]);
    let identity = Identity::ephemeral().unwrap();
    for (alpn, hello, said) in [
        (ALPN_MIRROR, of_the_future(), "versions 8 to 9"),
        (
            &b"driftless/99"[..],
            Hello::OURS,
            "none of the protocols of this driftless",
        ),
    ] {
        let (endpoint, port) = receiver_of(&identity, alpn, hello);
        let target = format!("driftless://{}@127.0.0.1:{port}/m", identity.fingerprint());
        let (_, told) = site.run(&format!("seed src {target}"), 1);
        assert!(
            told.contains(said) && told.contains("upgrade the older side"),
            "{told}"
        );
        endpoint.close(0u32.into(), b"");
    }
}

/// Every database of this name below a home.
fn databases(home: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![home.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                directories.push(entry.path());
            } else if entry.file_name() == name {
                found.push(entry.path());
            }
        }
    }
    found
}

/// Notes another schema in a database, as another version would have, and gives the one that was there.
fn forge(path: &Path, table: &str, schema: u64) -> u64 {
    let numbers: TableDefinition<'_, &str, u64> = TableDefinition::new(table);
    let database = Database::open(path).unwrap();
    let transaction = database.begin_write().unwrap();
    let before = {
        let mut numbers = transaction.open_table(numbers).unwrap();
        let before = numbers
            .insert("schema", schema)
            .unwrap()
            .map(|value| value.value());
        before.unwrap_or_else(|| panic!("{} has no schema there", path.display()))
    };
    transaction.commit().unwrap();
    before
}

#[test]
fn a_catalog_of_another_version_is_made_anew_and_costs_no_content() {
    let site = Site::new(&["src/sub", "dst"]);
    site.write("src/sub/a", "one");
    site.run("mirror src dst --once", 0);
    let catalogs = databases(&site.path("home"), "catalog.redb");
    assert_eq!(catalogs.len(), 2, "one of each side: {catalogs:?}");
    for schema in [1, 99] {
        for catalog in &catalogs {
            forge(catalog, "counters", schema);
        }
        let (out, _) = site.run("mirror src dst --once --json", 0);
        let summary = out
            .lines()
            .find(|line| line.contains("\"summary\""))
            .unwrap_or_else(|| panic!("{out}"));
        let summary: serde_json::Value = serde_json::from_str(summary).unwrap();
        assert_eq!(
            (&summary["in_sync"], &summary["counters"]["files_sent"]),
            (&true.into(), &0.into()),
            "schema {schema}"
        );
        assert_eq!(contents(&site.path("src")), contents(&site.path("dst")));
    }
}

#[test]
fn a_state_of_a_later_version_is_refused_and_left_alone() {
    let site = Site::new(&["src", "dst"]);
    site.write("src/a", "one");
    site.run("mirror src dst --once", 0);
    site.write("src/a", "two");
    for state in databases(&site.path("home"), "state.redb") {
        forge(&state, "numbers", 99);
        let (_, told) = site.run("mirror src dst --once", 1);
        assert!(
            told.contains("has schema 99, this driftless knows up to")
                && told.contains("use the newer driftless again"),
            "{told}"
        );
        assert_eq!(
            std::fs::read(site.path("dst/a")).unwrap(),
            b"one",
            "nothing was done"
        );
        assert_eq!(
            forge(&state, "numbers", 1),
            99,
            "it was not brought to another schema"
        );
    }
    site.run("mirror src dst --once", 0);
    assert_eq!(std::fs::read(site.path("dst/a")).unwrap(), b"two");
}
