//! A real browser opens the status page of the running demo.

use serde_json::{Value, json};

use crate::process::{Daemon, binary};
use crate::support::{Folder, in_repository};
use crate::tools::{debian, demand, npm};

/// Where the screenshots are kept, to be looked at.
const PICTURES: &str = "target/screenshots";

#[tokio::test(flavor = "multi_thread")]
async fn chromium_shows_the_page_without_complaint_at_every_size_in_light_and_dark() {
    let folder = Folder::new("browser");
    let demo = binary(&["demo", "--web.listen-address", "127.0.0.1:0"]);
    let daemon = Daemon::start(demo, &folder);
    daemon.logs("listed keys for the first time").await;
    // The other account fails; the page shows it.
    daemon.logs("listing keys failed").await;
    let url = format!("http://{}/", daemon.address().await);
    let mut command = debian("node");
    command.arg(in_repository("tests/it/pages/browser.js"));
    command.arg(url);
    command.arg(npm().join("node_modules"));
    command.arg(in_repository(PICTURES));
    let found: Value = serde_json::from_str(&demand(&mut command)).unwrap();
    let found = found.as_array().unwrap();
    assert_eq!(found.len(), 4);
    for view in found {
        let name = format!("{} {}", view["size"], view["colorScheme"]);
        for problems in ["console", "elsewhere", "axe", "steps"] {
            assert_eq!(view[problems], json!([]), "{name}: {problems}");
        }
        assert!(view["keys"].as_u64() >= Some(16), "{name}: {view}");
        // It did look.
        assert!(view["axePasses"].as_u64() > Some(30), "{name}: {view}");
    }
}
