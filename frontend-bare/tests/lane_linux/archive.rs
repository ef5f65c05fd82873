//! An initial file system: a cpio archive of the kind that Linux unpacks at its start ("newc",
//! Documentation/driver-api/early-userspace/buffer-format.rst).

/// An archive that grows.
#[derive(Default)]
pub(crate) struct Archive(Vec<u8>);

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;

impl Archive {
    /// A folder.
    pub(crate) fn folder(&mut self, name: &str) {
        self.entry(name, FOLDER, (0, 0), &[]);
    }

    /// A file that can be run.
    pub(crate) fn program(&mut self, name: &str, content: &[u8]) {
        self.entry(name, PROGRAM, (0, 0), content);
    }

    /// A character device by its numbers.
    pub(crate) fn device(&mut self, name: &str, numbers: (u32, u32)) {
        self.entry(name, CHARACTER_DEVICE, numbers, &[]);
    }

    /// The bytes, with the mark at their end.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.0
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("a small file");
        let fields = [
            (0, mode),
            (0, 0),
            (1, 0),
            (length(content), 0),
            (0, device.0),
            (device.1, length(name.as_bytes()) + 1),
        ];
        self.0.extend_from_slice(b"070701");
        for (one, other) in fields {
            self.0.extend_from_slice(format!("{one:08x}{other:08x}").as_bytes());
        }
        self.0.extend_from_slice(b"00000000");
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(0);
        self.pad();
        self.0.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}
