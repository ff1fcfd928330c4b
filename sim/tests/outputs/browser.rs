//! The pages of a run and of a plan in a real browser: no error, no request, every chart drawn and reached by key, in both themes and on
//! both widths. `CHROME` names a Chromium; else one on the path is taken, and where there is none this is skipped.

use crate::page::{SCENARIOS, page_of};
use serde_json::{Value, json};
use sim::plan::figures::TPOT;
use sim::plan::{Axis, Bound, Minimize, Question, Runs, Site, Space, plan};
use std::env;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tungstenite::{Message, WebSocket, client};

const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];
/// How long a browser may take to start, or to answer.
const PATIENCE: Duration = Duration::from_secs(60);

fn chromium() -> Option<PathBuf> {
    let on_path = || {
        let folders: Vec<PathBuf> = env::split_paths(&env::var_os("PATH")?).collect();
        let all = NAMES.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
        all.into_iter().find(|path| path.is_file())
    };
    env::var_os("CHROME").map(PathBuf::from).or_else(on_path)
}

/// One page of a headless Chromium, driven by its own protocol.
struct Browser {
    process: Child,
    socket: WebSocket<TcpStream>,
    session: Option<String>,
    sent: u64,
    /// What it said without being asked.
    events: Vec<Value>,
    _profile: TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Browser {
    fn start(program: &Path) -> Browser {
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new(program);
        command.args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-dev-shm-usage",
        ]);
        command.args(["--disable-background-networking", "--remote-debugging-port=0", "about:blank"]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        // It says where it listens in a file of its profile: a port, and a path.
        let told = profile.path().join("DevToolsActivePort");
        let pause = Duration::from_millis(20);
        let mut tries = (PATIENCE.as_millis() / pause.as_millis()) as u32;
        let (port, path) = loop {
            let text = fs::read_to_string(&told).unwrap_or_default();
            if let [port, path] = text.lines().collect::<Vec<_>>()[..] {
                break (port.to_owned(), path.to_owned());
            }
            assert!(tries > 0, "{} does not start", program.display());
            tries -= 1;
            std::thread::sleep(pause);
        };
        let stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (socket, _) = client(format!("ws://127.0.0.1:{port}{path}"), stream).unwrap();
        let mut browser =
            Browser { process, socket, session: None, sent: 0, events: Vec::new(), _profile: profile };
        let target = browser.ask("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.ask("Target.attachToTarget", attach);
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.ask(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// What it says next.
    fn hear(&mut self) -> Value {
        loop {
            if let Message::Text(text) = self.socket.read().expect("the browser says nothing more") {
                return serde_json::from_str(&text).unwrap();
            }
        }
    }

    /// Sends a command and answers with its result.
    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.sent += 1;
        let mut command = json!({ "id": self.sent, "method": method, "params": params });
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        self.socket.send(Message::Text(command.to_string().into())).unwrap();
        loop {
            let mut said = self.hear();
            if said["id"] == self.sent {
                assert!(said["error"].is_null(), "{method}: {}", said["error"]);
                return said["result"].take();
            }
            self.events.push(said);
        }
    }

    /// The value of an expression on the page.
    fn value(&mut self, expression: &str) -> Value {
        let said = self.ask("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true }));
        assert!(said["exceptionDetails"].is_null(), "{expression}: {}", said["exceptionDetails"]);
        said["result"]["value"].clone()
    }

    fn open(&mut self, file: &Path, width: u32, theme: &str) {
        let screen = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.ask("Emulation.setDeviceMetricsOverride", screen);
        let feature = json!({ "name": "prefers-color-scheme", "value": theme });
        self.ask("Emulation.setEmulatedMedia", json!({ "features": [feature] }));
        self.events.clear();
        self.ask("Page.navigate", json!({ "url": format!("file://{}", file.display()) }));
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let said = self.hear();
            self.events.push(said);
        }
    }

    fn press_tab(&mut self) {
        for kind in ["keyDown", "keyUp"] {
            let key = json!({ "type": kind, "key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9 });
            self.ask("Input.dispatchKeyEvent", key);
        }
    }

    /// What it has said of errors, and of requests for anything but the page.
    fn complaints(&self, file: &Path) -> Vec<&Value> {
        let page = format!("file://{}", file.display());
        let complains = |event: &&Value| match event["method"].as_str() {
            Some("Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Log.entryAdded") => true,
            Some("Network.requestWillBeSent") => {
                let url = event["params"]["request"]["url"].as_str().unwrap_or_default();
                url != page && !url.starts_with("data:")
            }
            _ => false,
        };
        self.events.iter().filter(complains).collect()
    }
}

/// The charts that can be seen: the name, the marks of data drawn, and the texts that touch each other.
const CHARTS: &str = "
Array.from(document.querySelectorAll('figure.chart')).map(chart => {
  const picture = Array.from(chart.querySelectorAll('svg')).find(svg => svg.getBoundingClientRect().width > 0);
  const all = picture ? Array.from(picture.querySelectorAll('*')) : [];
  const seen = all.filter(it => !it.closest('.stop') && it.getBoundingClientRect().height + it.getBoundingClientRect().width > 0);
  const data = seen.filter(it => !['svg', 'g', 'text'].includes(it.tagName) && ['fill', 'stroke'].some(name => {
    const colour = it.getAttribute(name) || '';
    return colour.startsWith('var(') && !['line', 'soft', 'rule'].some(other => colour === `var(--${other})`);
  }));
  const texts = seen.filter(it => it.tagName === 'text').map(it => [it.textContent, it.getBoundingClientRect()]);
  const frame = picture ? picture.getBoundingClientRect() : null;
  const touching = [];
  texts.forEach(([text, a], index) => {
    if (a.left < frame.left - 1 || a.right > frame.right + 1) touching.push(`${text} leaves the picture`);
    texts.slice(index + 1).forEach(([other, b]) => {
      if (a.left < b.right && b.left < a.right && a.top < b.bottom - 1 && b.top < a.bottom - 1) touching.push(`${text} | ${other}`);
    });
  });
  return [chart.getAttribute('aria-label'), data.length, touching];
})";

/// The page of a plan: how much fast memory the quickstart needs for an objective that some of it meets.
fn page_of_a_plan() -> String {
    let set = [("workload.limit_tokens".to_owned(), "20".to_owned())];
    let axis = |name, values| Axis::new(name, values, None).unwrap();
    let space =
        Space::new(vec![axis("hbm", "8 GiB,10 GiB,12 GiB"), axis("machine", "rtx-4090,rtx-5090")]).unwrap();
    let bounds = [Bound { metric: "tpot", figure: TPOT, limit_ms: 15.0 }];
    let question = Question {
        space: &space,
        bounds: &bounds,
        minimize: Minimize::Cost,
        exhaustive: false,
        evaluations: 64,
        search_seed: 0,
    };
    let scenario = concat!(env!("CARGO_MANIFEST_DIR"), "/../scenarios/quickstart.yaml");
    let runs = Runs { scenario, set: &set, seeds: 1, percentile: 99.0, journal: None };
    let plan = plan(&question, &Site::new(runs, &space, &|_| {})).unwrap_or_else(|_| panic!("no plan"));
    sim::plan::page("quickstart", &question, 99.0, &plan).render().unwrap()
}

#[test]
fn the_pages_hold_in_a_browser() {
    let Some(program) = chromium() else {
        println!("skipped: no Chromium: set CHROME to one, or put one on the path");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut browser = Browser::start(&program);
    let runs =
        SCENARIOS.iter().map(|(scenario, overrides)| (*scenario, page_of(scenario, overrides, "a run"), 10));
    for (name, page, charts) in runs.chain([("plan", page_of_a_plan(), 2)]) {
        let file = folder.path().join(format!("{name}.html"));
        fs::write(&file, page).unwrap();
        holds(&mut browser, &file, name, charts);
    }
}

/// A page holds in both themes and on both widths, with so many charts at least.
fn holds(browser: &mut Browser, file: &Path, name: &str, least: usize) {
    let mut grounds = Vec::new();
    for (width, theme) in [(1440, "light"), (390, "dark")] {
        browser.open(file, width, theme);
        let charts = browser.value(CHARTS);
        let charts = charts.as_array().unwrap();
        assert!(charts.len() >= least, "{name}: {} charts", charts.len());
        for chart in charts {
            let [title, drawn, touching] = [0, 1, 2].map(|index| &chart[index]);
            assert!(drawn.as_u64().unwrap() > 0, "{name}, {width}: {title} has no data");
            assert_eq!(touching, &json!([]), "{name}, {width}: texts of {title} are in each other's way");
        }
        let fits = "document.documentElement.scrollWidth <= document.documentElement.clientWidth";
        assert_eq!(browser.value(fits), true, "{name}: the page is wider than a window of {width}");
        grounds.push(browser.value("getComputedStyle(document.body).backgroundColor"));

        let focus =
            "document.activeElement?.matches('figure.chart') ? document.activeElement.ariaLabel : null";
        let mut reached = Vec::new();
        for _ in 0..20 * charts.len() {
            browser.press_tab();
            let at = browser.value(focus);
            reached.extend(at.as_str().map(str::to_owned));
            if reached.len() == charts.len() {
                break;
            }
        }
        let titles: Vec<&str> = charts.iter().filter_map(|chart| chart[0].as_str()).collect();
        assert_eq!(reached, titles, "{name}, {width}: charts in the order in which keys reach them");
        assert_eq!(browser.complaints(file), Vec::<&Value>::new(), "{name}, {width}, {theme}");
    }
    assert_ne!(grounds[0], grounds[1], "{name}: one theme only");
}
