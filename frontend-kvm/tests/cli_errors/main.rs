//! Every bad input has a clear error and loses nothing: no file, no guest, no conversation.

#[path = "../common/mod.rs"]
mod common;
mod disk;
mod guests;
mod images;
mod inputs;
mod liars;
mod sockets;
#[path = "../tool/mod.rs"]
mod tool;

/// Words of xorshift64*: the same ones in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.roll().to_le_bytes()[3]).collect()
    }
}
