//! The page that explains a trace: it shows what it must, needs nothing else, and cannot be broken
//! out of; a browser that is at hand draws it.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use sim::explain::{html, notes};
use sim::invariant::INVARIANTS;
use sim::trace::Trace;

fn seeds() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let mut seeds: Vec<(String, String)> = fs::read_dir(folder)
        .expect("the folder of kept traces")
        .map(|file| {
            let path = file.expect("readable").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, fs::read_to_string(path).expect("text"))
        })
        .collect();
    seeds.sort();
    seeds
}

fn page(name: &str, text: &str) -> String {
    html(&text.parse().expect("a trace"), name, &notes(text))
}

/// What the script reads.
fn data(page: &str) -> Value {
    let (_, rest) = page.split_once("type=\"application/json\" id=\"story\">").expect("data");
    let (data, _) = rest.split_once("</script>").expect("an end");
    serde_json::from_str(data).expect("JSON")
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().expect("a list")
}

fn sentence(id: &str) -> &'static str {
    INVARIANTS.iter().find(|invariant| invariant.id == id).expect("a clause").sentence
}

/// A life of a page in 37 events, on a machine that is sound.
const TOUR: &str = "\
# A tour.
config pages-deep
cpu0 guest store 0:0
cpu0 begin 0:0 map read
cpu1 guest load 0:1
cpu1 begin 0:1 share read never
cpu0 step
cpu0 step
cpu1 step
cpu0 step
cpu0 management load r0
cpu1 step
cpu1 management load f1
cpu1 begin 0:1 unshare
cpu1 step
cpu1 step
cpu1 step
cpu1 step
cpu0 begin 0:0 page-out
cpu0 step
cpu0 step
cpu0 step
cpu0 step
cpu0 step
cpu0 step
management offer f0 0:0
management hand 0:0 forged
cpu0 begin 0:0 page-in f0
cpu0 step
cpu0 step
management hand 0:0 resident/0:0/e1/v2
cpu0 step
cpu0 step
cpu0 begin 0:0 touch
cpu0 step
cpu0 step
cpu0 step
cpu0 step
cpu0 step
";

/// Mutant, configuration, clause and events, for clauses that no kept trace is about.
const MORE: &[[&str; 4]] = &[
    [
        "forgets-fence",
        "page",
        "C3",
        "cpu0 begin 0:0 share write never;cpu0 step;cpu0 step;cpu0 begin 0:0 unshare;\
         cpu0 management load f0;cpu0 step;cpu0 step;cpu0 step;cpu0 step;cpu0 guest store 0:0",
    ],
    [
        "constant-version",
        "page",
        "C6",
        "cpu0 begin 0:0 export image;cpu0 step;cpu0 step;cpu0 begin 0:0 export image;\
         cpu0 guest store 0:0;cpu0 step",
    ],
    ["keeps-owner", "page", "I1", "cpu0 begin 0:0 seal;cpu0 step;cpu0 step;cpu0 step"],
    [
        "writes-back",
        "page",
        "I5",
        "cpu0 begin 0:0 map read;cpu0 step;cpu0 step;cpu0 step;cpu0 begin 0:0 unmap;\
         cpu0 step;cpu0 step;cpu0 step;cpu0 step",
    ],
    ["forgets-plan", "page", "S1", "cpu0 begin 0:0 map read;cpu0 drop"],
    [
        "keeps-epoch",
        "restart",
        "S3",
        "management offer f0 0:0;cpu0 begin 0:0 accept f0;cpu0 step;cpu0 drop;restart",
    ],
    [
        "runs-stopped",
        "page",
        "I9",
        "cpu0 begin 0:0 map read;cpu0 step;cpu0 drop;cpu0 guest load 0:0",
    ],
    [
        "skips-scrub",
        "build",
        "C8",
        "vm0 launch;management offer f0 0:0;cpu0 begin 0:0 accept f0;cpu0 step;cpu0 step;\
         cpu0 step;cpu0 step;cpu0 step;cpu0 guest store 0:0;cpu0 begin 0:0 destroy;cpu0 step;\
         cpu0 step;cpu0 step;cpu0 step;cpu0 step",
    ],
    [
        "constant-version",
        "page",
        "C7",
        "cpu0 begin 0:0 export image;cpu0 step;cpu0 step;cpu0 begin 0:0 export image;\
         cpu0 step",
    ],
    [
        "keeps-owner",
        "page",
        "L1",
        "cpu0 begin 0:0 destroy;cpu0 step;cpu0 step;cpu0 step;cpu0 step;cpu0 step",
    ],
    [
        "stale-frame-of-another",
        "guests",
        "C11",
        "cpu0 begin 0:0 page-out;cpu0 step;cpu0 step;cpu0 step;cpu0 step;cpu0 step;\
         cpu0 begin 1:0 page-out;cpu0 step;cpu0 step;cpu0 step;cpu0 step;cpu0 step;\
         management offer f0 1:0;cpu0 begin 1:0 page-in f0;cpu0 step;cpu0 step;cpu0 step;\
         cpu0 step;cpu0 begin 1:0 touch;cpu0 step;cpu0 step;cpu0 step;cpu0 step;cpu0 step;\
         management offer f1 0:0;cpu0 begin 0:0 page-in f1",
    ],
    [
        "opens-twice",
        "replay",
        "I6",
        "cpu0 begin 0:0 seal;cpu0 step;cpu0 step;cpu0 step;cpu0 step;cpu0 step;\
         management hand 0:0 forged;cpu0 begin 0:0 touch;cpu0 step;cpu0 step;cpu0 step",
    ],
    [
        "keeps-forged",
        "page",
        "I7",
        "cpu0 begin 0:0 page-out;cpu0 step;cpu0 step;cpu0 step;cpu0 step;cpu0 step;\
         management offer f0 0:0;cpu0 begin 0:0 page-in f0;management hand 0:0 forged;\
         cpu0 step;cpu0 step;cpu0 step;cpu0 step;cpu0 begin 0:0 touch;cpu0 step;cpu0 step;\
         cpu0 step",
    ],
];

/// A trace for each clause that the page has something to say about.
fn counterexamples() -> Vec<(String, String)> {
    let more = MORE.iter().map(|[mutant, config, id, events]| {
        let events = events.replace(';', "\n");
        let text = format!("config {config}\nmutant {mutant}\nbreaks {id}\n{events}\n");
        (format!("{mutant}-{id}"), text)
    });
    // Some kept traces are long runs of a sound machine.
    let kept =
        seeds().into_iter().filter(|(_, text)| text.lines().any(|l| l.starts_with("breaks")));
    kept.chain(more).collect()
}

#[test]
fn a_page_has_every_step_and_the_clause_that_broke() {
    for (name, text) in counterexamples() {
        let trace: Trace = text.parse().expect("a trace");
        let data = data(&page(&name, &text));
        let steps = list(&data["steps"]);
        assert_eq!(steps.len(), trace.events.len() + 1, "{name}");
        for (step, event) in steps[1..].iter().zip(&trace.events) {
            assert_eq!(step["line"], event.to_string(), "{name}");
            assert!(step["words"].as_str().is_some_and(|words| words.ends_with('.')), "{name}");
        }
        let at = data["breaking"].as_u64().expect("it breaks");
        let broken = list(&steps[usize::try_from(at).expect("small")]["broken"]);
        let ids: Vec<&Value> = broken.iter().map(|clause| &clause["id"]).collect();
        assert!(trace.breaks.iter().all(|id| ids.iter().any(|one| *one == id)), "{name}: {ids:?}");
        for clause in broken {
            let id = clause["id"].as_str().expect("an id");
            assert_eq!(clause["sentence"], sentence(id));
            let blames = !list(&clause["because"]).is_empty();
            assert!(blames || !trace.breaks.contains(&id), "explain/blame.rs has no rule for {id}");
        }
        let headline = data["headline"].as_str().expect("text");
        let entry = trace.mutant.expect("counterexamples need a mutant");
        for needed in [entry.sentence, trace.breaks[0], &format!("event {at} of")] {
            assert!(headline.contains(needed), "{headline}");
        }
        assert!(data["configuration"].as_str().expect("text").contains(trace.config.purpose));
    }
}

/// The names of all cells in a step.
fn keys(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("key").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|field| keys(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| keys(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn what_is_blamed_is_a_cell_that_is_drawn() {
    for (name, text) in counterexamples() {
        let data = data(&page(&name, &text));
        for step in list(&data["steps"]) {
            let mut drawn = Vec::new();
            keys(step, &mut drawn);
            for clause in list(&step["broken"]) {
                assert!(!list(&clause["cells"]).is_empty(), "{name}");
                for cell in list(&clause["cells"]) {
                    let cell = cell.as_str().expect("a name").to_owned();
                    assert!(drawn.contains(&cell), "{name}: nobody draws {cell:?}");
                }
            }
        }
    }
}

#[test]
fn a_sound_trace_says_that_everything_holds() {
    let data = data(&page("tour.trace", TOUR));
    let steps = list(&data["steps"]);
    assert_eq!(steps.len(), 38);
    assert!(data["breaking"].is_null());
    assert!(steps.iter().all(|step| list(&step["broken"]).is_empty()));
    let headline = data["headline"].as_str().expect("text");
    assert!(headline.contains("every clause holds"), "{headline}");
    // The management side loaded what was sealed, and what is in the seal is not in its view.
    let sight = &steps[9]["sight"];
    assert_eq!((&sight["who"], &sight["at"]), (&"management".into(), &"r0".into()));
    let view = &steps[9]["pages"][0]["host_view"]["views"][0]["bytes"];
    assert_eq!((&view["class"], &view["inside"]), (&"sealed".into(), &Value::Null));
    // Its CPU remembers the open page until the fence.
    let remembered = |step: usize| &steps[step]["places"][1]["host"][2];
    assert_eq!((&remembered(13)["perm"], &remembered(13)["stale"]), (&"read".into(), &true.into()));
    assert!(remembered(14)["perm"].is_null());
}

#[test]
fn a_page_refers_to_nothing_outside() {
    for page in [page("tour.trace", TOUR), page(&seeds()[0].0, &seeds()[0].1)] {
        assert_eq!(outside(&page), [""; 0]);
    }
    for reference in ["<img src=x>", "<link rel=icon>", "a{b:url(x)}", "@import 'x'", "//x.org"] {
        assert!(!outside(reference).is_empty(), "{reference} is overlooked");
    }
}

/// What a browser would have to fetch. The one address is the name of a namespace.
fn outside(page: &str) -> Vec<&'static str> {
    let page = page.replace("http://www.w3.org/2000/svg", "").to_lowercase();
    // Comments of the script are the only other place for two slashes.
    let lines = page.lines().filter(|line| !line.trim_start().starts_with("// "));
    let page: String = lines.collect::<Vec<_>>().join("\n");
    let words = ["src=", "href=", "<link", "url(", "@import", "//", "fetch(", "import("];
    words.into_iter().filter(|word| page.contains(word)).collect()
}

/// What a name and a comment may hold at worst.
const HOSTILE: &str = "</script><script>go(0)</script><!--<script> </title> & \u{2028} \"'";

#[test]
fn nothing_in_a_trace_becomes_markup() {
    let text = format!("# {HOSTILE}\nconfig page\ncpu0 step\n");
    let hostile = page(HOSTILE, &text);
    let harmless = page("name", "# note\nconfig page\ncpu0 step\n");
    for tag in ["<script", "</script", "<!--", "</title", "<style"] {
        let count = |page: &str| page.to_lowercase().matches(tag).count();
        assert_eq!(count(&hostile), count(&harmless), "{tag} got in");
    }
    let data = data(&hostile);
    assert_eq!(data["name"], HOSTILE);
    assert_eq!(data["notes"][0], HOSTILE.trim());
}

/// The browser, or nothing if there is none: then the skip is said where no harness hides it.
fn chromium(test: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("chromium"));
    let found = found.into_iter().find(|file| file.is_file());
    if found.is_none() {
        let required = std::env::var("PAGEVEIL_REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|one| one == "chromium"), "chromium is required");
        let line = format!("skipped: {test}: there is no chromium\n");
        let stderr = std::io::stderr().as_fd().try_clone_to_owned().map(File::from);
        stderr.and_then(|mut e| e.write_all(line.as_bytes())).expect("stderr is there");
    }
    found
}

/// The document after the script has run.
fn drawn(chromium: &Path, name: &str, page: &str, step: &str) -> String {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("page.html");
    fs::write(&file, page).expect("written");
    let output = Command::new(chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"])
        .arg(format!("--user-data-dir={}", folder.join("profile").display()))
        .arg(format!("file://{}{step}", file.display()))
        .stderr(Stdio::null())
        .output()
        .expect("chromium starts");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// What stands between a tag that begins so and its end.
fn part<'d>(document: &'d str, begins: &str, ends: &str) -> &'d str {
    let (_, rest) = document.split_once(begins).unwrap_or_else(|| panic!("no {begins}"));
    rest.split_once(ends).expect("an end").0
}

#[test]
fn a_browser_draws_the_step_at_which_a_clause_breaks() {
    let Some(chromium) = chromium("a_browser_draws_the_step_at_which_a_clause_breaks") else {
        return;
    };
    let text = include_str!("../seeds/forgets-fence-C2.trace");
    let page = page("forgets-fence-C2.trace", text);
    let document = drawn(&chromium, "breaks", &page, "#step=9");
    assert!(document.contains("<body data-step=\"9\""));
    let verdict = part(&document, "<section id=\"verdict\"", "</section>");
    assert!(verdict.contains(sentence("C2")), "{verdict}");
    assert!(verdict.contains("CPU 0 still remembers"), "{verdict}");
    let cell = document.split('<').find(|tag| tag.contains("\"host f0 cpu0\"")).expect("a cell");
    for class in ["stale", "bad"] {
        assert!(cell.contains(class), "{cell}");
    }
    // Without a step in the address it opens there, too; at the start nothing is broken.
    assert!(drawn(&chromium, "opens", &page, "").contains("<body data-step=\"9\""));
    let document = drawn(&chromium, "starts", &page, "#step=0");
    let verdict = part(&document, "<section id=\"verdict\"", "</section>");
    assert!(verdict.contains("Every clause holds"), "{verdict}");
}

#[test]
fn keys_and_the_slider_step() {
    let Some(chromium) = chromium("keys_and_the_slider_step") else { return };
    let press = |keys: &[&str]| {
        let presses: String = keys
            .iter()
            .map(|key| {
                format!("document.dispatchEvent(new KeyboardEvent('keydown',{{key:'{key}'}}));")
            })
            .collect();
        format!("<script>{presses}</script></html>")
    };
    let slide = "<script>at('slider').value = 5;\
                 at('slider').dispatchEvent(new Event('input'));</script></html>";
    let cases = [
        (press(&["End"]), 37),
        (press(&["End", "ArrowRight", "ArrowLeft"]), 36),
        (press(&["Home", "ArrowLeft", "ArrowRight", "ArrowRight"]), 2),
        (slide.to_owned(), 5),
    ];
    for (script, step) in cases {
        let page = page("tour.trace", TOUR).replace("</html>", &script);
        let document = drawn(&chromium, "keys", &page, "#step=20");
        assert!(document.contains(&format!("<body data-step=\"{step}\"")), "{script}");
    }
}

#[test]
fn a_browser_draws_every_step_of_a_sound_trace() {
    let Some(chromium) = chromium("a_browser_draws_every_step_of_a_sound_trace") else { return };
    let document = drawn(&chromium, "tour", &page(HOSTILE, TOUR), "#step=13");
    assert!(document.contains("<body data-step=\"13\""));
    let events = part(&document, "<ol id=\"events\"", "</ol>");
    assert_eq!(events.matches("<li").count(), 38);
    // Withdrawn, but remembered: the fence comes next.
    let map = part(&document, "<section id=\"map\"", "</section>");
    let cell = map.split('<').find(|tag| tag.contains("\"host f1 cpu1\"")).expect("a cell");
    assert!(cell.contains("stale"), "{cell}");
    let batches = part(&document, "<section id=\"batches\"", "</section>");
    let next = part(batches, "class=\"now\"", "</li>");
    assert!(next.contains("fence"), "{next}");
    let about = part(&document, "<p id=\"about\"", "</p>");
    assert!(about.contains("&lt;/script&gt;"), "{about}");
}
