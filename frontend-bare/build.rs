//! How the image of the monitor is linked: alone, where its script says.

fn main() {
    println!("cargo:rerun-if-changed=image/monitor.ld");
    println!("cargo:rerun-if-changed=build.rs");
    let script = format!("-Wl,-T,{}/image/monitor.ld", env!("CARGO_MANIFEST_DIR"));
    let options = [
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none",
        "-Wl,-z,norelro",
        "-Wl,-z,max-page-size=0x1000",
        "-Wl,--gc-sections",
        "-Wl,-z,noexecstack",
        script.as_str(),
    ];
    for option in options {
        println!("cargo:rustc-link-arg-bin=monitor={option}");
    }
}
