//! The machine, the compiler and the commit that a recording is of.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

/// What decides how fast AES is, among the many things that a CPU can do.
const FEATURES: [&str; 8] =
    ["aes", "avx2", "avx512f", "avx512bw", "avx512vl", "pclmulqdq", "vaes", "vpclmulqdq"];

/// What can be found out; the rest is `null`.
pub fn facts() -> Value {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = field(&cpuinfo, "flags").or_else(|| field(&cpuinfo, "Features"));
    let features = flags.map(|flags| {
        let has = |feature: &&&str| flags.split(' ').any(|flag| flag == **feature);
        FEATURES.iter().filter(has).copied().collect::<Vec<_>>()
    });
    let numbers = ["cpu family", "model", "stepping"].map(|name| field(&cpuinfo, name));
    let commit = said("git", &["rev-parse", "HEAD"]);
    let changed = said("git", &["status", "--porcelain", "--untracked-files=no"]);
    json!({
        "cpu": field(&cpuinfo, "model name"),
        "cpu_family_model_stepping": numbers,
        "cpus": std::thread::available_parallelism().ok().map(usize::from),
        "features": features,
        "l2_cache": read("/sys/devices/system/cpu/cpu0/cache/index2/size"),
        "l3_cache": read("/sys/devices/system/cpu/cpu0/cache/index3/size"),
        "huge_pages": read("/sys/kernel/mm/transparent_hugepage/enabled"),
        "hypervisor": flags.map(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
        "kernel": read("/proc/sys/kernel/osrelease"),
        "rustc": said("rustc", &["--version"]),
        "date": said("date", &["-u", "+%Y-%m-%d"]),
        "commit": commit,
        "changed_since_commit": changed.map(|changed| !changed.is_empty()),
    })
}

/// The value of the first line of that name.
fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let values = text.lines().filter_map(|line| line.split_once(':'));
    values.into_iter().find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
}

fn read(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "model\t\t: 2\nmodel name\t: A CPU: fast\nflags\t: aes vaes\n";
        assert_eq!(field(text, "model name"), Some("A CPU: fast"));
        assert_eq!(field(text, "model"), Some("2"));
        assert_eq!(field(text, "name"), None);
    }
}
