//! SIV-CMAC-512 for vectors narrower than a cache line, written once for both widths.
//!
//! A group is as many pages as eight vectors have blocks: they are the lanes of the CBC-MAC. A part
//! of a page is eight vectors too, so that a part of a group is a square: each page writes its
//! blocks as a column, and the chains read rows.

/// A kernel, in a module that has the [`vectors`](super::narrow::vectors) of its machine.
macro_rules! kernel {
    ($features:literal) => {
        use core::arch::x86_64::{__m128i, _mm_sfence};

        use zeroize::optimization_barrier;

        use crate::key::SivKey;
        use crate::suite::siv_cmac_512::{SivCmac512, Subkeys};
        use crate::suite::{OpenJob, PageCipher, PageId, SealJob};

        /// Pages that are worked on at once, and steps to a part.
        const GROUP: usize = BLOCKS;

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
                // SAFETY: there is a kernel only where the machine has what this is compiled for.
                unsafe { seal(self, jobs, landing) }
            }

            pub(in crate::suite) fn open(&self, jobs: &mut [OpenJob<'_>], landing: Landing) {
                // SAFETY: there is a kernel only where the machine has what this is compiled for.
                unsafe { open(self, jobs, landing) }
            }
        }

        #[target_feature(enable = $features)]
        fn seal(kernel: &Kernel, jobs: &mut [SealJob<'_>], landing: Landing) {
            let mut squares = Squares::new();
            let mut groups = jobs.chunks_mut(GROUP).peekable();
            while let Some(group) = groups.next() {
                let ends = ends(kernel, group.iter().map(SealJob::id));
                let tags = tags(kernel, ends, &mut squares, |page, part| {
                    let mut parts = parts(group.get(page)?.plain()).iter().skip(part);
                    let plain = parts.next()?;
                    ask_for(parts.next());
                    Some(*plain)
                });
                for (page, (job, tag)) in group.iter_mut().zip(tags).enumerate() {
                    job.settle(tag);
                    let mut counter = Counter::new(&tag);
                    let (plain, sealed) = job.pages();
                    let ahead = groups.peek().and_then(|next| next.get(page));
                    let mut ahead = ahead.map(SealJob::plain).into_iter().flat_map(parts);
                    for (from, to) in parts(plain).iter().zip(parts_mut(sealed)) {
                        ask_for(ahead.next());
                        write(to, sums(encrypt(&kernel.ctr, counter.next()), from), landing);
                    }
                }
            }
            if landing == Landing::Cold {
                _mm_sfence();
            }
        }

        #[target_feature(enable = $features)]
        fn open(kernel: &Kernel, jobs: &mut [OpenJob<'_>], landing: Landing) {
            let mut squares = Squares::new();
            for group in jobs.chunks_mut(GROUP) {
                let ends = ends(kernel, group.iter().map(OpenJob::id));
                let mut counters = [Counter::new(&[0; 16]); GROUP];
                for (counter, job) in counters.iter_mut().zip(&*group) {
                    *counter = Counter::new(job.tag());
                }
                let tags = tags(kernel, ends, &mut squares, |page, part| {
                    let (sealed, plain) = group.get_mut(page)?.pages();
                    let mut parts = parts(sealed).iter().skip(part);
                    let (from, to) = (parts.next()?, parts_mut(plain).get_mut(part)?);
                    ask_for(parts.next());
                    let bytes = sums(encrypt(&kernel.ctr, counters.get_mut(page)?.next()), from);
                    write(to, bytes, landing);
                    Some(bytes)
                });
                if landing == Landing::Cold {
                    _mm_sfence(); // before a page that is not genuine is wiped
                }
                for (job, tag) in group.iter_mut().zip(tags) {
                    job.settle(&tag);
                }
            }
        }

        /// The tags of a group, from the plain bytes of a part of a page. The chains follow a part
        /// behind, a step for every page that is asked for: each fills the waits of the other.
        #[inline]
        #[target_feature(enable = $features)]
        fn tags(
            kernel: &Kernel,
            ends: Eight,
            squares: &mut Squares,
            mut plain: impl FnMut(usize, usize) -> Option<Eight>,
        ) -> [[u8; 16]; GROUP] {
            let mut chains = ZEROES;
            for part in 0..=PARTS {
                for page in 0..GROUP {
                    if let Some(part) = part.checked_sub(1) {
                        chains = encrypt(&kernel.mac, squares.add(chains, part, page));
                    }
                    if let Some(vectors) = plain(page, part) {
                        squares.take(part, page, &vectors);
                    }
                }
                if part == PARTS - 1 {
                    squares.end(&ends);
                }
            }
            blocks(chains)
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

        /// Two parts of every page of a group: one that is being added to the chains, and the one
        /// after it. A row for each step: the block that each chain adds.
        struct Squares([[Eight; GROUP]; 2]);

        impl Squares {
            const EMPTY: [[Eight; GROUP]; 2] = [[ZEROES; GROUP]; 2];

            /// Nothing yet.
            const fn new() -> Self {
                Self(Self::EMPTY)
            }

            /// Takes a part of one page, as a column.
            #[inline]
            #[target_feature(enable = $features)]
            #[expect(clippy::indexing_slicing, reason = "masked to what there is")]
            fn take(&mut self, part: usize, page: usize, vectors: &Eight) {
                let blocks: &[__m128i; GROUP] = zerocopy::transmute_ref!(vectors);
                for (row, block) in self.0[part & 1].iter_mut().zip(blocks) {
                    let row: &mut [__m128i; GROUP] = zerocopy::transmute_mut!(row);
                    row[page & (GROUP - 1)] = *block;
                }
            }

            /// Adds a row to the chains; what is left of the step is to encrypt them.
            #[inline]
            #[target_feature(enable = $features)]
            #[expect(clippy::indexing_slicing, reason = "masked to what there is")]
            fn add(&self, chains: Eight, part: usize, step: usize) -> Eight {
                sums(chains, &self.0[part & 1][step & (GROUP - 1)])
            }

            /// Adds to the last block of each page what ends its chain.
            #[inline]
            #[target_feature(enable = $features)]
            fn end(&mut self, ends: &Eight) {
                let [_, [.., last]] = &mut self.0; // parts are even in number
                *last = sums(*last, ends);
            }
        }

        impl Drop for Squares {
            fn drop(&mut self) {
                self.0 = Self::EMPTY;
                optimization_barrier(&self.0);
            }
        }
    };
}

pub(super) use kernel;
