//! AES by eights for vectors narrower than a cache line, written once for both widths.
//!
//! Such a machine may have sixteen vector registers: eight vectors in flight keep its AES units
//! busy, and leave room for keys.

/// One step of every variable that is named: variables and not arrays, because those stay in
/// registers from round to round.
macro_rules! every {
    ($step:ident($key:expr) $($vector:ident)*) => {
        $($vector = $step($vector, $key);)*
    };
}

/// Eight vectors and what is done with them. The module that asks names its machine: the `Proof`,
/// the `Vector`, its blocks (`LANES`, `NUMBERS`, `STEP`), and the instructions `xor`, `add`,
/// `shuffle`, `round`, `last_round` and `store_past_cache`.
macro_rules! vectors {
    ($features:literal) => {
        use core::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        use core::hint::black_box;

        use zeroize::Zeroize;

        use super::narrow::every;
        use super::schedule::{ROUND_KEYS, Schedule};
        use crate::page::{PAGE_SIZE, Page};
        use crate::suite::siv::counter;
        use crate::suite::{Landing, Tag};

        /// Eight vectors: what is in flight, and a part of a page.
        type Eight = [Vector; 8];

        /// Blocks in eight vectors.
        const BLOCKS: usize = 8 * LANES;

        /// Parts of a page.
        const PARTS: usize = PAGE_SIZE / size_of::<Eight>();

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

        /// AES-256 of every block (FIPS 197, section 5.1). The keys are read where they are, round
        /// by round: a compiler that sees through this copies them to the stack, and nobody wipes
        /// that.
        #[inline]
        #[target_feature(enable = $features)]
        fn encrypt(keys: &Keys, eight: Eight) -> Eight {
            let Keys([first, middle @ .., last]) = black_box(keys);
            let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = eight;
            every!(xor(*first) a b c d e f g h);
            for key in middle {
                every!(round(*key) a b c d e f g h);
            }
            every!(last_round(*last) a b c d e f g h);
            [a, b, c, d, e, f, g, h]
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

        /// The sums of two sets in GF(2^128), block by block.
        #[inline]
        #[target_feature(enable = $features)]
        fn sums(mut eight: Eight, others: &Eight) -> Eight {
            for (vector, other) in eight.iter_mut().zip(others) {
                *vector = xor(*vector, *other);
            }
            eight
        }

        /// Writes a part. If it is to be cold, the caller fences before anyone reads or writes it.
        #[inline]
        #[target_feature(enable = $features)]
        fn write(to: &mut Eight, vectors: Eight, landing: Landing) {
            if landing == Landing::Hot {
                *to = vectors;
                return;
            }
            for (to, vector) in to.iter_mut().zip(vectors) {
                // SAFETY: the vector is ours to write and aligned; the caller fences.
                unsafe { store_past_cache(to, vector) };
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
        fn blocks(eight: Eight) -> [[u8; 16]; BLOCKS] {
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

pub(super) use {every, vectors};
