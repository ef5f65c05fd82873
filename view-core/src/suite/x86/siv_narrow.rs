//! SIV-CMAC-512 for vectors narrower than a cache line, written once for both widths.
//!
//! Such a machine may have sixteen vector registers. Eight vectors in flight keep its AES units
//! busy and leave room for keys, so a group is as many pages as eight vectors have blocks: they are
//! the lanes of the CBC-MAC. What is done to a page at a time is eight vectors too, so that a part
//! of a group is a square: each page writes its blocks as a column, and the chains read rows.

/// One step of every variable that is named: variables and not arrays, because those stay in
/// registers from round to round.
macro_rules! every {
    ($step:ident($key:expr) $($vector:ident)*) => {
        $($vector = $step($vector, $key);)*
    };
}

/// A kernel. The module that asks for it names its machine: the `Proof`, the `Vector`, its blocks
/// (`LANES`, `NUMBERS`), and the instructions `xor`, `add`, `shuffle`, `round`, `last_round` and
/// `store_past_cache`.
macro_rules! kernel {
    ($features:literal) => {
        use core::arch::x86_64::{__m128i, _MM_HINT_T1, _mm_prefetch, _mm_sfence};

        use zeroize::{Zeroize, optimization_barrier};

        use super::schedule::{ROUND_KEYS, Schedule};
        use super::siv_narrow::every;
        use crate::key::SivKey;
        use crate::page::{PAGE_SIZE, Page};
        use crate::suite::siv::counter;
        use crate::suite::siv_cmac_512::{SivCmac512, Subkeys};
        use crate::suite::{Landing, OpenJob, PageCipher, PageId, SealJob, Tag};

        /// Eight vectors: what is in flight, and a part of a page.
        type Eight = [Vector; 8];

        /// Blocks in eight vectors: pages that are worked on at once, and steps to a part.
        const GROUP: usize = 8 * LANES;

        /// Parts of a page.
        const PARTS: usize = PAGE_SIZE / size_of::<Eight>();

        /// The key, expanded for this kernel. It exists only where the machine can run it.
        pub(in crate::suite) struct Kernel {
            mac: Keys,
            ctr: Keys,
            subkeys: Subkeys,
        }

        impl Kernel {
            pub(in crate::suite) fn new(proof: Proof, key: &SivKey) -> Self {
                let [mac, ctr]: &[[u8; 32]; 2] = zerocopy::transmute_ref!(key.expose());
                let (mac, ctr) = (Keys::new(proof, mac), Keys::new(proof, ctr));
                let subkeys = Subkeys::new(|block| {
                    // SAFETY: the proof says that the machine has what this is compiled for.
                    let eight = unsafe { encrypt(&mac, [repeat(block); 8]) };
                    let [block, ..] = blocks(eight);
                    block
                });
                Self { mac, ctr, subkeys }
            }

            pub(in crate::suite) fn seal(&self, jobs: &mut [SealJob<'_>], landing: Landing) {
                match landing {
                    // SAFETY: there is a kernel only where the machine has what it takes.
                    Landing::Hot => unsafe { seal::<false>(self, jobs) },
                    // SAFETY: there is a kernel only where the machine has what it takes.
                    Landing::Cold => unsafe { seal::<true>(self, jobs) },
                }
            }

            pub(in crate::suite) fn open(&self, jobs: &mut [OpenJob<'_>], landing: Landing) {
                match landing {
                    // SAFETY: there is a kernel only where the machine has what it takes.
                    Landing::Hot => unsafe { open::<false>(self, jobs) },
                    // SAFETY: there is a kernel only where the machine has what it takes.
                    Landing::Cold => unsafe { open::<true>(self, jobs) },
                }
            }
        }

        #[target_feature(enable = $features)]
        fn seal<const COLD: bool>(kernel: &Kernel, jobs: &mut [SealJob<'_>]) {
            let mut square = Square::new();
            for group in jobs.chunks_mut(GROUP) {
                let ends = ends(kernel, group.iter().map(SealJob::id));
                let mut chains = ZEROES;
                for part in 0..PARTS {
                    for (page, job) in group.iter().enumerate() {
                        let mut parts = parts(job.plain()).iter().skip(part);
                        let Some(vectors) = parts.next() else { continue };
                        square.take(page, vectors);
                        ask_for(parts.next());
                    }
                    chains = square.absorb(kernel, chains, part, &ends);
                }
                for (job, tag) in group.iter_mut().zip(blocks(chains)) {
                    job.settle(tag);
                    let mut counter = Counter::new(&tag);
                    let (plain, sealed) = job.pages();
                    for (from, to) in parts(plain).iter().zip(parts_mut(sealed)) {
                        let stream = encrypt(&kernel.ctr, counter.next());
                        write::<COLD>(to, sums(stream, from));
                    }
                }
            }
            if COLD {
                _mm_sfence();
            }
        }

        #[target_feature(enable = $features)]
        fn open<const COLD: bool>(kernel: &Kernel, jobs: &mut [OpenJob<'_>]) {
            let mut square = Square::new();
            for group in jobs.chunks_mut(GROUP) {
                let ends = ends(kernel, group.iter().map(OpenJob::id));
                let mut counters = [Counter::new(&[0; 16]); GROUP];
                for (counter, job) in counters.iter_mut().zip(&*group) {
                    *counter = Counter::new(job.tag());
                }
                let mut chains = ZEROES;
                for part in 0..PARTS {
                    let pages = group.iter_mut().zip(&mut counters).enumerate();
                    for (page, (job, counter)) in pages {
                        let (sealed, plain) = job.pages();
                        let mut parts = parts(sealed).iter().skip(part);
                        let Some(from) = parts.next() else { continue };
                        let Some(to) = parts_mut(plain).get_mut(part) else { continue };
                        let bytes = sums(encrypt(&kernel.ctr, counter.next()), from);
                        write::<COLD>(to, bytes);
                        square.take(page, &bytes);
                        ask_for(parts.next());
                    }
                    chains = square.absorb(kernel, chains, part, &ends);
                }
                if COLD {
                    _mm_sfence(); // before a page that is not genuine is wiped
                }
                for (job, tag) in group.iter_mut().zip(blocks(chains)) {
                    job.settle(&tag);
                }
            }
        }

        /// What each lane adds to the last block of its page: the CMAC of its associated data, and
        /// what S2V and CMAC add to everyone's (RFC 5297, section 2.4).
        #[target_feature(enable = $features)]
        fn ends<'a>(kernel: &Kernel, ids: impl Iterator<Item = &'a PageId>) -> Eight {
            let (mut first, mut second) = ([[0_u8; 16]; GROUP], [[0_u8; 16]; GROUP]);
            for (id, (first, second)) in ids.zip(first.iter_mut().zip(&mut second)) {
                [*first, *second] = zerocopy::transmute!(id.associated_data(SivCmac512::SUITE));
            }
            let Subkeys { k1, start } = kernel.subkeys;
            let [k1, start] = [[repeat(k1); 8], [repeat(start); 8]];
            let chains = encrypt(&kernel.mac, zerocopy::transmute!(first));
            let chains = sums(sums(chains, &zerocopy::transmute!(second)), &k1);
            sums(sums(encrypt(&kernel.mac, chains), &start), &k1)
        }

        /// A part of every page of a group: a row for each step, the block that each chain adds.
        struct Square([Eight; GROUP]);

        impl Square {
            const EMPTY: [Eight; GROUP] = [ZEROES; GROUP];

            /// Nothing yet.
            const fn new() -> Self {
                Self(Self::EMPTY)
            }

            /// Takes a part of one page, as a column.
            #[inline]
            #[target_feature(enable = $features)]
            fn take(&mut self, page: usize, vectors: &Eight) {
                let blocks: &[__m128i; GROUP] = zerocopy::transmute_ref!(vectors);
                for (row, block) in self.0.iter_mut().zip(blocks) {
                    let row: &mut [__m128i; GROUP] = zerocopy::transmute_mut!(row);
                    if let Some(lane) = row.get_mut(page) {
                        *lane = *block;
                    }
                }
            }

            /// Adds every row to the chains. The last of a page has the ends added to it.
            #[inline]
            #[target_feature(enable = $features)]
            fn absorb(
                &mut self,
                kernel: &Kernel,
                mut chains: Eight,
                part: usize,
                ends: &Eight,
            ) -> Eight {
                if part == PARTS - 1 {
                    let [.., last] = &mut self.0;
                    *last = sums(*last, ends);
                }
                for row in &self.0 {
                    chains = encrypt(&kernel.mac, sums(chains, row));
                }
                chains
            }
        }

        impl Drop for Square {
            fn drop(&mut self) {
                self.0 = Self::EMPTY;
                optimization_barrier(&self.0);
            }
        }

        /// The counters of a page's next blocks: 32 bits, big-endian, at the end of each block. It
        /// is kept little-endian, which is how the machine adds.
        #[derive(Clone, Copy)]
        struct Counter(Vector);

        /// Swaps the bytes of the last word of each block, the one that counts, and of no other.
        const SWAP: Vector = repeat([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 15, 14, 13, 12]);

        impl Counter {
            /// Those of a page's first blocks (RFC 5297, section 2.5).
            #[inline]
            #[target_feature(enable = $features)]
            fn new(tag: &Tag) -> Self {
                let first = shuffle(repeat(counter(tag).to_be_bytes()), SWAP);
                Self(add(first, zerocopy::transmute!(NUMBERS)))
            }

            /// The counters of a part.
            #[inline]
            #[target_feature(enable = $features)]
            fn next(&mut self) -> Eight {
                const FORTH: Vector = zerocopy::transmute!([[0, 0, 0, STEP]; LANES]);
                let mut eight = [SWAP; 8];
                for vector in &mut eight {
                    *vector = shuffle(self.0, SWAP);
                    self.0 = add(self.0, FORTH);
                }
                eight
            }
        }

        /// The round keys of AES-256, in every lane.
        struct Keys([Vector; ROUND_KEYS]);

        impl Keys {
            fn new(proof: Proof, key: &[u8; 32]) -> Self {
                Self(Schedule::new(proof.into(), key).0.map(repeat))
            }
        }

        impl Drop for Keys {
            fn drop(&mut self) {
                self.0.zeroize();
            }
        }

        /// AES-256 of every block (FIPS 197, section 5.1).
        #[inline]
        #[target_feature(enable = $features)]
        fn encrypt(Keys([first, middle @ .., last]): &Keys, eight: Eight) -> Eight {
            let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = eight;
            every!(xor(*first) a b c d e f g h);
            for key in middle {
                every!(round(*key) a b c d e f g h);
            }
            every!(last_round(*last) a b c d e f g h);
            [a, b, c, d, e, f, g, h]
        }

        /// The sums of two sets in GF(2^128), block by block.
        #[inline]
        #[target_feature(enable = $features)]
        fn sums(mut eight: Eight, others: &Eight) -> Eight {
            for (vector, other) in eight.iter_mut().zip(others) {
                *vector = xor(*vector, *other);
            }
            eight
        }

        /// Writes a part: into the cache, or past it.
        ///
        /// If `COLD`, the caller fences before anyone reads or writes the page.
        #[inline]
        #[target_feature(enable = $features)]
        fn write<const COLD: bool>(to: &mut Eight, vectors: Eight) {
            if COLD {
                for (to, vector) in to.iter_mut().zip(vectors) {
                    // SAFETY: the vector is ours to write and aligned; the caller fences.
                    unsafe { store_past_cache(to, vector) };
                }
            } else {
                *to = vectors;
            }
        }

        /// Asks for a part, so that it is near when its turn comes.
        #[inline]
        #[target_feature(enable = $features)]
        fn ask_for(part: Option<&Eight>) {
            let Some(part) = part else { return };
            for line in part.as_chunks::<{ 4 / LANES }>().0 {
                _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast());
            }
        }

        /// The same block in every lane.
        const fn repeat(block: [u8; 16]) -> Vector {
            zerocopy::transmute!([block; LANES])
        }

        /// Eight vectors of nothing.
        const ZEROES: Eight = [repeat([0; 16]); 8];

        /// Eight vectors as blocks.
        fn blocks(eight: Eight) -> [[u8; 16]; GROUP] {
            zerocopy::transmute!(eight)
        }

        /// The page's parts, to read.
        fn parts(page: &Page) -> &[Eight; PARTS] {
            zerocopy::transmute_ref!(page)
        }

        /// The page's parts, to write.
        fn parts_mut(page: &mut Page) -> &mut [Eight; PARTS] {
            zerocopy::transmute_mut!(page)
        }
    };
}

pub(super) use {every, kernel};
